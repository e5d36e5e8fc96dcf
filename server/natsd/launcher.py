"""Becomes the nats-server child, after making sure that it cannot outlive the process that started it (O119).

Runs as a program of its own, by path, isolated: `launcher.py <parent pid> <pipe> <program> [arguments...]`. Between
fork and exec of a process with threads no Python may run, so this is done behind the exec. Two safeguards: the kernel
kills us when our parent dies (Linux; lost when `program` has file capabilities), and a small process at the other end
of `pipe` kills us when the parent's end closes.
"""

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

PR_SET_PDEATHSIG: Final = 1
"""Source: prctl(2)."""

CANNOT_RUN: Final = 127
"""Exit status when `program` cannot be executed, as of a shell."""


def main() -> NoReturn:
    """Does not return."""
    parent, pipe, program, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    os.set_inheritable(int(pipe), False)
    child = os.getpid()
    if os.fork() == 0:
        guard(child, int(pipe))
    try:
        os.execv(program, [program, *arguments])  # noqa: S606  no shell: that is the point
    except OSError as error:
        print(f"[{child}] [FTL] cannot run {program}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(CANNOT_RUN)


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when `parent` dies; die at once when it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(CANNOT_RUN)


def guard(child: int, pipe: int) -> NoReturn:
    """Wait until the other end of `pipe` closes, then kill `child`. Does not return."""
    try:
        die_with_parent(child)
        for stream in (0, 1, 2):  # the parent waits for the end of the child's output, not of ours
            os.close(stream)
        os.read(pipe, 1)
        if os.getppid() == child:  # else it is gone, and its id may be another's
            os.kill(child, signal.SIGKILL)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
