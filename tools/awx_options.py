# SPDX-License-Identifier: GPL-3.0-or-later
"""Write tests/unit/data/awx_options.json: what options the modules of awx.awx have that awx_configure.yml uses.

Read from the modules' documentation in the community package, without installing it:

    pip download --no-deps --dest .cache/awx ansible==11.12.0
    .venv/bin/python tools/awx_options.py .cache/awx/ansible-11.12.0-py3-none-any.whl
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "unit" / "data" / "awx_options.json"
MODULES = ("credential", "credential_type", "execution_environment", "inventory", "inventory_source", "job_template",
           "project", "schedule", "workflow_job_template")
FOLDER = "ansible_collections/awx/awx"
KEPT = ("type", "elements", "choices", "required", "aliases")


def options_of(named: dict[str, Any]) -> dict[str, Any]:
    """What a caller must keep to; options of options as well, without a word of the descriptions."""
    return {name: {**{key: own[key] for key in KEPT if key in own},
                   **({"options": options_of(own["suboptions"])} if own.get("suboptions") else {})}
            for name, own in sorted(named.items())}


def documentation(source: str) -> dict[str, Any]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION":
            return dict(yaml.safe_load(ast.literal_eval(node.value)))
    raise ValueError("it has no DOCUMENTATION")


def made(wheel: Path) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        version = json.loads(archive.read(f"{FOLDER}/MANIFEST.json"))["collection_info"]["version"]
        modules = {}
        for name in MODULES:
            options = documentation(archive.read(f"{FOLDER}/plugins/modules/{name}.py").decode())["options"]
            modules[name] = options_of(options)
    return {"collection": f"awx.awx {version}", "from": wheel.name, "made_by": "tools/awx_options.py",
            "modules": modules}


if __name__ == "__main__":
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(made(Path(sys.argv[1])), indent=1, sort_keys=True) + "\n", encoding="utf-8")
