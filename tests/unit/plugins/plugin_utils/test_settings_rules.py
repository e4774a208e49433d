# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad settings are refused before anything is touched, by a message that names the setting and the remedy."""

from __future__ import annotations

import pytest
from ansible_collections.solver.fleet.plugins.plugin_utils._settings import SETTINGS
from ansible_collections.solver.fleet.plugins.plugin_utils._settings_rules import (
    expanded,
    provision_refusals,
    resolve,
    says_run_once,
    system_dirs,
    unheard,
    unknown_names,
)


def fleet(size: int = 4, **settings):
    return {f"w{n}": {"solver_version": "1.3.0", "solver_data_port": 9000 + n, **settings} for n in range(1, size + 1)}


def only_error(**settings):
    errors = resolve(fleet(**settings)).errors
    assert len(errors) == 1, errors
    return errors[0]


def test_defaults_are_accepted():
    resolved = resolve(fleet())
    assert resolved.errors == []
    assert resolved.settings["window"] == 1
    assert resolved.settings["solver_max_fail_percentage"] == 25
    assert resolved.workers["w1"]["config"]["worker"]["name"] == "w1"
    assert resolved.package == "solver-worker==1.3.0"


def test_no_version():
    variables = fleet()
    for own in variables.values():
        del own["solver_version"]
    assert resolve(variables).errors == [
        "solver_version is not set; name the version to roll out, for example -e solver_version=1.3.0"]
    assert resolve(variables, need_version=False).errors == []


@pytest.mark.parametrize(("value", "part"), [
    ("0", "at least one worker must be allowed"),
    (0, "at least one worker must be allowed"),
    ("-1", "at least one worker must be allowed"),
    ("51%", "more than half of the fleet may never be out of service, use 50% or less"),
    (3, "solver_max_unavailable is 3 of 4 workers"),
    ("many", "solver_max_unavailable is 'many'; it must be a number"),
    ("1.5", "whole number of workers"),
    (True, "solver_max_unavailable is True"),
])
def test_bad_window(value, part):
    assert part in only_error(solver_max_unavailable=value)


@pytest.mark.parametrize(("settings", "error"), [
    ({"solver_unit": {"MemoryMax": "1G"}},
     "w1, w2: solver_unit.MemoryMax must be a section with its directives, such as {Service: {MemoryMax: 1G}}"),
    ({"solver_unit": {"Service": {"Nice": [1, 2]}}},
     "w1, w2: solver_unit.Service.Nice is a list; a directive is text, a number, true, false, or nothing"),
    ({"solver_worker_config": {"provider": {"x": None}}},
     "w1, w2: provider.x is a NoneType; a worker's setting is text, a number, true or false, or a list of these "
     "(solver_worker_config)"),
    ({"solver_worker_config": {"tasks": {"x": {"y": 1}}}},
     "w1, w2: tasks.x is a dict; a worker's setting is text, a number, true or false, or a list of these "
     "(solver_worker_config)"),
])
def test_what_cannot_be_written_into_a_release_is_refused_before_anything_else(settings, error):
    """By a rollback to a version as well; whoever stages nothing, such as a recovery, is not kept from it."""
    bad = fleet(2, **settings)
    assert resolve(bad).errors == resolve(bad, need_version=False).errors == [error]
    assert resolve(bad, need_version=False, stages=False).errors == []
    for own in bad.values():
        own["solver_version"] = None
    assert resolve(bad, need_version=False).errors == [], "a rollback without a version stages nothing"


def test_a_unit_that_nobody_writes_is_nobodys_business():
    own = {"solver_service_backend": "supervisor", "solver_unit": {"MemoryMax": "1G"}}
    assert resolve(fleet(1, **own)).errors == []


@pytest.mark.parametrize("place", ["~/wheels", "$HOME/wheels"])
def test_a_wheelhouse_is_where_the_operator_means_it(monkeypatch, place):
    """For the controller's own user, also where a worker of this machine is reached as another one."""
    monkeypatch.setenv("HOME", "/home/ada")
    resolved = resolve(fleet(1, solver_wheelhouse=place, ansible_connection="local"))
    assert resolved.workers["w1"]["wheelhouse"] == expanded(place) == "/home/ada/wheels"
    assert resolved.settings["solver_wheelhouse"] == place, "what is shown is what was written"


def test_a_directive_may_be_nothing_which_begins_a_list_anew():
    unit = {"Service": {"SystemCallFilter": None, "MemoryMax": "1G", "Nice": 5, "PrivateTmp": False}}
    assert resolve(fleet(1, solver_unit=unit)).errors == []


def test_misspelt_variable_is_named_with_the_nearest():
    assert only_error(solver_max_unavailible=1) == (
        "solver_max_unavailible is not a setting of solver.fleet; did you mean solver_max_unavailable?")
    assert "docs/settings.md" in unknown_names({"solver_zzzz": 1})[0]
    assert unknown_names({"other_zzzz": 1}) == []


@pytest.mark.parametrize("name", ["solver-a.example.net", "Worker_01", "w_1", "-w1", "w" * 64, "wärter"])
def test_a_name_that_the_worker_refuses_is_refused_before_anything_is_touched(name):
    bad = {name: {"solver_version": "1.3.0", "solver_control_socket": "/run/w/c.sock"}}
    [error] = resolve(bad).errors
    assert error.startswith(f"{name}: a worker's name is 1 to 63 of a-z, 0-9 and '-'")
    assert "set solver_worker_name" in error
    assert resolve({name: {**bad[name], "solver_worker_name": "w1"}}).errors == []
    # What is there already can still be looked at, and taken away.
    assert resolve(bad, need_version=False, rolls=False).errors == []
    [error] = resolve({"w1": {"solver_version": "1.3.0", "solver_worker_name": "W1"}}).errors
    assert error.startswith("w1 (W1): ")


def test_long_socket_path():
    path = "/run/" + "x" * 103
    errors = resolve({"w1": {"solver_version": "1", "solver_control_socket": path}}).errors
    assert len(errors) == 1
    assert "solver_control_socket is 108 bytes long" in errors[0]
    short = {"solver_version": "1", "solver_control_socket": path[:-1]}
    assert resolve({"w1": short}).errors == []
    # With a slot there is a second socket beside it, and the message names the one that is too long.
    slot = {"solver_standby": True, "solver_service_backend": "systemd"}
    [error] = resolve({"w1": {**short, **slot}}).errors
    assert "the socket of its standby, beside solver_control_socket, is 120 bytes long" in error
    [error] = resolve({"w1": {**short, **slot, "solver_control_socket": path}}).errors
    assert "solver_control_socket is 108 bytes long" in error


def test_a_setting_of_the_fleet_must_not_differ_between_workers():
    variables = fleet()
    variables["w2"]["solver_drain_timeout"] = 5
    assert any("solver_drain_timeout differs between the workers" in text for text in resolve(variables).errors)


@pytest.mark.parametrize(("name", "value", "part"), [
    ("solver_drain_mode", "quick", "choose one of: complete, handover"),
    ("solver_drain_timeout", "soon", "must be a number"),
    ("solver_max_fail_percentage", 101, "between 0 and 100"),
    ("solver_offline", "maybe", "must be true or false"),
    ("solver_probe_task", "x", "must be a mapping"),
    ("solver_keep_releases", 1, "at least 2"),
    ("solver_probe_timeout", 1000, "at most 900"),
    ("solver_reason", "two\nlines", "one line of at most 500 printable characters"),
    ("solver_rollout_id", "x" * 201, "at most 200 printable"),
    ("solver_exclude", ["w9"], "solver_exclude names w9, which the fleet does not have"),
    ("solver_on_drain_timeout", "force", "set solver_accept_loss: true"),
    ("solver_drain_lease", 100, "solver_drain_lease is 100 s, but a phase of the update may take 300 s"),
    ("solver_drain_lease", 319.9, "and a call more; make it at least 320 s"),
    ("solver_resume_foreign", True, "solver_resume_foreign needs a solver_reason"),
    ("solver_package", "/tmp/solver_worker-1.2.0-py3-none-any.whl", "a wheel of version 1.2.0"),
])
def test_bad_value(name, value, part):
    assert part in only_error(**{name: value})


def test_a_limited_run_is_refused_unless_it_is_meant():
    errors = resolve(fleet(2), left_out=["w3", "w4"]).errors
    assert errors == ["the run is limited and lacks w3, w4; window and budget must be those of the whole fleet. "
                      "Run it without --limit, or set solver_allow_partial: true"]
    assert resolve(fleet(2, solver_allow_partial=True), left_out=["w3"]).errors == []
    assert resolve(fleet(2), need_version=False, rolls=False, left_out=["w3"]).errors == []  # status may look at a part


def test_one_mistake_on_all_workers_is_said_once():
    assert len(resolve(fleet(9, solver_drain_mode="x")).errors) == 1


def test_further_settings_are_laid_over_the_rendered_ones():
    config = resolve(fleet(solver_worker_config={"provider": {"dialect": "2captcha"}, "tasks": {"x": 1}})).workers["w1"]
    assert config["config"]["provider"]["dialect"] == "2captcha"
    assert config["config"]["provider"]["url"] == "https://ocr.captchaai.com"
    assert config["config"]["tasks"] == {"x": 1}


def test_the_name_of_a_slot_follows_from_its_worker():
    """provision.yml puts its unit or program in place under that name, and takes it away by it."""
    own = {"solver_version": "1", "solver_standby": True, "solver_standby_service": {"name": "mine", "log_file": "/l"}}
    [error] = resolve({"w1": own}).errors
    assert error == "w1: solver_standby_service has name, which follows from the worker; take it out"


def test_staging_which_is_over_before_the_first_drain_needs_no_longer_lease():
    assert resolve(fleet(solver_deploy_timeout=3600)).errors == []


def test_two_workers_with_one_socket():
    same = {"solver_control_socket": "/run/s.sock", "solver_worker_dir": "/w", "solver_version": "1"}
    assert "same solver_control_socket" in resolve({"a": same, "b": same}).errors[0]


@pytest.mark.parametrize(("settings", "part"), [
    ({"solver_progress_deadline": 400}, "one worker may take 420 s (solver_drain_timeout + solver_healthy_deadline)"),
    ({"solver_progress_deadline": 700, "solver_switch": "standby"}, "take 720 s (solver_drain_timeout + twice"),
    ({"solver_report_file": "/a", "solver_verdict_file": "/a"}, "are the same file; name two"),
    ({"solver_metrics_file": "/a.prom", "solver_report_file": "/a.prom"}, "are the same file; name two"),
    ({"solver_metrics_file": "/a.txt"}, "no file whose name does not end with .prom; name it so"),
    ({"solver_canary_bake": 60, "solver_canary_bake_max": 59}, "solver_canary_bake_max is 59 s, shorter than"),
    ({"solver_lock_ttl": 600}, "solver_lock_ttl is 600 s, but one worker's turn may take 780 s"),
    ({"solver_max_fail_percentage": 100}, "a budget that can never be exceeded"),
    ({"solver_lock_steal": True}, "solver_lock_steal needs a solver_reason"),
    ({"solver_only": ["w9"]}, "solver_only names w9, which the fleet does not have"),
])
def test_what_would_hang_or_never_abort_is_refused(settings, part):
    assert part in only_error(**settings)


def routed(routers, **settings):
    return resolve(fleet(**settings), routers=routers)


@pytest.mark.parametrize("name", ["solver_base_dir", "solver_worker_dir"])
@pytest.mark.parametrize("folder", ["/srv", "/opt/", "/", "//srv", "/usr/../srv/."])
def test_a_directory_of_the_system_is_not_given_to_a_worker(name, folder):
    found = resolve(fleet(1, **{name: folder}))
    assert found.errors == [], "one that is there already can be rolled"
    assert "a directory of the system, which would not be its own any more; name one" in provision_refusals(found)[0]
    assert len(system_dirs(found, "worker_dir")) == (name == "solver_worker_dir")
    assert provision_refusals(resolve(fleet(1, **{name: "/opt/solver"}))) == []


def test_a_router_needs_workers_that_it_can_reach_and_a_grace_that_it_can_see():
    far = {"r1": {"ansible_host": "front.example.net"}}
    assert routed(far, solver_data_host="192.0.2.1").errors == []
    assert routed(far).errors == [
        "the router r1 cannot reach w1, w2, w3, w4: solver_data_host is loopback on another machine; set it to an "
        "address of the worker's host"]
    assert routed(far, ansible_host="front.example.net").errors == []
    for every in ("0.0.0.0", "::"):
        error, = provision_refusals(routed(far, solver_data_host=every))
        assert "w1, w2, w3, w4: solver_data_host is every address of the worker's host, which no router on" in error
        assert provision_refusals(resolve(fleet(solver_data_host=every))) == []
    beside = {"r1": {"ansible_host": "deck"}}
    assert provision_refusals(routed(beside, solver_data_host="0.0.0.0", ansible_host="deck")) == []
    assert routed(far, solver_data_host="192.0.2.1", solver_drain_grace=1).errors == [
        "solver_drain_grace is 1 s, but a router looks at a worker every 1 s (solver_router_check_interval); make the "
        "grace at least 2 s"]
    assert resolve(fleet(solver_drain_grace=1)).errors == []


def test_a_routers_own_settings_are_checked_by_its_name():
    bad = {"r1": {"ansible_connection": "local", "solver_router_bind": ["8090"], "solver_router_keys": 1,
                  "solver_router_port": 8090}}
    assert routed(bad, ansible_connection="local").errors == [
        "solver_router_port is not a setting of solver.fleet; did you mean solver_router_hosts?",
        "r1: solver_router_keys is 1; it must be at least 1000",
        "r1: solver_router_bind is '8090'; it must be HOST:PORT"]


def test_two_workers_of_one_machine_and_directory_have_one_user():
    own = fleet(size=3, ansible_host="a")
    own["w2"]["solver_user"] = "other"
    own["w3"].update(solver_user="third", ansible_host="b")
    assert resolve(own).errors == [
        "solver_user differs between the workers of a in /opt/solver (w1 has solver, w2 has other), but its files can "
        "belong to one user alone; set one solver_user, or another solver_base_dir"]
    own["w2"]["solver_base_dir"] = "/opt/other"
    assert resolve(own).errors == []


def test_what_only_a_rollout_needs_is_asked_of_a_rollout_alone():
    """Whoever looks, asks for an abort or provisions is not stopped by a hook, nor by who says which workers serve."""
    settings = fleet(solver_floor_view="routers", solver_hooks={"before_rollout": "not/absolute.yml"})
    assert len(resolve(settings).errors) == 2
    assert resolve(settings, rolls=False).errors == []


def test_the_routers_view_needs_a_router():
    assert resolve(fleet(solver_floor_view="routers")).errors == [
        "solver_floor_view is routers, but the inventory group solver_routers (solver_router_hosts) has no host"]


@pytest.mark.parametrize(("tasks", "found"), [
    ([], False), ([{"name": "x", "debug": {}}], False), ([{"debug": {}, "run_once": False}], False),
    ([{"debug": {"run_once": True}}], False), ([{"debug": {}}, {"debug": {}, "run_once": True}], True),
    ([{"block": [{"debug": {}}], "rescue": [{"block": [{"debug": {}, "run_once": True}]}]}], True),
    ([{"block": [{"block": [{"debug": {}}]}], "run_once": True}], True)])
def test_run_once_is_found_wherever_a_task_may_stand(tasks, found):
    assert says_run_once(tasks) is found


@pytest.mark.parametrize(("size", "settings", "window", "soaking"), [
    (4, {}, 1, 1), (30, {}, 3, 3), (30, {"solver_max_unavailable": "50%"}, 15, 15),
    (30, {"solver_max_soaking": 0}, 3, 0), (30, {"solver_max_soaking": 20}, 3, 20),
    (30, {"solver_max_soaking": None}, 3, 3), (30, {"solver_max_soaking": ""}, 3, 3)])
def test_as_many_may_soak_as_the_window_has_unless_somebody_says_how_many(size, settings, window, soaking):
    resolved = resolve(fleet(size, **settings))
    assert resolved.errors == []
    assert (resolved.settings["window"], resolved.settings["soaking"]) == (window, soaking)


def test_the_folder_of_the_events_is_one_of_the_controllers(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    folders = {raw: resolve(fleet(solver_events_dir=raw)).settings["solver_events_dir"]
               for raw in ("~/events", "events", "/var/lib/events", "")}
    assert folders == {"~/events": f"{tmp_path}/events", "events": "/events", "/var/lib/events": "/var/lib/events",
                       "": ""}


@pytest.mark.parametrize(("old", "new"), [("before_wave", "before_stage"), ("after_wave", "after_stage")])
def test_a_hook_around_a_wave_is_refused_with_its_new_name(old, new):
    assert only_error(solver_hooks={old: "/hooks/x.yml"}) == (
        f"solver_hooks has {old}, which is {new} now: a rollout goes by stages; rename it")


@pytest.mark.parametrize(("hooks", "part"), [
    ({"before_workers": "/x.yml"}, "solver_hooks has before_workers, which is no point of a rollout; did you mean "
                                   "before_worker?"),
    ({"in_wave": "/x.yml"}, "choose of: before_rollout, before_stage, before_worker, after_worker, after_stage, "
                            "after_rollout, on_failure"),
    ({1: "/x.yml"}, "solver_hooks has 1, which is no point"),
    ({"on_failure": "x.yml"}, "solver_hooks.on_failure is 'x.yml'; it must be the absolute path"),
    ({"on_failure": "/x\x1b.yml"}, "it must be the absolute path"),
])
def test_bad_hooks(hooks, part):
    assert part in only_error(solver_hooks=hooks)


def test_null_and_blank_fields_are_the_defaults_of_the_whole_fleet():
    usual = resolve(fleet())
    for blank in (None, ""):
        given = fleet()
        for own in given.values():
            own.update({name: blank for name in SETTINGS if name not in own})
        resolved = resolve(given)
        assert resolved.errors == []
        assert resolved.settings == usual.settings
        assert resolved.workers == usual.workers


def test_what_means_the_same_does_not_differ():
    variables = fleet()
    variables["w1"]["solver_drain_timeout"] = ""
    variables["w2"]["solver_drain_timeout"] = None
    variables["w3"]["solver_drain_timeout"] = "120"
    assert resolve(variables).errors == []
    variables["w4"]["solver_drain_timeout"] = "long"
    assert resolve(variables).errors == [
        "solver_drain_timeout differs between the workers; it is a setting of the whole fleet, set it in one place"]


def test_nan_is_no_window_and_no_budget():
    assert only_error(solver_max_unavailable="nan%") == "solver_max_unavailable is 'nan%'; it must be a finite number"
    assert only_error(solver_max_fail_percentage="nan") == (
        "solver_max_fail_percentage is 'nan'; it must be a finite number")


def test_names_are_said_in_natural_order():
    assert "solver_exclude names x2, x10, which" in only_error(solver_exclude="x10, x2")


def test_a_service_without_a_name_has_that_of_its_worker():
    workers = resolve(fleet(solver_service={"name": None})).workers
    assert workers["w1"]["service"]["name"] == "solver-worker@w1"


@pytest.mark.parametrize(("tasks", "host"), [
    ([], ""), ([{"debug": {}}], ""), ([{"debug": {}, "delegate_to": "localhost"}], ""),
    ([{"debug": {}, "delegate_to": "lb1", "register": "said"}], ""), ([{"debug": {}, "delegate_to": "lb1"}], "lb1"),
    ([{"block": [{"debug": {}}, {"debug": {}, "delegate_to": "{{ lb }}"}]}], "{{ lb }}"),
    ([{"delegate_to": "lb1", "block": [{"debug": {}, "register": "said"}], "rescue": [{"debug": {}}]}], "lb1"),
    ([{"delegate_to": "lb1", "block": [{"debug": {}, "delegate_to": "127.0.0.1"}]}], ""),
    ([{"block": ["no task", None]}], ""), ([{"debug": {}, "delegate_to": "{{ inventory_hostname }}"}], "")])
def test_a_host_that_is_silent_in_a_hook_is_heard_of(tasks, host):
    assert unheard(tasks) == host
