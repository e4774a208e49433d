# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, solver.fleet contributors
# This module util is private to the collection: it may change in any release.
"""What stands behind a module's options: work that always comes back with a result, never with an exception."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.solver.fleet.plugins.module_utils._errors import FleetError, Json, crash_of, failure_of
from ansible_collections.solver.fleet.plugins.module_utils._files import narrow_umask


def attempt(
    work: Callable[[], Json], doing: Callable[[], str] = lambda: "", so_far: Callable[[], Json] = dict
) -> Json:
    """What WORK returns; where it fails, what was done SO FAR and why not more. A crash of ours is a failure, too."""
    narrow_umask()
    try:
        return work()
    except FleetError as error:
        return _failed(error, doing, so_far)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be told from a host that was lost
        return _failed(crash_of(error), doing, so_far)


def _failed(error: FleetError, doing: Callable[[], str], so_far: Callable[[], Json]) -> Json:
    try:
        found, begins = so_far(), doing()
    except Exception:  # noqa: BLE001 - what went wrong first counts
        found, begins = {}, ""
    message = f"{begins}: {error.message}" if begins else error.message
    return dict(found, failed=True, msg=message, failure=failure_of(error))


class Job:
    """The work of one call of a module. To make one touches nothing; C(finish) may be called at any moment."""

    def __init__(self, params: Json, check_mode: bool, hide: Callable[[str], Any]) -> None:
        self.params = params
        self.check_mode = check_mode
        # Tells the module of a secret, which then stands in none of its answers.
        self.hide = hide

    def doing(self) -> str:
        """What a failure's message begins with; empty where the messages say it themselves."""
        return ""

    def work(self) -> None:
        raise NotImplementedError

    def finish(self) -> Json:
        raise NotImplementedError

    def run(self) -> Json:
        return attempt(self._whole, self.doing, self.finish)

    def _whole(self) -> Json:
        self.work()
        return self.finish()


def leave(module: Any, result: Json) -> None:
    """End a module with its result."""
    (module.fail_json if result.get("failed") else module.exit_json)(**result)
