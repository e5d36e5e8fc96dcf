"""Covers server/natsd/supervisor.py and launcher.py with the real nats-server and with programs that misbehave."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from server.errors import ChildError, ChildStartError
from server.nats.address import Login, parse
from server.nats.dial import DialError, Security, dial
from server.natsd import backoff, supervisor
from server.natsd.binary import find
from server.natsd.command import ChildConfig
from server.natsd.supervisor import Supervisor, write_private
from tests.support.ports import HOST, is_served, wait_served
from tests.support.raw_nats import RawNats
from tests.unit.server.nats.harness import Changes

ROOT = Path(__file__).parents[4]


class Watched:
    """A supervisor and what it told."""

    def __init__(self, config: ChildConfig, program: Path | None = None) -> None:
        self.lines: list[tuple[str, str]] = []
        self.exits: list[str] = []
        self.fatal: list[ChildError] = []
        self._changes = Changes()
        self.supervisor = Supervisor(
            config,
            program=program or find(),
            on_line=lambda level, text: self._record(self.lines, (level, text)),
            on_exit=lambda text: self._record(self.exits, text),
            on_fatal=lambda error: self._record(self.fatal, error),
        )

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when `condition` is true; raises TimeoutError."""
        await self._changes.until(condition)

    def _record(self, events: list, event: object) -> None:
        events.append(event)
        self._changes.tell()


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def private_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the child's private directory appears, to see that it is gone."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.asyncio
async def test_start_and_stop(private_temp: Path) -> None:
    """O110, O111: after `start` clients are served on the real ports; after `stop` nothing is left."""
    watched = Watched(ChildConfig(host="0.0.0.0", port=-1, http_host=HOST, http_port=-1, server_name="n1"))
    child = watched.supervisor
    await child.start()
    statistics = child.statistics()
    assert statistics.is_running
    assert statistics.starts == 1
    assert child.url == f"nats://{HOST}:{child.port}"
    assert is_served(child.http_port)
    async with await RawNats.connect(child.url) as client:
        assert client.server_info["server_name"] == "n1"
    await child.stop()
    await child.stop()
    assert not is_served(statistics.port)
    assert not child.statistics().is_running
    assert ("INF", "Server is ready") in watched.lines
    assert watched.exits == []
    assert list(private_temp.iterdir()) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "config",
    [
        ChildConfig(host=HOST, port=-1, user='ü"x', password="a$b\\c#{}\n\t\x01 'q\""),
        ChildConfig(host=HOST, port=-1, token='$HOME\\"'),
    ],
)
async def test_any_secret_reaches_the_child_unchanged_and_stays_private(
    config: ChildConfig, private_temp: Path
) -> None:
    """O115: the child demands exactly this login; it is on no command line and no longer in a file."""
    watched = Watched(config)
    await watched.supervisor.start()
    try:
        login = Login(token=config.token) if config.token else Login(user=config.user, password=config.password)
        address = parse(watched.supervisor.url)
        await (await dial(address, "n", Security(login=login))).close()
        with pytest.raises(DialError):
            await dial(address, "n", Security(login=Login(user=config.user, password=config.password + "x")))
        command_line = Path(f"/proc/{watched.supervisor.statistics().pid}/cmdline").read_text()
        assert (config.token or config.password) not in command_line
        assert not list(private_temp.rglob("*.conf"))
        (folder,) = private_temp.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        await watched.supervisor.stop()


def test_configuration_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    """O112: mode 0600, also when a file of that name was there with another mode."""
    path = tmp_path / "c"
    path.write_text("old")
    path.chmod(0o666)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.asyncio
async def test_taken_port_is_told(private_temp: Path) -> None:
    """O116, O111: the child's error line is relayed, and the error names host and port."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        watched = Watched(ChildConfig(host=HOST, port=port))
        with pytest.raises(ChildStartError) as caught:
            await watched.supervisor.start()
    assert str(caught.value) == f"unable to start a NATS Server on {HOST}:{port}"
    assert any(level == "FTL" and str(port) in text and "in use" in text for level, text in watched.lines)
    assert any("in use" in text for text in caught.value.output)
    assert list(private_temp.iterdir()) == []
    assert watched.fatal == []


@pytest.mark.asyncio
async def test_program_that_cannot_run_is_told(tmp_path: Path) -> None:
    """A broken program is an error with the reason, not a wait."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    watched = Watched(ChildConfig(host=HOST, port=-1), broken)
    with pytest.raises(ChildStartError):
        await watched.supervisor.start()
    assert watched.lines == [("FTL", f"cannot run {broken}: Exec format error")]
    assert watched.supervisor.statistics().last_exit == "exit status 127"


@pytest.mark.asyncio
async def test_child_that_never_gets_ready_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O111: the wait is bounded; a child that ignores SIGTERM is killed."""
    monkeypatch.setattr(supervisor, "READY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_S", 0.1)
    stubborn = script(tmp_path / "stubborn", "trap '' TERM; echo waiting; while :; do read -r _ || sleep 1; done")
    watched = Watched(ChildConfig(host=HOST, port=4999), stubborn)
    with pytest.raises(ChildStartError):
        await watched.supervisor.start()
    assert watched.lines == [("INF", "waiting")]
    assert watched.supervisor.statistics().last_exit == "killed by SIGKILL"


@pytest.mark.asyncio
async def test_killed_child_comes_back_on_its_ports() -> None:
    """Deliberately unlike O118: it is reported and started again, on the same ports although they were random."""
    watched = Watched(ChildConfig(host=HOST, port=-1, http_port=-1))
    child = watched.supervisor
    await child.start()
    try:
        before = child.statistics()
        os.kill(before.pid, signal.SIGKILL)
        await watched.until(lambda: watched.exits)
        assert watched.exits == ["nats-server ended unexpectedly: killed by SIGKILL"]
        await watched.until(lambda: watched.lines.count(("INF", "Server is ready")) == 2)
        async with await RawNats.connect(child.url):
            after = child.statistics()
        assert (after.port, after.http_port) == (before.port, before.http_port)
        assert after.pid != before.pid
        assert after.starts == 2
        assert after.last_exit == "killed by SIGKILL"
        assert watched.fatal == []
    finally:
        await child.stop()


@pytest.mark.asyncio
async def test_child_that_fails_again_and_again_is_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarting is given up after the bound, once, naming the port."""
    monkeypatch.setattr(backoff, "DELAY_MIN_NS", 1_000_000)
    real = find()
    flag = tmp_path / "started"
    once = script(tmp_path / "once", f'[ -e "{flag}" ] && exit 3; touch "{flag}"; exec "{real}" "$@"')
    watched = Watched(ChildConfig(host=HOST, port=-1), once)
    await watched.supervisor.start()
    os.kill(watched.supervisor.statistics().pid, signal.SIGKILL)
    await watched.until(lambda: watched.fatal)
    (error,) = watched.fatal
    assert str(error) == f"nats-server on {HOST}:{watched.supervisor.port} cannot be kept running"
    assert len(watched.exits) == 1 + backoff.QUICK_FAILURES_MAX
    assert all("did not start again" in text for text in watched.exits[1:])
    assert watched.supervisor.statistics().last_exit == "exit status 3"
    await watched.supervisor.stop()


@pytest.mark.asyncio
async def test_stop_during_a_restart_leaves_nothing(private_temp: Path) -> None:
    """A shutdown between death and restart neither waits nor leaves a child behind."""
    watched = Watched(ChildConfig(host=HOST, port=-1))
    await watched.supervisor.start()
    port = watched.supervisor.port
    os.kill(watched.supervisor.statistics().pid, signal.SIGKILL)
    await watched.until(lambda: watched.exits)
    await watched.supervisor.stop()
    assert not is_served(port)
    assert not watched.supervisor.statistics().is_running
    assert list(private_temp.iterdir()) == []


@pytest.mark.asyncio
async def test_child_has_its_own_session() -> None:
    """O119: Ctrl-C of the terminal reaches only us."""
    watched = Watched(ChildConfig(host=HOST, port=-1))
    await watched.supervisor.start()
    pid = watched.supervisor.statistics().pid
    assert os.getsid(pid) == pid != os.getsid(0)
    await watched.supervisor.stop()


PARENT = """
import asyncio, sys
from pathlib import Path
from server.natsd.command import ChildConfig
from server.natsd.supervisor import Supervisor
async def main():
    child = Supervisor(ChildConfig(host="127.0.0.1", port=-1), program=Path(sys.argv[1]),
        on_line=lambda *_: None, on_exit=print, on_fatal=print)
    await child.start()
    print(child.port, child.statistics().pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def orphaned(program: Path, *, unguarded: bool = False) -> int:
    """Port of the child of a process that was killed without a chance to clean up; its guard is killed before."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(program)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": tempfile.gettempdir()},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        port, pid = (int(number) for number in parent.stdout.readline().split())
        assert is_served(port)
        if unguarded:
            guard = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
            os.kill(guard, signal.SIGKILL)
        parent.kill()
    return port


def test_child_dies_with_us() -> None:
    """O119: after our SIGKILL neither the child nor its port is left."""
    wait_served(orphaned(find()), served=False, timeout_s=20)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_child_dies_with_us_by_the_kernel_signal_alone() -> None:
    """O119: the parent-death signal needs no guard."""
    wait_served(orphaned(find(), unguarded=True), served=False, timeout_s=20)


def test_child_dies_with_us_by_the_pipe_alone(tmp_path: Path) -> None:
    """O119: a program that loses the death signal, as one with file capabilities does, is ended by the pipe."""
    clear = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 0); os.execv(sys.argv[1], sys.argv[1:])"
    deaf = script(tmp_path / "deaf", f"exec '{sys.executable}' -I -S -c '{clear}' '{find()}' \"$@\"")
    wait_served(orphaned(deaf), served=False, timeout_s=20)
