"""Runs the console command: reads the command line, prepares the process and hands over to the server.

Order (O14): syntax, version, help, stray word, option values and checks; then log, pid file, server. Exit status (O233):
0 after help, version and SIGINT, 143 after SIGTERM, 1 after everything that failed. The original exits with 0 after a
malformed option; a supervisor must be able to tell, so 1 it is (O9).
"""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

import raft.errors
import store.errors
from server import logs
from server.config.model import Options
from server.config.option_error import OptionError
from server.config.units import quote
from server.errors import ChildError, ServerError
from server.signals import EXIT_INTERRUPTED

from .evaluate import BINARY_VARIABLE, evaluate, is_asked
from .flag_table import FLAGS, HELP_TARGET, VERSION_TARGET
from .flags import FlagError, ParsedLine, parse
from .usage import usage_text, version_line

logger = logging.getLogger(__name__)

EXIT_FAILED: Final = 1
"""Exit status of every failed start and every fatal error. Source: O233."""

PID_FILE_MODE: Final = 0o660
"""Permissions of a new pid file. Source: O84."""

_EXPECTED: Final = (ServerError, raft.errors.RaftError, store.errors.StoreError, OSError)
_BUGS: Final = (raft.errors.InvariantError, store.errors.InvariantError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, without the program's name, and return its exit status."""
    try:
        line = parse(sys.argv[1:] if argv is None else argv, FLAGS)
    except FlagError as error:
        print(error, file=sys.stderr)
        print(usage_text(), end="")
        return EXIT_FAILED
    information = _information(line)
    if information is not None:
        print(information, end="")
        return 0
    if line.words:
        return _fail(f"unrecognized command: {quote(line.words[0])}")
    try:
        evaluation = evaluate(line.given, os.environ)
    except OptionError as error:
        return _fail(str(error))
    if sys.flags.optimize:
        return _fail("refusing to run under python -O: the server relies on its assertions")
    return _serve(evaluation.options, evaluation.warnings)


def _serve(options: Options, warnings: tuple[str, ...]) -> int:
    try:
        logs.set_up(
            stan_debug=options.stan_debug,
            stan_trace=options.stan_trace,
            log_file=options.log_file,
            logtime=options.logtime,
            raft_logging=options.cluster is not None and options.cluster.raft_logging,
        )
    except OSError as error:
        return _fail(f"error opening file: {_os_text('open', options.log_file, error)}")
    try:
        if options.pid_file:
            _write_pid_file(options.pid_file)
    except OSError as error:
        logger.critical("Could not write pidfile: %s", _os_text("open", options.pid_file, error))
        return EXIT_FAILED
    for warning in warnings:
        logger.warning("%s", warning)
    return _run(options)


def _run(options: Options) -> int:
    """Run the server to its end and return its status.

    An expected error that leaves the server is its failed start (O255): what ends a running server it logs itself and
    returns a status. Anything else is a bug and shows its traceback.
    """
    try:
        from server import app  # noqa: PLC0415  help and version must not wait for the whole server to be imported

        return asyncio.run(app.run(options))
    except KeyboardInterrupt:
        # SIGINT before the server installed its own handlers: nothing was opened that an orderly stop would close.
        return EXIT_INTERRUPTED
    except Exception as error:
        cause = _first_cause(error)
        if isinstance(cause, _EXPECTED) and not isinstance(cause, _BUGS):
            logger.critical("Failed to start: %s", cause)
        else:
            logger.critical("Unexpected error: %r", cause, exc_info=error)
        return EXIT_FAILED


def _first_cause(error: Exception) -> Exception:
    """The first error inside the groups that task groups raise."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _write_pid_file(path: str) -> None:
    """Our process id without a newline (O84). Not removed at exit (O236). Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PID_FILE_MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(str(os.getpid()))


def _information(line: ParsedLine) -> str | None:
    """What the command line asks to print instead of serving; version goes before help, options before words (O14)."""
    word = line.words[0].lower() if line.words else ""
    asks_version = is_asked(line.given, VERSION_TARGET)
    asks_help = is_asked(line.given, HELP_TARGET)
    if asks_version or (word == "version" and not asks_help):
        return _version_text()
    return usage_text() if asks_help or word == "help" else None


def _version_text() -> str:
    """Our version and that of the nats-server program that would be started, `none` without a usable one (O12)."""
    from server.natsd import binary  # noqa: PLC0415  only this text needs it

    try:
        nats_version = f"v{binary.version(binary.find(os.environ.get(BINARY_VARIABLE)))}"
    except ChildError:
        nats_version = "none"
    return version_line(nats_version) + "\n"


def _fail(text: str) -> int:
    """One line on stderr, before any log line (O10)."""
    print(text, file=sys.stderr)
    return EXIT_FAILED


def _os_text(operation: str, path: str, error: OSError) -> str:
    """An error of the operating system in the form Go prints it: `open /a/b: no such file or directory`."""
    reason = error.strerror or str(error)
    return f"{operation} {path}: {reason[:1].lower()}{reason[1:]}"
