# SPDX-License-Identifier: GPL-3.0-or-later
"""Real answers against the published description of the control API."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from harness import World, task
from openapi_spec_validator import validate
from solver_worker.status import FEATURES

FILE = Path(__file__).resolve().parents[5] / "docs" / "openapi" / "control-v1.yaml"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason="the description is not part of a release")


@pytest.fixture(scope="module")
def description() -> Any:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


class Contract:
    """Every answer must be one that the description names, with a body that it allows."""

    def __init__(self, description: Any) -> None:
        self._description = description
        self.seen: set[tuple[str, str, int]] = set()

    def check(self, method: str, target: str, answer: tuple[int, Any]) -> Any:
        status, body = answer
        path = target.partition("?")[0]
        responses = self._description["paths"][path][method.lower()]["responses"]
        assert str(status) in responses, f"{method} {path} answered {status}: {body}"
        self.seen.add((method, path, status))
        response = responses[str(status)]
        if "$ref" in response:
            response = self._description["components"]["responses"][response["$ref"].rpartition("/")[2]]
        if "content" not in response:
            assert body is None
            return body
        (media,) = response["content"].values()
        jsonschema.Draft202012Validator({**self._description, **media["schema"]}).validate(body)
        return body


def test_the_description_is_valid(description: Any) -> None:
    validate(description)


async def test_real_answers_match_the_description(world: World, description: Any) -> None:
    world.sandbox("--solve", "default=0.2:0.2", "--solve", "userrecaptcha=30:30")
    worker = await world.worker().start()
    contract = Contract(description)

    async def call(method: str, target: str, body: Any = None, **headers: str) -> Any:
        return contract.check(method, target, await worker.control(method, target, body, **headers))

    await call("GET", "/")
    status = await call("GET", "/v1/status")
    assert status["api"]["features"] == FEATURES
    await call("GET", "/v1/status?wait=x")
    await call("GET", "/v1/status", Origin="http://x")
    await call("POST", "/v1/probe", {"request_id": "r"})
    await call("POST", "/v1/probe", {"request_id": "r2", "expect": "no"})
    await call("POST", "/v1/probe", {})
    await worker.post("k", task(1))
    await call("GET", "/v1/status")
    await call("PUT", "/v1/drain", {"owner": "a", "deadline_s": 60})
    await call("GET", "/v1/status")
    await call("PUT", "/v1/drain", {"owner": "a", "mode": "handover"})
    await call("PUT", "/v1/drain", {"owner": "b"})
    await call("PUT", "/v1/drain", {"owner": "b", "mode": "no"})
    await call("PUT", "/v1/drain")
    await call("DELETE", "/v1/drain?owner=b")
    await call("DELETE", "/v1/drain")
    await call("DELETE", "/v1/drain?owner=a")
    await call("DELETE", "/v1/drain?owner=a")
    failed = await world.worker("w2", data={"port": worker.port}).start(until="failed")
    contract.check("GET", "/v1/status", await failed.control("GET", "/v1/status"))
    contract.check("PUT", "/v1/drain", await failed.drain())
    answered = {(path, status) for _unused, path, status in contract.seen}
    assert {("/v1/drain", code) for code in (200, 202, 204, 400, 409, 415, 503)} <= answered
    assert {("/v1/probe", 200), ("/v1/probe", 400), ("/v1/status", 403)} <= answered


async def test_the_description_would_notice_a_missing_field(world: World, description: Any) -> None:
    worker = await world.worker().start()
    document = await worker.status()
    del document["seq"]
    with pytest.raises(jsonschema.ValidationError):
        Contract(description).check("GET", "/v1/status", (200, document))
