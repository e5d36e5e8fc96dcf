"""Signals of a running process. Each test runs a process of its own and signals it by its pid."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import asyncio, logging, sys
from server import logs, signals

async def run():
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()
    signals.install(loop, stopped.set_result, logs.reopen)
    print("ready", flush=True)
    status = await stopped
    print("stopping", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    return status

logs.set_up(stan_debug=False, stan_trace=False, log_file=sys.argv[1], logtime=True)
status = asyncio.run(run())
print("loop closed", flush=True)
sys.stdin.readline()
sys.exit(status)
"""

ENDED_IN_TIME_S = 30


@contextmanager
def running(log_file: str = "") -> Iterator[subprocess.Popen[str]]:
    """The program above, ready for signals. It stops in two steps, each released by a line on its stdin."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, log_file],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            expect(process, "ready")
            yield process
        finally:
            process.kill()


def expect(process: subprocess.Popen[str], line: str) -> None:
    """Wait for a line on stdout; the end of the process is an empty one."""
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def log_line(process: subprocess.Popen[str]) -> str:
    """Wait for a log line on stderr and return it from its level on."""
    assert process.stderr is not None
    return process.stderr.readline().partition("[")[2].partition("[")[2].rstrip("\n")


def release(process: subprocess.Popen[str]) -> None:
    """Let the process take its next step."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_stop_signals_end_orderly_with_their_status(number: signal.Signals, status: int) -> None:
    """SIGINT ends with 0, SIGTERM with 143, both through an orderly stop (O225)."""
    with running() as process:
        process.send_signal(number)
        expect(process, "stopping")
        release(process)
        expect(process, "loop closed")
        release(process)
        assert process.wait(ENDED_IN_TIME_S) == status


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_stop_signal_is_harmless(second: signal.Signals) -> None:
    """While stopping, and even when the loop has ended, another stop signal changes nothing (O234)."""
    with running() as process:
        process.send_signal(signal.SIGTERM)
        expect(process, "stopping")
        process.send_signal(second)
        assert log_line(process) == f"INF] STREAM: {second.name} ignored: the server is stopping already"
        release(process)
        expect(process, "loop closed")
        process.send_signal(second)
        release(process)
        assert process.wait(ENDED_IN_TIME_S) == 143


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGUSR1, "INF] STREAM: File log re-open ignored, not a file logger"),
        (signal.SIGUSR2, "INF] STREAM: SIGUSR2 ignored"),
        (signal.SIGHUP, "WRN] STREAM: SIGHUP ignored: reload is not supported by this version"),
    ],
)
def test_other_signals_keep_the_server_running(number: signal.Signals, line: str) -> None:
    """Signals that Python would die of are answered with a log line, each time (O226-O228)."""
    with running() as process:
        for _ in range(2):
            process.send_signal(number)
            assert log_line(process) == line
        process.send_signal(signal.SIGINT)
        expect(process, "stopping")
        release(process)
        expect(process, "loop closed")
        release(process)
        assert process.wait(ENDED_IN_TIME_S) == 0


def test_log_file_is_reopened_by_name(tmp_path: Path) -> None:
    """After a rename SIGUSR1 begins a new file with the line that says so (O226)."""
    log_file = tmp_path / "server.log"
    with running(str(log_file)) as process:
        log_file.rename(tmp_path / "server.log.1")
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        expect(process, "stopping")
        assert log_file.read_text().endswith("[INF] STREAM: File log re-opened\n")
        assert (tmp_path / "server.log.1").read_text() == ""
