"""The console command around the server. The server itself is a small stand-in."""

import asyncio
import logging
import os
import re
import stat
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import raft.errors
import server
import store.errors
from server import logs
from server.cli.main import main
from server.cli.usage import usage_text
from server.config.model import Options
from server.errors import UnavailableError
from server.version import VERSION

ROOT = Path(__file__).parents[4]

Run = Callable[[Options], Awaitable[int]]


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Handlers and levels as they were before."""
    names = ("", "server", "raft", "store", logs.CHILD_LOGGER)
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    logs.tear_down()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Put a coroutine function in the place of the server."""

    def replace(run: Run) -> None:
        app = types.ModuleType("server.app")
        app.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "server.app", app)
        monkeypatch.setattr(server, "app", app, raising=False)

    return replace


@pytest.fixture
def served(serve: Callable[[Run], None]) -> list[Options]:
    """The options of servers that were run; they end at once with status 0."""
    seen: list[Options] = []

    async def run(options: Options) -> int:
        seen.append(options)
        return 0

    serve(run)
    return seen


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-xxx"], "flag provided but not defined: -xxx"),
        (["-p"], "flag needs an argument: -p"),
        (["-D=maybe"], 'invalid boolean value "maybe" for -D: parse error'),
    ],
)
def test_malformed_options_print_message_and_usage(
    argv: list[str], message: str, served: list[Options], capsys: pytest.CaptureFixture[str]
) -> None:
    """Message on stderr, usage on stdout; status 1, where the original has 0 (O9)."""
    assert main(argv) == 1
    assert capsys.readouterr() == (usage_text(), f"{message}\n")
    assert served == []


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["help"], ["HELP"], ["-h", "stray"], ["--ft_group", "g", "-h"]])
def test_help(argv: list[str], served: list[Options], capsys: pytest.CaptureFixture[str]) -> None:
    """Usage on stdout, status 0, before anything else is looked at (O8, O11, O14)."""
    assert main(argv) == 0
    assert capsys.readouterr() == (usage_text(), "")
    assert served == []


@pytest.mark.parametrize("argv", [["-v"], ["--version"], ["version"], ["Version"], ["-h", "-v"], ["-mc", "-1", "-v"]])
def test_version(argv: list[str], served: list[Options], capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stdout, status 0; version goes before help (O8, O12, O14)."""
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"nats-streaming-server version {re.escape(VERSION)}, nats-server: (v\d\S*|none)\n", out)
    assert (err, served) == ("", [])


@pytest.mark.parametrize(
    ("script", "shown"),
    [("echo 'nats-server: v1.2.3'", "v1.2.3"), ("echo other", "none"), ("exit 1", "none"), ("", "none")],
)
def test_version_is_that_of_the_configured_program(
    script: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program named by the environment is asked; one that is missing or cannot answer is `none` (O12)."""
    program = tmp_path / "nats-server"
    if script:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("NATS_SERVER_BINARY", str(program))
    assert main(["-v"]) == 0
    assert capsys.readouterr().out == f"nats-streaming-server version {VERSION}, nats-server: {shown}\n"


def test_help_option_goes_before_the_word_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Options are evaluated before stray words (O14)."""
    assert main(["-h", "version"]) == 0
    assert capsys.readouterr().out == usage_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["start"], 'unrecognized command: "start"'),
        (["--clustered", "true"], 'unrecognized command: "true"'),
        (["start", "-mc", "-1"], 'unrecognized command: "start"'),
        (["-mc", "-1"], "max channels limit cannot be negative (-1)"),
        (["--ft_group", "g"], "option --ft_group is not supported by this version"),
        (["-mb", "12abc"], "mb should be a size, got '12abc'"),
        (["-l", "/nowhere/log"], "error opening file: open /nowhere/log: no such file or directory"),
    ],
)
def test_unusable_command_lines_are_one_line_on_stderr(
    argv: list[str], message: str, served: list[Options], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 1, no log line (O8, O10, O194)."""
    assert main(argv) == 1
    assert capsys.readouterr() == ("", f"{message}\n")
    assert served == []


def test_command_line_of_the_process_is_the_default(served: list[Options], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the process's own command line is read."""
    monkeypatch.setattr(sys, "argv", ["nats-streaming-server", "-cid", "orders"])
    assert main() == 0
    assert [options.cluster_id for options in served] == ["orders"]


def test_status_of_the_server_is_the_status_of_the_command(serve: Callable[[Run], None]) -> None:
    """What the server returns is the exit status (O233)."""

    async def run(options: Options) -> int:
        return 143

    serve(run)
    assert main([]) == 143


def test_warnings_are_logged(served: list[Options], capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings about options are log lines (O109)."""
    assert main(["-T=false", "-cid", "a.b", "-ns", "nats://h:1", "-p", "1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"[{os.getpid()}] [WRN] STREAM: ") for line in lines] == [True, True]
    assert len(served) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnavailableError("no room"), "no room"),
        (store.errors.StoreError("disk"), "disk"),
        (raft.errors.RaftError("log"), "log"),
        (PermissionError(13, "Permission denied", "/data"), "[Errno 13] Permission denied: '/data'"),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [UnavailableError("inner")])]), "inner"),
    ],
)
def test_failed_start(
    error: Exception, reason: str, serve: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the server raises is its failed start: one fatal line, status 1 (O255)."""

    async def run(options: Options) -> int:
        raise error

    serve(run)
    assert main(["-T=false"]) == 1
    assert capsys.readouterr() == ("", f"[{os.getpid()}] [FTL] STREAM: Failed to start: {reason}\n")


@pytest.mark.parametrize(
    "bug", [KeyError("bug"), store.errors.InvariantError("bug"), raft.errors.InvariantError("bug")]
)
def test_bugs_show_their_traceback(
    bug: Exception, serve: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """An error nobody expected ends the process with a fatal line and the traceback (O196)."""

    async def run(options: Options) -> int:
        raise bug

    serve(run)
    assert main(["-T=false"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"[{os.getpid()}] [FTL] STREAM: Unexpected error: {bug!r}\nTraceback ")


def test_interrupt_before_the_handlers_are_installed(serve: Callable[[Run], None]) -> None:
    """SIGINT ends with status 0 from the first moment (O225)."""

    async def run(options: Options) -> int:
        raise KeyboardInterrupt

    serve(run)
    assert main([]) == 0


def test_pid_file(served: list[Options], tmp_path: Path) -> None:
    """Our process id without a newline, mode 0660, kept at exit; an old one is replaced (O84, O236)."""
    path = tmp_path / "pid"
    before = os.umask(0)
    try:
        assert main(["-P", str(path)]) == 0
    finally:
        os.umask(before)
    assert path.read_text() == str(os.getpid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    path.write_text("1234567890123")
    assert main(["-P", str(path)]) == 0
    assert path.read_text() == str(os.getpid())


def test_unwritable_pid_file(served: list[Options], capsys: pytest.CaptureFixture[str]) -> None:
    """A pid file that cannot be written is fatal (O84)."""
    assert main(["-T=false", "-P", "/nowhere/pid"]) == 1
    reason = "Could not write pidfile: open /nowhere/pid: no such file or directory"
    assert capsys.readouterr().err == f"[{os.getpid()}] [FTL] STREAM: {reason}\n"
    assert served == []


def test_server_runs_in_an_event_loop_of_its_own(serve: Callable[[Run], None]) -> None:
    """The loop is asyncio's own."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def run(options: Options) -> int:
        loops.append(asyncio.get_running_loop())
        return 0

    serve(run)
    assert main([]) == 0
    assert [loop.is_closed() for loop in loops] == [True]


def module(*words: str) -> subprocess.CompletedProcess[str]:
    """`python <words>` in the checkout."""
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_python_without_assertions_is_refused() -> None:
    """The server relies on its assertions and does not start under `python -O`."""
    done = module("-O", "-m", "server", "-p", "-1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "refusing to run under python -O: the server relies on its assertions\n"


def test_module_is_the_command() -> None:
    """`python -m server` is the console command, and its status the command's."""
    assert (module("-m", "server", "--help").stdout, module("-m", "server", "-xxx").returncode) == (usage_text(), 1)
