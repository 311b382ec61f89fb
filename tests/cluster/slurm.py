"""A real Slurm on this machine, for as long as a test takes: two nodes that share its disk.

``python -m tests.cluster.slurm`` says by its exit code whether one can be started.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["NODES", "lacking", "running"]

NODES = ("node1", "node2")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo")
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
# a task that was requeued begins again when its old credential has expired, after two minutes if nothing is said
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=2
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=short Nodes=ALL Default=YES MaxTime=1:00:00 State=UP
"""


def lacking() -> str | None:
    """Why none can be started; None if one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"Slurm is not installed: there is no {', '.join(missing)}"
    return None if os.geteuid() == 0 else "Slurm's daemons are started as root, and this is another user"


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """A Slurm with the partition ``short``; gives the variables that its commands need. Nothing of it is left.

    Args:
        folder: for its files.
    """
    folder.chmod(0o755)  # munge refuses a socket that others cannot reach
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(folder=folder, host=platform.node().partition(".")[0], ports=_free_ports(3)))
    variables = {"SLURM_CONF": str(conf)}
    environment = {**os.environ, **variables, "PATH": _path()}
    files = [f"--{name}={folder}/munge.{ending}" for name, ending in _MUNGE_FILES.items()]
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / f"{command[0]}-{len(daemons)}.log").open("wb") as log:
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))

    try:
        start("munged", "--foreground", "--force", *files)
        _wait(lambda: (folder / "munge.socket").exists(), 20, "munged")
        start("slurmctld", "-D", "-i", "-f", str(conf))
        for node in NODES:
            start("slurmd", "-D", "-N", node, "-f", str(conf))
        _wait(lambda: _said(environment, "sinfo", "--noheader", "--format=%T %D").split() == ["idle", "2"], 60, "Slurm")
        yield variables
    finally:
        with suppress(OSError, subprocess.SubprocessError):
            _said(environment, "scancel", "--user=root", "--signal=KILL")
            _said(environment, "scancel", "--user=root")
            _wait(lambda: not _said(environment, "squeue", "--noheader"), 20, "the end of all jobs")
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        _kill_jobs(conf)


_MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _said(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def _free_ports(count: int) -> list[int]:
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        sockets = (first, second, third)[:count]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(is_so: object, seconds: float, what: str) -> None:
    assert callable(is_so)
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.2)


def _kill_jobs(conf: Path) -> None:
    """End what the daemons left: only what runs under this configuration."""
    mark = f"SLURM_CONF={conf}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


if __name__ == "__main__":
    reason = lacking()
    if reason is not None:
        sys.exit(reason)
