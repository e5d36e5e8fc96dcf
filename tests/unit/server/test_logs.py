"""The format of log lines, their targets and their rate."""

import io
import logging
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server import logs

LINE = re.compile(
    r"\[(?P<pid>\d+)\] (?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}) \[(?P<level>[A-Z]{3})\] (?P<text>.*)"
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


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
def stderr(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was written to stderr since the last call."""
    return lambda: capsys.readouterr().err


def set_up(*, debug: bool = False, trace: bool = False, log_file: str = "", logtime: bool = True) -> None:
    """`logs.set_up` with defaults."""
    logs.set_up(stan_debug=debug, stan_trace=trace, log_file=log_file, logtime=logtime)


@pytest.mark.parametrize(
    ("level", "label"),
    [
        (logging.INFO, "INF"),
        (logging.WARNING, "WRN"),
        (logging.ERROR, "ERR"),
        (logging.CRITICAL, "FTL"),
        (logging.DEBUG, "DBG"),
        (logs.TRACE, "TRC"),
        (logging.INFO + 5, "INF"),
    ],
)
def test_lines_have_the_documented_form(stderr: Callable[[], str], level: int, label: str) -> None:
    """Pid, local time with microseconds, level, `STREAM: ` and text (O190)."""
    set_up(debug=True, trace=True)
    logging.getLogger("server.x").log(level, "a %s", "b")
    match = LINE.fullmatch(stderr().rstrip("\n"))
    assert match is not None
    assert (int(match["pid"]), match["level"], match["text"]) == (os.getpid(), label, "STREAM: a b")


def test_time_is_local(stderr: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in a line is that of the local time zone (O190)."""
    monkeypatch.setenv("TZ", "XXX-05:30")
    time.tzset()
    try:
        set_up()
        record = logging.LogRecord("server", logging.INFO, __file__, 1, "text", None, None)
        record.created = 86400.123456
        logging.getLogger("server").handle(record)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert f"[{os.getpid()}] 1970/01/02 05:30:00.123456 [INF] STREAM: text\n" == stderr()


def test_lines_without_time(stderr: Callable[[], str]) -> None:
    """`--logtime=false` leaves the time out (O191)."""
    set_up(logtime=False)
    logging.getLogger("store").info("text")
    assert stderr() == f"[{os.getpid()}] [INF] STREAM: text\n"


def test_control_characters_are_escaped(stderr: Callable[[], str]) -> None:
    """Text of clients neither breaks a line nor reaches the terminal."""
    set_up(logtime=False)
    logging.getLogger("server").info("%s", "a\nb\r\tc\x1b[31m\x7f\x85\u00e9")
    assert stderr().partition("STREAM: ")[2] == "a\\nb\\r\\tc\\x1b[31m\\x7f\\x85\u00e9\n"


def test_tracebacks_follow_their_line(stderr: Callable[[], str]) -> None:
    """An exception is printed below its line."""
    set_up(logtime=False)
    try:
        os.environ["CAUSE"]
    except KeyError:
        logging.getLogger("raft").exception("text")
    lines = stderr().splitlines()
    assert (lines[0], lines[1]) == (f"[{os.getpid()}] [ERR] STREAM: text", "Traceback (most recent call last):")
    assert lines[-1] == "KeyError: 'CAUSE'"


@pytest.mark.parametrize(
    ("level", "label"),
    [
        (logging.INFO, "\x1b[32mINF\x1b[0m"),
        (logging.DEBUG, "\x1b[36mDBG\x1b[0m"),
        (logging.WARNING, "\x1b[0;93mWRN\x1b[0m"),
        (logging.ERROR, "\x1b[31mERR\x1b[0m"),
        (logging.CRITICAL, "\x1b[31mFTL\x1b[0m"),
        (logs.TRACE, "\x1b[33mTRC\x1b[0m"),
    ],
)
def test_terminals_get_colours(monkeypatch: pytest.MonkeyPatch, level: int, label: str) -> None:
    """The level is coloured on a terminal (O192)."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    set_up(debug=True, trace=True, logtime=False)
    logging.getLogger("server").log(level, "text")
    assert terminal.getvalue() == f"[{os.getpid()}] [{label}] STREAM: text\n"


def test_files_never_get_colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file stays plain even when stderr is a terminal (O192)."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    set_up(log_file=str(tmp_path / "log"), logtime=False)
    logging.getLogger("server").info("text")
    assert (tmp_path / "log").read_text() == f"[{os.getpid()}] [INF] STREAM: text\n"


@pytest.mark.parametrize(
    ("debug", "trace", "shown"),
    [
        (False, False, ["INF"]),
        (True, False, ["INF", "DBG"]),
        (False, True, ["INF", "TRC"]),
        (True, True, ["INF", "DBG", "TRC"]),
    ],
)
@pytest.mark.parametrize("name", ["server.a", "store.c"])
def test_debug_and_trace_are_independent(
    stderr: Callable[[], str], name: str, debug: bool, trace: bool, shown: list[str]
) -> None:
    """Each switch shows its own lines only (O77, O78, O197)."""
    set_up(debug=debug, trace=trace)
    for level in (logging.INFO, logging.DEBUG, logs.TRACE):
        logging.getLogger(name).log(level, "text")
    assert re.findall(r"\[([A-Z]{3})\]", stderr()) == shown
    assert logging.getLogger(name).isEnabledFor(logs.TRACE) is trace


def test_other_libraries_are_heard_from_warnings_on(stderr: Callable[[], str]) -> None:
    """A library's warning reaches the operator, its chatter does not."""
    set_up(debug=True, trace=True)
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("asyncio").warning("slow")
    assert re.findall(r"\[([A-Z]{3})\] (.*)", stderr()) == [("WRN", "STREAM: slow")]


@pytest.mark.parametrize("level", ["INF", "WRN", "ERR", "FTL", "DBG", "TRC"])
def test_child_lines_keep_their_level(stderr: Callable[[], str], level: str) -> None:
    """Lines of the NATS child have our pid and no `STREAM: `, whatever our own switches are (O117, O190, O197)."""
    set_up(logtime=False)
    logs.log_child_line(level, "Server is ready 100%")
    assert stderr() == f"[{os.getpid()}] [{level}] Server is ready 100%\n"


def test_other_child_output_is_information(stderr: Callable[[], str]) -> None:
    """What is no log line of the child is level INF (O117)."""
    set_up(logtime=False)
    logs.log_child_line("", "panic: x")
    assert stderr() == f"[{os.getpid()}] [INF] panic: x\n"


def test_log_file_is_appended_and_private(tmp_path: Path) -> None:
    """The file is created with mode 0640 and appended to (O194)."""
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        set_up(log_file=str(path), logtime=False)
    finally:
        os.umask(before)
    logging.getLogger("server").info("one")
    set_up(log_file=str(path), logtime=False)
    logging.getLogger("server").info("two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["one", "two"]


def test_unusable_log_file_is_an_error(tmp_path: Path, stderr: Callable[[], str]) -> None:
    """A file that cannot be opened is the caller's to report, and what was installed before stays (O194)."""
    set_up()
    with pytest.raises(FileNotFoundError):
        set_up(log_file=str(tmp_path / "missing" / "log"))
    logging.getLogger("server").info("text")
    assert stderr().endswith("text\n")


def test_reopen_begins_a_new_file(tmp_path: Path) -> None:
    """After a rename the new file begins with the line that says so; this can be repeated (O226)."""
    path = tmp_path / "log"
    set_up(log_file=str(path), logtime=False)
    for turn in range(3):
        logging.getLogger("server").info("turn %d", turn)
        path.rename(tmp_path / f"log.{turn}")
        logs.reopen()
    reopened = f"[{os.getpid()}] [INF] STREAM: File log re-opened\n"
    assert path.read_text() == reopened
    assert (tmp_path / "log.1").read_text() == f"{reopened}[{os.getpid()}] [INF] STREAM: turn 1\n"


def test_failed_reopen_keeps_the_old_file(tmp_path: Path) -> None:
    """When the name cannot be opened the old file stays in use and says why."""
    folder = tmp_path / "folder"
    folder.mkdir()
    set_up(log_file=str(folder / "log"), logtime=False)
    folder.rename(tmp_path / "moved")
    logs.reopen()
    text = (tmp_path / "moved" / "log").read_text()
    assert f"[ERR] STREAM: File log re-open failed, the old file stays in use: {folder / 'log'}: No such file" in text


def test_reopen_without_a_file_is_ignored(stderr: Callable[[], str]) -> None:
    """Without a log file there is nothing to reopen (O226)."""
    set_up(logtime=False)
    logs.reopen()
    assert stderr() == f"[{os.getpid()}] [INF] STREAM: File log re-open ignored, not a file logger\n"


def test_repeats_are_counted_not_shown() -> None:
    """One line per key and interval; the next one shown knows how many were not."""
    limit = logs.RateLimit(interval_ns=100)
    assert [limit.admit("a", now_ns) for now_ns in (0, 1, 99)] == [0, None, None]
    assert limit.admit("b", 99) == 0
    assert [limit.admit("a", now_ns) for now_ns in (100, 199, 200)] == [2, None, 1]


def test_keys_of_the_rate_limit_are_bounded() -> None:
    """At the bound the key admitted longest ago is forgotten, and may speak again."""
    limit = logs.RateLimit(interval_ns=100, keys_max=2)
    assert [limit.admit(key, 0) for key in "abc"] == [0, 0, 0]
    assert [limit.admit(key, 1) for key in "cba"] == [None, None, 0]


@pytest.mark.parametrize(
    ("debug", "raft_logging", "shown"),
    [
        (False, False, {"raft info"}),
        (True, False, {"raft info"}),
        (False, True, {"raft info", "engine info"}),
        (True, True, {"raft info", "engine info", "raft debug", "engine debug"}),
    ],
)
def test_raft_tells_of_itself_only_when_asked(capsys, debug, raft_logging, shown):
    """O429: what only concerns Raft is shown with its option, its debug lines with -SD as well; the rest is always shown."""
    logs.set_up(stan_debug=debug, stan_trace=False, log_file="", logtime=False, raft_logging=raft_logging)
    for name in ("raft", "engine"):
        source = logging.getLogger({"raft": "raft.node", "engine": "raft.engine"}[name])
        source.info("%s info", name)
        source.debug("%s debug", name)
    printed = capsys.readouterr().err
    assert {text for text in ("raft info", "engine info", "raft debug", "engine debug") if text in printed} == shown
