# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX does with the objects that awx_configure.yml writes, as far as a test can have it without an AWX."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODULES = json.loads((ROOT / "tests/unit/data/awx_options.json").read_text(encoding="utf-8"))["modules"]
Written = list[tuple[str, dict[str, Any]]]

# In place of a module of awx.awx: notes what it was given, and changes nothing.
NOTES = '''
import json, os
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        with open(os.environ["AWX_NOTES"], "a") as file:
            file.write(json.dumps([os.path.basename(__file__)[:-3], self._task.args], default=str) + "\\n")
        return {"changed": False}
'''


class _Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"version": "24.6.1"}' if self.path == "/api/v2/ping/" else b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_unused: Any) -> None:
        pass


@contextmanager
def stand_in(root: Path) -> Iterator[dict[str, Any]]:
    """Have stand-ins of the collections' modules below ROOT, and one that answers the ping of AWX."""
    for collection in ("awx/awx", "ansible/controller"):
        folder = root / "ansible_collections" / collection / "plugins" / "action"
        folder.mkdir(parents=True)
        for name in MODULES:
            (folder / f"{name}.py").write_text(NOTES, encoding="utf-8")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"root": root, "url": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        server.server_close()


def configure(there: Mapping[str, Any], given: Mapping[str, Any],
              **env: str) -> tuple[subprocess.CompletedProcess[str], Written]:
    """Run awx_configure.yml, and return what it handed to the modules."""
    notes = there["root"] / "notes"
    notes.unlink(missing_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CONTROLLER_", "TOWER_"))}
    paths = f"{ROOT / '.collections'}:{there['root']}"
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "playbooks/awx_configure.yml", "-e",
         json.dumps(given)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**clean, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "AWX_NOTES": str(notes),
             "ANSIBLE_COLLECTIONS_PATH": paths, "CONTROLLER_HOST": there["url"], "no_proxy": "127.0.0.1", **env})
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    return done, [tuple(json.loads(line)) for line in lines]


def of(written: Written, module: str) -> dict[str, dict[str, Any]]:
    return {args["name"]: args for name, args in written if name == module}


def leads(node: Mapping[str, Any], link: str) -> list[str]:
    return [own["identifier"] for own in node.get("related", {}).get(link, [])]


class Workflow:
    """Which nodes may begin, which never will, what each is handed, and whether the whole has failed, as in AWX.

    A node is reached by the branch that its parent's end took, and begins when none of its parents can still run. The
    workflow has failed where a node failed that leads nowhere on failure.
    """

    def __init__(self, nodes: Iterable[Mapping[str, Any]],
                 order: Callable[[list[str]], list[str]] = sorted) -> None:
        self.nodes = {node["identifier"]: node for node in nodes}
        self.ended: dict[str, bool] = {}
        self.begun: list[str] = []
        self._never: set[str] = set()
        self._artifacts: dict[str, dict[str, Any]] = {}
        self._handed: dict[str, dict[str, Any]] = {}
        # In which order AWX takes the parents for their artifacts is not ours to rely on.
        self._order = order
        self._parents: dict[str, list[tuple[str, str]]] = {name: [] for name in self.nodes}
        for name, node in self.nodes.items():
            for link in ("success_nodes", "failure_nodes", "always_nodes"):
                for child in leads(node, link):
                    self._parents[child].append((name, link))

    def ready(self) -> list[str]:
        while more := [name for name in self._open() if not self._reached(name)]:
            self._never.update(more)
        return self._open()

    def _open(self) -> list[str]:
        """Return those of which each parent has ended, or will never begin."""
        over = self._never.union(self.ended)
        return [name for name in self.nodes if name not in self._never and name not in self.begun
                and over.issuperset(parent for parent, _link in self._parents[name])]

    def _reached(self, name: str) -> bool:
        return not self._parents[name] or any(self._took(parent, link) for parent, link in self._parents[name])

    def _took(self, parent: str, link: str) -> bool:
        branch = "success_nodes" if self.ended.get(parent) else "failure_nodes"
        return parent in self.ended and link in (branch, "always_nodes")

    def begin(self, name: str) -> dict[str, Any]:
        """Return what the node's job is given by the jobs before it."""
        handed: dict[str, Any] = {}
        for parent in self._order([parent for parent, _link in self._parents[name]]):
            handed.update(self._handed.get(parent, {}) | self._artifacts.get(parent, {}))
        self._handed[name] = handed
        self.begun.append(name)
        return handed

    def end(self, name: str, successful: bool, artifacts: Mapping[str, Any]) -> None:
        self.ended[name] = successful
        self._artifacts[name] = dict(artifacts)

    def failed(self) -> bool:
        return any(not successful and not leads(self.nodes[name], "failure_nodes")
                   and not leads(self.nodes[name], "always_nodes") for name, successful in self.ended.items())
