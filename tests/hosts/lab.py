# SPDX-License-Identifier: GPL-3.0-or-later
"""Disposable systemd hosts with SSH on one Debian machine, without a container engine.

Each host is a real systemd in a namespace of its own over a cached base tree: it boots in seconds, can be rebooted, cut
off and powered off, and keeps its disk until the lab goes down. Needs root. The hosts have no way out.
SF_HOSTS_RELEASE names another Debian release for them than this machine's own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASES = ROOT / ".cache" / "hosts-base"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "openssh-server", "iproute2", "procps",
            "ca-certificates", "sudo", "haproxy")
NEEDED = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2",
          "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
RELEASE = "SF_HOSTS_RELEASE"  # the Debian release of the hosts, such as trixie; by default this machine's own
REBOOTED = 133  # the exit status of systemd-nspawn --keep-unit for a host that asked for it
RECIPE = """
useradd --create-home --shell /bin/bash deploy
echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy
chmod 0440 /etc/sudoers.d/deploy
systemctl disable haproxy.service
systemctl mask systemd-networkd.service systemd-networkd-wait-online.service getty.target console-getty.service
systemctl mask systemd-update-utmp-runlevel.service
: > /etc/machine-id
apt-get clean
"""


class LabError(Exception):
    """Something that a person must mend; the message says how."""


def run(*command: str, check: bool = True, **more: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command)}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done  # type: ignore[no-any-return]


def wait_for(condition: Callable[[], object], what: str, timeout: float) -> object:
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.1)


def say(text: str) -> None:
    print(f"hosts: {text}", file=sys.stderr, flush=True)


# -- the base tree -----------------------------------------------------------------------------


def prepare_machine() -> None:
    if os.geteuid() != 0:
        raise LabError("the test hosts need root: namespaces, overlays and systemd-nspawn; run this as root")
    with locked(BASES / "machine.lock"):  # two labs may come up at once
        _install_what_is_needed()


def _install_what_is_needed() -> None:
    missing = sorted({package for program, package in NEEDED.items() if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise LabError(f"this machine lacks {', '.join(missing)}; install them (only Debian is done for you)")
    say(f"installing {', '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=env)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=env)


def release_name() -> str:
    asked = os.environ.get(RELEASE)
    if asked:
        return asked
    found = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    if "VERSION_CODENAME" not in found:
        raise LabError("/etc/os-release names no release; the test hosts are made on Debian only")
    return found["VERSION_CODENAME"].strip('"')


def mirror() -> str:
    """Where this machine's own packages come from."""
    for path in (*sorted(Path("/etc/apt/sources.list.d").glob("*.sources")), Path("/etc/apt/sources.list")):
        for line in path.read_text().splitlines() if path.exists() else []:
            words = line.split()
            if words[:1] == ["URIs:"]:
                return words[1]
            if words[:1] == ["deb"]:
                return next(word for word in words[1:] if "://" in word)
    raise LabError("no package source found under /etc/apt; the base of the test hosts is made from it")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def base_tree() -> Path:
    """The tree that all hosts share, made once; a changed recipe makes another one."""
    # Half the time that debootstrap takes.
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", release_name()]
    recipe = f"{' '.join(words)} {RECIPE}"
    base = BASES / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    with locked(BASES / "lock"):
        if base.exists():
            return base
        began = time.monotonic()
        say(f"making the base tree of {release_name()}, once (about a minute)")
        trial = base.with_suffix(".tmp")
        shutil.rmtree(trial, ignore_errors=True)
        run(*words, str(trial), mirror())
        run("chroot", str(trial), "/bin/sh", "-ec", RECIPE)
        trial.rename(base)
        say(f"the base tree is made, {time.monotonic() - began:.0f} s")
    return base


# -- one host ----------------------------------------------------------------------------------


class Host:
    """One host of a lab."""

    def __init__(self, lab: Lab, name: str, address: str) -> None:
        self.lab, self.name, self.address = lab, name, address
        self.dir = lab.dir / name
        self.root = self.dir / "root"
        self.space = f"sf{lab.tag}{name}"
        self.line = f"v{lab.tag}{name}"

    def make(self) -> None:
        for folder in ("upper/root/.ssh", "upper/home/deploy/.ssh", "work", "root"):
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        key = (self.lab.dir / "key.pub").read_text()
        owner = next(line for line in (self.lab.base / "etc/passwd").read_text().splitlines()
                     if line.startswith("deploy:")).split(":")
        for folder, uid, gid in (("upper/root", 0, 0), ("upper/home/deploy", int(owner[2]), int(owner[3]))):
            (self.dir / folder / ".ssh/authorized_keys").write_text(key)
            for path, mode in ((folder, 0o700), (f"{folder}/.ssh", 0o700), (f"{folder}/.ssh/authorized_keys", 0o600)):
                (self.dir / path).chmod(mode)
                os.chown(self.dir / path, uid, gid)
        for path in (self.dir / "upper", self.dir / "upper/home"):
            path.chmod(0o755)
        if not os.path.ismount(self.root):
            run("mount", "-t", "overlay", f"sf-{self.name}", "-o",
                f"lowerdir={self.lab.base},upperdir={self.dir}/upper,workdir={self.dir}/work", str(self.root))
        self._connect()

    def _connect(self) -> None:
        if self.space in run("ip", "netns", "list").stdout.split():
            return
        run("ip", "netns", "add", self.space)
        run("ip", "link", "add", self.line, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        run("ip", "link", "set", self.line, "master", self.lab.bridge, "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                      ("link", "set", "lo", "up")):
            run("ip", "-n", self.space, *words)

    def start(self) -> None:
        """Boot; a host that reboots is booted again by the loop that started it."""
        if self.pid():
            return
        words = ["systemd-nspawn", "-q", "-D", str(self.root), f"--machine={self.name}", f"--hostname={self.name}",
                 "--register=no", "--keep-unit", f"--network-namespace-path=/run/netns/{self.space}", "--boot",
                 # Where this machine has the older control groups, a newer systemd boots with them only when told so.
                 "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
        groups = self.groups()
        for group in groups:
            group.mkdir(exist_ok=True)
        join = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift'
        loop = f'{join}; while "$@"; [ $? -eq {REBOOTED} ]; do :; done'
        with (self.dir / "console.log").open("ab") as log:
            process = subprocess.Popen(["/bin/sh", "-c", loop, "sh", *map(str, groups), "--", *words],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        (self.dir / "pid").write_text(f"{process.pid} {_started(process.pid)}")

    def groups(self) -> list[Path]:
        """The control groups of this host alone; nspawn puts a host into those of whoever started it."""
        # With cgroup v1, systemd's own hierarchy; with v2 or both, the unified one.
        found = (Path("/sys/fs/cgroup") / part for part in ("", "unified", "systemd"))
        return [path / self.space for path in found if (path / "cgroup.procs").exists()]

    def pid(self) -> int | None:
        """The loop that runs the host; a process that only has its number is not it."""
        with contextlib.suppress(OSError, ValueError):
            pid, started = (self.dir / "pid").read_text().split()
            if _started(int(pid)) == started:
                return int(pid)
        return None

    def init(self) -> int:
        """The host's own first process, as this machine numbers it."""
        for pid in descendants(self.pid() or 0):
            with contextlib.suppress(OSError, ValueError):
                if Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].splitlines()[0].split()[-1] == "1":
                    return pid
        raise LabError(f"{self.name} does not run")

    def poweroff(self) -> None:
        """As if the plug were pulled: everything in the host dies at once, unflushed by itself."""
        pid = self.pid()
        family = descendants(pid) if pid else []
        for one in [pid, *family] if pid else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid or -1, 0) if pid else None
        wait_for(lambda: not any(_started(one) for one in family), f"the end of {self.name}", 20)
        (self.dir / "pid").unlink(missing_ok=True)

    def cut(self) -> None:
        run("ip", "link", "set", self.line, "down")

    def mend(self) -> None:
        run("ip", "link", "set", self.line, "up")

    def ssh(self, *command: str, user: str = "root", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-F", str(self.lab.dir / "ssh_config"), "-l", user, self.name, *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL)

    def is_up(self) -> bool:
        done = self.ssh("systemctl is-system-running", timeout=30)
        if done.stdout.strip() == "degraded":
            failed = self.ssh("systemctl --failed --plain --no-legend").stdout
            raise LabError(f"{self.name} is up, but units failed: {failed}")
        return done.stdout.strip() == "running"

    def remove(self) -> None:
        self.poweroff()
        # A tree that was just left may be busy for a moment.
        for _try in range(50):
            if not os.path.ismount(self.root) or run("umount", str(self.root), check=False).returncode == 0:
                break
            time.sleep(0.1)
        run("ip", "link", "del", self.line, check=False)
        run("ip", "netns", "del", self.space, check=False)
        for group in self.groups():
            for folder, _folders, _files in os.walk(group, topdown=False):
                Path(folder).rmdir()


def _started(pid: int) -> str:
    """When a process began, which tells it from a later one of the same number; nothing for one that has ended."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if words[0] == "Z" else words[19]
    return ""


def descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, level = [], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


# -- the lab -----------------------------------------------------------------------------------


class Lab:
    """Some hosts on one bridge."""

    def __init__(self, folder: Path, hosts: int = 0, routers: int = 0) -> None:
        self.dir = folder.resolve()
        digest = hashlib.sha256(str(self.dir).encode()).digest()
        self.tag = digest.hex()[:4]
        self.net = f"10.77.{digest[4]}"
        self.bridge = f"sf{self.tag}br"
        self.base = Path()
        names = [f"h{number}" for number in range(1, hosts + 1)] + [f"r{number}" for number in range(1, routers + 1)]
        known = [path.parent.name for path in self.dir.glob("*/work")]
        self.hosts = {name: Host(self, name, self._address(name)) for name in dict.fromkeys([*known, *names])}

    def _address(self, name: str) -> str:
        return f"{self.net}.{(100 if name.startswith('r') else 10) + int(name[1:])}"

    def up(self) -> None:
        prepare_machine()
        began = time.monotonic()
        self.base = base_tree()
        self.dir.mkdir(parents=True, exist_ok=True)
        if not (self.dir / "key").exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test hosts", "-f", str(self.dir / "key"))
        self._bridge()
        self._write_ssh()
        for host in self.hosts.values():
            host.make()
            host.start()
        for host in self.hosts.values():
            wait_for(host.is_up, f"{host.name} to run (see {host.dir}/console.log)", 90)
        self._write_inventory()
        say(f"{len(self.hosts)} hosts run, {time.monotonic() - began:.1f} s; inventory {self.dir}/inventory.yml")

    def python(self) -> str:
        """The version of the hosts' Python, such as 3.13."""
        return (self.base / "usr/bin/python3").readlink().name.removeprefix("python")

    def _bridge(self) -> None:
        if run("ip", "link", "show", self.bridge, check=False).returncode == 0:
            return
        if f"{self.net}." in run("ip", "-4", "addr").stdout:
            raise LabError(f"{self.net}.0/24 is in use on this machine; choose another --dir, it decides the network")
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.net}.1/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def _write_ssh(self) -> None:
        keys = [path.read_text().split()[:2] for path in sorted((self.base / "etc/ssh").glob("ssh_host_*_key.pub"))]
        lines = [f"{name},{host.address} {' '.join(key)}" for name, host in self.hosts.items() for key in keys]
        (self.dir / "known_hosts").write_text("\n".join(lines) + "\n")
        blocks = [f"Host {name}\n  HostName {host.address}" for name, host in self.hosts.items()]
        blocks.append(f"Host *\n  User root\n  IdentityFile {self.dir}/key\n  IdentitiesOnly yes\n  BatchMode yes\n"
                      f"  UserKnownHostsFile {self.dir}/known_hosts\n  StrictHostKeyChecking yes\n  ConnectTimeout 5\n"
                      "  LogLevel ERROR")
        (self.dir / "ssh_config").write_text("\n".join(blocks) + "\n")

    def _write_inventory(self) -> None:
        """JSON is YAML too, and needs no library."""
        groups = {"test_hosts": "h", "test_routers": "r"}
        shared = {"ansible_user": "root", "ansible_ssh_private_key_file": f"{self.dir}/key",
                  "ansible_ssh_common_args": f"-F {self.dir}/ssh_config",
                  "ansible_python_interpreter": "/usr/bin/python3"}
        document = {group: {"hosts": {name: {"ansible_host": host.address} for name, host in self.hosts.items()
                                      if name.startswith(letter)}, "vars": shared}
                    for group, letter in groups.items()}
        (self.dir / "inventory.yml").write_text(json.dumps(document, indent=1) + "\n")

    def down(self) -> None:
        for host in self.hosts.values():
            host.remove()
        run("ip", "link", "del", self.bridge, check=False)
        left = [host.name for host in self.hosts.values() if os.path.ismount(host.root)]
        if left:
            raise LabError(f"{', '.join(left)}: the disk is still in use; end what uses it and try again")
        shutil.rmtree(self.dir, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".cache" / "hosts", help="folder of the lab (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring hosts up")
    up.add_argument("--count", type=int, default=3, help="hosts h1, h2, ... (%(default)s)")
    up.add_argument("--routers", type=int, default=0, help="hosts r1, r2, ... (%(default)s)")
    commands.add_parser("down", help="remove them without a trace")
    commands.add_parser("status", help="show them")
    commands.add_parser("try", help="bring one up and remove it: whether this machine can")
    for name, text in (("poweroff", "pull the plug"), ("start", "boot again, with the disk as it was"),
                       ("cut", "take its network line down"), ("mend", "and up again")):
        commands.add_parser(name, help=text).add_argument("host")
    args = parser.parse_args(argv)
    try:
        lab = Lab(args.dir, getattr(args, "count", 0), getattr(args, "routers", 0))
        if args.command == "try":
            lab = Lab(args.dir, 1, 0)
            try:
                lab.up()
            finally:
                lab.down()
        elif args.command in ("up", "down"):
            getattr(lab, args.command)()
        elif args.command == "status":
            for host in lab.hosts.values():
                print(f"{host.name}  {host.address}  {'runs' if host.pid() else 'is off'}")
        elif args.host in lab.hosts:
            getattr(lab.hosts[args.host], args.command)()
        else:
            raise LabError(f"there is no host {args.host}; known: {', '.join(lab.hosts) or 'none, see up'}")
    except LabError as error:
        print(f"hosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
