# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# This module util is private to the collection.
"""What one worker's settings come to: its paths, its service, its configuration. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.solver.fleet.plugins.module_utils._release import HOME_ORDER, SLOT_ORDER


def worker_facts(
    host: str, host_vars: Mapping[str, Any], own: Mapping[str, Any], wheelhouse: str,
) -> dict[str, Any]:
    """Return what the playbooks know of the worker HOST; OWN are its settings, WHEELHOUSE is the controller's."""
    name = own["solver_worker_name"] or host
    on_controller = host_vars.get("ansible_connection") == "local"
    base = own["solver_base_dir"].rstrip("/")
    worker_dir = own["solver_worker_dir"] or f"{base}/workers/{name}"
    socket = own["solver_control_socket"] or f"/run/solver/{name}/control.sock"
    backend = own["solver_service_backend"]
    systemd = backend == "systemd"
    secrets = secret_files(name, own) if systemd else {}
    service = own["solver_service"].get("name") or (f"solver-worker@{name}" if systemd else name)
    return {
        "name": name, "base_dir": base, "worker_dir": worker_dir, "control_socket": socket,
        "python": own["solver_worker_python"],
        "service": {**own["solver_service"], "backend": backend, "name": service, **standby_of(
            own, socket, f"solver-standby@{name}" if systemd else f"{service}-standby")},
        "supervisor": own["solver_supervisor"],
        "unit": own["solver_unit"], "user": own["solver_user"] if systemd else "",
        "user_exists": own["solver_user_exists"], "credentials": secrets,
        "provider": {"url": own["solver_provider_url"],
                     "api_key_file": secrets.get("api_key") or own["solver_api_key_file"]},
        "config": worker_config(name, f"/var/lib/solver/{name}" if systemd else f"{worker_dir}/state", socket, own,
                                secrets),
        "on_controller": on_controller,
        "wheelhouse": wheelhouse if on_controller else f"{base}/wheelhouse",
        "machine": machine_of(host, host_vars), "data_address": f"{own['solver_data_host']}:{own['solver_data_port']}",
    }


def standby_of(own: Mapping[str, Any], socket: str, service: str) -> dict[str, Any]:
    """Return the slot of the worker's standby, beside its control SOCKET, where it has one."""
    if not own["solver_standby"]:
        return {}
    stem = socket.removesuffix(".sock")
    return {"standby": {**own["solver_standby_service"], "name": service, "socket": f"{stem}-standby.sock",
                        "order": stem + SLOT_ORDER, "home_order": stem + HOME_ORDER}}


def machine_of(host: str, host_vars: Mapping[str, Any]) -> str:
    """Return what tells one machine from another, as far as the inventory knows."""
    return "local" if host_vars.get("ansible_connection") == "local" else str(host_vars.get("ansible_host") or host)


def secret_files(name: str, own: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets that systemd hands to the worker, and the files on its host that hold them."""
    files = {"api_key": own["solver_api_key_file"] or f"/etc/solver/{name}.key"}
    if own["solver_data_token_file"]:
        files["data_token"] = own["solver_data_token_file"]
    return files


def worker_config(
    name: str, state_dir: str, socket: str, own: Mapping[str, Any], credentials: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the worker's configuration as sections of plain values, before it is written as TOML."""
    files = {"api_key": own["solver_api_key_file"], "data_token": own["solver_data_token_file"]}
    files.update({key: f"credential:{key}" for key in credentials})
    config: dict[str, dict[str, Any]] = {
        "worker": {"name": name, "state_dir": state_dir},
        "control": {"socket": socket},
        "data": {"host": own["solver_data_host"], "port": own["solver_data_port"]},
        "provider": {"url": own["solver_provider_url"], "api_key_file": files["api_key"]},
    }
    if files["data_token"]:
        config["data"]["token_file"] = files["data_token"]
    for section, values in own["solver_worker_config"].items():
        merged = config.setdefault(str(section), {})
        if isinstance(values, Mapping):
            merged.update(values)
        else:
            config[str(section)] = values
    return config
