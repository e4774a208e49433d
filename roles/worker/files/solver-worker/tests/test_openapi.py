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
from test_standby import raise_standby

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


async def test_the_answers_of_a_standby_match_the_description(world: World, description: Any) -> None:
    world.sandbox("--solve", "default=0.1:0.1")
    worker = await world.worker().start()
    standby = await raise_standby(worker).up()
    contract = Contract(description)

    async def call(method: str, target: str, body: Any = None) -> Any:
        return contract.check(method, target, await standby.control(method, target, body))

    await call("GET", "/v1/status?until=standby&wait=1")
    await call("PUT", "/v1/drain", {"owner": "me"})
    await call("PUT", "/v1/standby", {"owner": "me"})
    await call("PUT", "/v1/standby", {"owner": "you"})
    await call("PUT", "/v1/standby", {"owner": "me", "lease_s": 1})
    await call("DELETE", "/v1/standby?owner=you")
    await call("POST", "/v1/standby/take-over", {"owner": "you"})
    await call("POST", "/v1/standby/take-over", {"owner": "me", "within_s": 0})
    await call("POST", "/v1/standby/take-over", {"owner": "me"})
    await call("GET", "/v1/status")
    await call("POST", "/v1/probe", {"request_id": "r"})
    for method, target in (("PUT", "/v1/standby"), ("POST", "/v1/standby/take-over")):
        contract.check(method, target, await worker.control(method, target, {"owner": "me"}))
    await call("POST", "/v1/standby/take-over", {"owner": "me"})
    answered = {(path, status) for _unused, path, status in contract.seen}
    assert {("/v1/standby", code) for code in (200, 400, 409, 503)} <= answered
    assert {("/v1/standby/take-over", code) for code in (200, 400, 409, 503)} <= answered


async def test_the_description_would_notice_a_missing_field(world: World, description: Any) -> None:
    worker = await world.worker().start()
    document = await worker.status()
    del document["seq"]
    with pytest.raises(jsonschema.ValidationError):
        Contract(description).check("GET", "/v1/status", (200, document))
