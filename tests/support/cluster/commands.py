"""Runs short system commands and says what failed and why."""

import subprocess
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 20.0
"""Bound of one command, seconds; all of them take milliseconds."""

NAME_PREFIX: Final = "streamtest"
"""First part of every name that the harness makes on the machine; the pid of the maker follows."""


class CommandError(Exception):
    """A command that failed: `command`, its exit `status` (None when it could not be run or hung) and what it said."""

    def __init__(self, command: tuple[str, ...], status: int | None, text: str) -> None:
        super().__init__(f"{' '.join(command)}: status {status}: {text.strip()}")
        self.command, self.status, self.text = command, status, text


def run(*command: str, stdin: str = "") -> str:
    """Its output; raises CommandError when it is not there, hangs, or ends with another status than 0."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(command, None, str(error)) from error
    if done.returncode:
        raise CommandError(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    return Path(f"/proc/{pid}").exists()


def maker_of(name: str) -> int | None:
    """The pid in a name of ours (`streamtest-123-…`); None for any other name."""
    prefix, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    return int(pid) if prefix == NAME_PREFIX and pid.isdigit() else None
