# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/settings.md from the table of the settings; with --check only say whether it is current.

The table, plugins/plugin_utils/_settings.py, is what the playbooks validate against, so the page cannot promise
anything else. Here stands only what the table does not know: which settings a reader looks for together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.solver.fleet.plugins.plugin_utils._settings import (  # noqa: E402
    AWX,
    LOCAL_FLEET,
    ROUTER,
    SECRETS,
    SETTINGS,
    Setting,
    shown_settings,
)

HEAD = """\
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Made by tools/settings_doc.py from plugins/plugin_utils/_settings.py. Change it there, then run the tool. -->
# Settings

Variables for all playbooks. Set them in the inventory, in `group_vars`, with `-e`, or as `vars`
of an `import_playbook`.

- A misspelt `solver_` variable, a wrong type or a value out of range is refused before any worker is touched. The
  message names the setting.
- **fleet** in the last column: one value for all workers. If it differs between two of them, the playbook refuses.
- **worker** in the last column: each worker may have its own.
- Unset, `null` and an empty text, such as a blank field of a survey sends, mean the default. "none" as a default means
  empty. Where an empty text means something else, the meaning says so.
- A number must be finite. A text or a path is one line of printable characters.
- `solver_hosts` picks the fleet before anything else is read. Give it with `-e`.
"""

KINDS = {
    "text": "text", "path": "path", "count": "whole number", "seconds": "number, seconds", "percent": "number, percent",
    "window": "whole number, or a percentage such as `20%`",
    "stages": "list such as `[1, 10%, 100%]`, or the same with commas between", "flag": "`true` or `false`",
    "names": "list, or names with commas between", "mapping": "mapping",
}

# Each setting stands under exactly one theme; a new one must be put somewhere.
THEMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "The release": (
        "What is rolled out, and where the wheels come from.",
        ("solver_version", "solver_package", "solver_package_sha256", "solver_wheelhouse", "solver_offline",
         "solver_index_url", "solver_deploy_timeout", "solver_keep_releases")),
    "The rollout": (
        "Which workers, how many at a time, and when to stop.",
        ("solver_hosts", "solver_exclude", "solver_only", "solver_fleet_size", "solver_forget", "solver_allow_partial",
         "solver_reason", "solver_rollout_id", "solver_max_unavailable", "solver_window", "solver_switch",
         "solver_surge", "solver_stages", "solver_order", "solver_max_soaking", "solver_max_fail_percentage",
         "solver_on_abort", "solver_progress_deadline", "solver_force", "solver_resume_foreign",
         "solver_remove_everything", "solver_foreign_drain", "solver_hooks")),
    "The strategy": (
        "Which plan the rollout follows; [strategies.md](strategies.md) says which one when.",
        ("solver_strategy", "solver_accept_downtime", "solver_flip", "solver_blue_keep", "solver_strata",
         "solver_canary_bake", "solver_canary_min_tasks", "solver_canary_bake_max", "solver_promote",
         "solver_on_inconclusive")),
    "What is seen of it": (
        "Files on the controller, and what status.yml shows.",
        ("solver_verdict_file", "solver_report_file", "solver_metrics_file", "solver_events_dir",
         "solver_status_format", "solver_status_watch")),
    "The lock": (
        "So that one rollout at a time touches the fleet.",
        ("solver_lock_wait", "solver_lock_ttl", "solver_lock_steal")),
    "The drain": (
        "How a worker goes out of service.",
        ("solver_drain_mode", "solver_drain_timeout", "solver_drain_grace", "solver_drain_lease",
         "solver_on_drain_timeout", "solver_accept_loss")),
    "Restart and verification": (
        "How long a new process may take, and what it has to show.",
        ("solver_healthy_deadline", "solver_probe_task", "solver_probe_expect",
         "solver_probe_timeout", "solver_probe_interval", "solver_probe_retries", "solver_min_healthy_time")),
    "The router": (
        "Where HAProxy stands in front of the workers; [router.md](router.md) explains it.",
        ("solver_router_hosts", "solver_router_check_interval", "solver_floor_view")),
    "The worker": (
        "Where a worker lives, and what goes into its configuration.",
        ("solver_worker_name", "solver_base_dir", "solver_worker_dir", "solver_control_socket",
         "solver_control_timeout", "solver_data_host", "solver_data_port", "solver_data_token_file",
         "solver_provider_url", "solver_api_key_file", "solver_worker_config", "solver_worker_python")),
    "The service": (
        "What runs the worker's process.",
        ("solver_service_backend", "solver_service", "solver_standby", "solver_standby_service", "solver_unit",
         "solver_user", "solver_user_exists", "solver_become", "solver_supervisor")),
}
LOCAL_THEME = ("The embedded local fleet", "For `local_fleet.yml` alone; [local-fleet.md](local-fleet.md) explains it.")
AWX_THEME = ("AWX", "For `awx_configure.yml` alone, with `-e @FILE`; [awx.md](awx.md) explains it.")


class ThemeError(ValueError):
    """A setting stands under no theme, or under a theme but not in the table."""


def check_themes(settings: Mapping[str, Setting]) -> None:
    """Every setting of the table is on the page once."""
    named = [name for _intro, names in THEMES.values() for name in names]
    missing, strange = sorted(set(settings) - set(named)), sorted(set(named) - set(settings))
    twice = sorted({name for name in named if named.count(name) > 1})
    for what, names in (("without a theme", missing), ("not in the table", strange), ("named twice", twice)):
        if names:
            raise ThemeError(f"{what}: {', '.join(names)}; correct THEMES in tools/settings_doc.py")


def type_of(setting: Setting) -> str:
    if setting.choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in setting.choices)
    least = "" if setting.minimum is None else f", at least {setting.minimum:g}"
    characters = " characters" if setting.kind in ("text", "path") else ""
    most = "" if setting.maximum is None else f", at most {setting.maximum:.15g}{characters}"
    return KINDS[setting.kind] + least + most


def default_of(setting: Setting) -> str:
    value: Any = setting.default
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{', '.join(map(str, value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def row(name: str, setting: Setting) -> str:
    scope = "worker" if setting.per_worker else "fleet"
    if name in ROUTER:
        scope = "router"
    cells = (f"`{name}`", type_of(setting), default_of(setting), setting.doc, scope)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(settings: Mapping[str, Setting]) -> list[str]:
    return ["| setting | type | default | meaning | for |", "|---|---|---|---|---|",
            *(row(name, setting) for name, setting in settings.items())]


def page() -> str:
    """Return the whole page."""
    check_themes(SETTINGS)
    lines = [HEAD]
    for theme, (intro, names) in THEMES.items():
        lines += [f"## {theme}", "", intro, "", *table({name: SETTINGS[name] for name in names}), ""]
    lines += ["## Secrets", "", "For `provision.yml` alone, per worker or for all. They appear in no output.", "",
              "| variable | meaning |", "|---|---|", *(f"| `{name}` | {doc} |" for name, doc in SECRETS.items()), ""]
    lines += ["## Each router", "", "Set on the hosts of `solver_router_hosts`.", "", *table(ROUTER), ""]
    title, intro = LOCAL_THEME
    lines += [f"## {title}", "", intro, "", *table(LOCAL_FLEET), ""]
    title, intro = AWX_THEME
    lines += [f"## {title}", "", intro, "", *table(AWX), ""]
    shown = ", ".join(f"`{name}`" for name in shown_settings())
    rest = ("Of the fleet's other settings those that differ from their default, without mappings, URLs and the files "
            "that a run writes on the controller.")
    return "\n".join([*lines, "## Shown in the verdict", "", f"Part of the [verdict](verdict.md): {shown}. {rest}", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (docs/settings.md)")
    args = parser.parse_args()
    try:
        text = page()
    except ThemeError as error:
        print(f"settings_doc: {error}", file=sys.stderr)
        return 1
    if not args.check:
        args.page.write_text(text, encoding="utf-8")
        return 0
    if args.page.is_file() and args.page.read_text(encoding="utf-8") == text:
        return 0
    print(f"{args.page} is stale; run tools/settings_doc.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
