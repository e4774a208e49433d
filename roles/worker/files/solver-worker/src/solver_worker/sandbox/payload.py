# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sandbox reads in a submitted task: its nonce, its fingerprint, the answer of an image.

The nonce is how three books (client, worker, provider) speak about the same task without sharing ids.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping

_NONCE = re.compile(rb"nonce-[0-9a-f]{8,}")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_SIDE = 16
# Fields that identify the caller or the form of the answer, not the task.
_NOT_PAYLOAD = frozenset({"key", "json", "soft_id", "header_acao", "pingback"})


def decode_base64(text: str) -> bytes | None:
    """The bytes of a base64 body, also behind a data: prefix; None if it is not base64."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def find_nonce(fields: Mapping[str, str], image: bytes | None = None) -> str | None:
    """The first nonce in any field, or in the bytes of the image."""
    blobs = [value.encode() for _unused, value in sorted(fields.items())]
    if image is not None:
        blobs += _parts(image)
    for blob in blobs:
        found = _NONCE.search(blob)
        if found:
            return found.group().decode()
    return None


def fingerprint(fields: Mapping[str, str], image: bytes | None = None) -> str:
    """A name for a payload without a nonce; equal payloads have equal names."""
    relevant = {name: value for name, value in fields.items() if name not in _NOT_PAYLOAD}
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode())
    digest.update(image or b"")
    return f"payload-{digest.hexdigest()[:16]}"


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = len(_PNG_MAGIC)
    kind = b""
    while kind != b"IEND" and offset + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[offset : offset + 8])
        yield kind, png[offset + 8 : offset + 8 + length]
        offset += 12 + length


def _parts(image: bytes) -> list[bytes]:
    """A PNG's chunks one by one, then what follows its end; any other image whole.

    The checksum behind a chunk may begin with a byte that reads as one more digit of the nonce.
    """
    if not image.startswith(_PNG_MAGIC):
        return [image]
    parts = [data for _unused, data in _chunks(image)]
    return [*parts, image[len(_PNG_MAGIC) + sum(12 + len(data) for data in parts) :]]


def png_text(image: bytes, keyword: str) -> str | None:
    """The text of a PNG's tEXt chunk with this keyword."""
    if not image.startswith(_PNG_MAGIC):
        return None
    for kind, data in _chunks(image):
        name, _unused, text = data.partition(b"\0")
        if kind == b"tEXt" and name == keyword.encode():
            return text.decode("latin-1")
    return None


def make_png(texts: Mapping[str, str]) -> bytes:
    """A small valid grey PNG that carries these tEXt chunks; always above the provider's 100 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((row * 7 + column * 13) % 256 for column in range(_SIDE)) for row in range(_SIDE))
    parts = [_PNG_MAGIC, chunk(b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0))]
    parts += [chunk(b"tEXt", name.encode() + b"\0" + text.encode("latin-1")) for name, text in texts.items()]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"".join(parts)


def answer_for(captcha_id: str, nonce: str | None, image: bytes | None) -> str:
    """The answer that the sandbox 'solves': known in advance to whoever made the task."""
    if nonce is not None:
        return f"solved:{nonce}"
    text = png_text(image, "answer") if image else None
    return text if text is not None else f"solved:{captcha_id}"
