"""Decides how log lines look and where they go (O190-O194, O197, O226).

`[pid] 2006/01/02 15:04:05.000000 [INF] STREAM: text`, local time; lines of the NATS child carry no `STREAM: `. One
handler on the root logger writes everything to stderr or to one file. Modules log through `logging.getLogger(__name__)`
below `server`, `raft` and `store`; other libraries are heard from WARNING on.
"""

import logging
import os
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final, TextIO

TRACE: Final = 5
"""Level of per-message lines, below DEBUG. Ask `logger.isEnabledFor(TRACE)` once per batch."""

CHILD_LOGGER: Final = "nats-server"
"""Logger of the lines that the NATS child wrote. Its verbosity is decided by the child's own options (O197)."""

LOG_FILE_MODE: Final = 0o640
"""Permissions of a new log file. Source: O194."""

RAFT_LOGGER: Final = "raft"
ENGINE_LOGGER: Final = "raft.engine"
"""What replicates, and what of it only concerns itself: elections, roles."""

_OWN_LOGGERS: Final = ("server", "raft", "store")

_LABELS: Final = {
    logging.CRITICAL: ("FTL", "31"),
    logging.ERROR: ("ERR", "31"),
    logging.WARNING: ("WRN", "0;93"),
    logging.INFO: ("INF", "32"),
    logging.DEBUG: ("DBG", "36"),
    TRACE: ("TRC", "33"),
}
"""Level -> label and colour (O190, O192)."""

_LEVELS: Final = {label: level for level, (label, _) in _LABELS.items()}

# Log lines carry text of clients: a control character must neither break the line nor reach a terminal.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}

logger = logging.getLogger(__name__)


class LineFormatter(logging.Formatter):
    """A record as one line (O190), a traceback below it."""

    def __init__(self, *, pid: int, logtime: bool, colours: bool) -> None:
        super().__init__()
        self._pid = pid
        self._logtime = logtime
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The line without its newline."""
        label, colour = _label(record.levelno)
        if self._colours:
            label = f"\x1b[{colour}m{label}\x1b[0m"
        moment = f"{_local_time(record.created)} " if self._logtime else ""
        source = "" if record.name == CHILD_LOGGER else "STREAM: "
        line = f"[{self._pid}] {moment}[{label}] {source}{record.getMessage().translate(_CONTROLS)}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class LogFile(logging.StreamHandler[TextIO]):
    """Appends to a file that can be closed and opened again by name.

    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(_open(path))

    def reopen(self) -> None:
        """Write to whatever file `path` names now. Raises OSError, and then the old file stays in use."""
        old = self.setStream(_open(self.path))
        if old is not None:
            old.close()

    def close(self) -> None:
        """Close the file. The handler must not be used any more."""
        self.stream.close()
        super().close()


class RateLimit:
    """Lets one line per key and interval through and counts the others.

    Invariant: at most `keys_max` keys are remembered; the one admitted longest ago is forgotten first, which can let a
    line through early and never loses one.
    """

    __slots__ = ("_admitted", "_interval_ns", "_keys_max")

    def __init__(self, interval_ns: int, keys_max: int = 1024) -> None:
        self._interval_ns = interval_ns
        self._keys_max = keys_max
        self._admitted: OrderedDict[str, tuple[int, int]] = OrderedDict()  # key -> admitted at, suppressed since

    def admit(self, key: str, now_ns: int) -> int | None:
        """None when the line is to be dropped, else the number of lines of `key` dropped since the last admitted one.

        `now_ns` is monotonic.
        """
        admitted_ns, suppressed = self._admitted.get(key, (None, 0))
        if admitted_ns is not None and now_ns - admitted_ns < self._interval_ns:
            self._admitted[key] = (admitted_ns, suppressed + 1)
            return None
        self._admitted[key] = (now_ns, 0)
        self._admitted.move_to_end(key)
        if len(self._admitted) > self._keys_max:
            self._admitted.popitem(last=False)
        return suppressed


def set_up(*, stan_debug: bool, stan_trace: bool, log_file: str, logtime: bool, raft_logging: bool = False) -> None:
    """Send all log lines of this process to `log_file`, or to stderr when it is empty (O193).

    Without `raft_logging` Raft tells only of what concerns an operator, and nothing of how it gets there (O429).

    Raises OSError when the file cannot be opened. Debug and trace are independent (O197): trace alone shows no debug
    lines. Called again it replaces what it installed before.
    """
    handler: logging.StreamHandler[TextIO]
    colours = False
    if log_file:
        handler = LogFile(log_file)
    else:
        handler = logging.StreamHandler(sys.stderr)
        colours = sys.stderr.isatty()
    handler.setFormatter(LineFormatter(pid=os.getpid(), logtime=logtime, colours=colours))
    if not stan_debug:
        handler.addFilter(_is_not_own_debug)
    level = TRACE if stan_trace else logging.DEBUG if stan_debug else logging.INFO
    root = logging.getLogger()
    tear_down()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.getLogger(RAFT_LOGGER).setLevel(level if raft_logging else max(level, logging.INFO))
    logging.getLogger(ENGINE_LOGGER).setLevel(logging.NOTSET if raft_logging else logging.WARNING)
    logging.getLogger(CHILD_LOGGER).setLevel(TRACE)


def tear_down() -> None:
    """Remove what `set_up` installed and close the log file."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, LineFormatter):
            root.removeHandler(handler)
            handler.close()


def reopen() -> None:
    """Close the log file and open it again by name, for log rotation by rename (O226). Logs what it did."""
    log_files = [handler for handler in logging.getLogger().handlers if isinstance(handler, LogFile)]
    if not log_files:
        logger.info("File log re-open ignored, not a file logger")
    for log_file in log_files:
        try:
            log_file.reopen()
        except OSError as error:
            reason = f"{log_file.path}: {error.strerror}"
            logger.error("File log re-open failed, the old file stays in use: %s", reason)  # noqa: TRY400  no bug
        else:
            logger.info("File log re-opened")


def log_child_line(level: str, text: str) -> None:
    """Write a line of the NATS child with our pid and time (O117). `level` is its label; unknown ones count as INF."""
    logging.getLogger(CHILD_LOGGER).log(_LEVELS.get(level, logging.INFO), "%s", text)


def _label(level: int) -> tuple[str, str]:
    """Label and colour of the highest known level not above `level`."""
    return next((label for bound, label in _LABELS.items() if level >= bound), _LABELS[TRACE])


def _local_time(created_s: float) -> str:
    return datetime.fromtimestamp(created_s, tz=UTC).astimezone().strftime("%Y/%m/%d %H:%M:%S.%f")


def _is_not_own_debug(record: logging.LogRecord) -> bool:
    return record.levelno != logging.DEBUG or record.name == CHILD_LOGGER


def _open(path: str) -> TextIO:
    return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=_opener)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, LOG_FILE_MODE)
