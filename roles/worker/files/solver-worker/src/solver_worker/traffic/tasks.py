# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tasks a run submits: seeded, each with a nonce that every book can be searched for."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..sandbox import methods
from ..sandbox.payload import make_png


@dataclass(frozen=True)
class Task:
    key: str
    nonce: str
    method: str
    # None: the answer is read; "sent" or "answered": when the connection is cut on purpose.
    cut: str | None
    # About how large the submit is, if that is more than its fields need.
    body_bytes: int = 0

    @property
    def expected(self) -> str:
        return f"solved:{self.nonce}"

    def body(self) -> dict[str, str]:
        if self.method == "base64":
            return {"method": "base64", "body": base64.b64encode(self._image()).decode()}
        fields = {name: f"{name}-{self.nonce}" for name in methods.required(self.method)}
        if "pageurl" in fields:
            fields["pageurl"] = f"https://shop.test/{self.nonce}"
        return {"method": self.method, **fields}

    def _image(self) -> bytes:
        # Base64 makes four bytes of three. The padding must only be nothing that a book takes for a nonce.
        texts = {"comment": self.nonce}
        missing = self.body_bytes * 3 // 4 - len(make_png(texts))
        return make_png({**texts, "padding": "." * (missing - 30)}) if missing > 30 else make_png(texts)


def check_mix(mix: Mapping[str, float]) -> None:
    """ValueError naming what is wrong with a mix of methods."""
    for method, share in mix.items():
        try:
            fields = methods.required(method)
        except KeyError:
            raise ValueError(f"{method!r} is not a method that in.php knows") from None
        if not fields:
            raise ValueError(f"{method!r} has no field that could carry a nonce")
        if not 0 < share <= 1e6:
            raise ValueError(f"the share of {method!r} must be above 0")


def generate(
    run: str,
    seed: int,
    mix: Mapping[str, float],
    lost_answers: float,
    body_bytes: int = 0,
) -> Iterator[Task]:
    """Tasks without end. `run` keeps the keys of two runs apart: workers remember keys for a day."""
    chance = random.Random(seed)  # noqa: S311 - not cryptography
    names, shares = list(mix), list(mix.values())
    number = 0
    while True:
        number += 1
        method = chance.choices(names, shares)[0]
        lost, how = chance.random() < lost_answers, chance.choice(("sent", "answered"))
        digest = hashlib.sha256(f"{run}:{seed}:{number}".encode()).hexdigest()[:16]
        yield Task(f"{run}-{number:06d}", f"nonce-{digest}", method, how if lost else None, body_bytes)
