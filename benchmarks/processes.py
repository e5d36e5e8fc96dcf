"""Builds and runs the C programs and reads what a process has used: CPU seconds and memory."""

import json
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

HERE: Final = Path(__file__).resolve().parent
OUT: Final = HERE / "out"
CPUCLOCK_SCHED: Final = 2

GENERATOR_TIMEOUT_S: Final = 1800
SETTLE_STEP_S: Final = 0.25
SETTLE_CPU_S: Final = 0.02
"""CPU time per step up to which a process counts as quiet, seconds."""
SETTLE_MAX_S: Final = 15.0


def build() -> None:
    """Compiles the generator and the responder into `out/`; raises CalledProcessError with gcc's text."""
    OUT.mkdir(exist_ok=True)
    for program, parts in (("generator", ["session"]), ("crowd", ["session"]), ("responder", [])):
        sources = [str(HERE / f"{name}.c") for name in (program, *parts, "wire")]
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", str(OUT / program), *sources], check=True)


def cpu_s(pid: int) -> float:
    """User and system seconds of one process with all its threads, its children excluded; resolution a nanosecond.

    The kernel's clock of the process's CPU time, see clock_getcpuclockid(3): /proc/PID/stat has the same in ticks of 10 ms.
    """
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes of a process: all of it, and the part that is not backed by files (no mapped store pages)."""

    resident_bytes: int
    anonymous_bytes: int


def memory(pid: int) -> Memory:
    """Resident memory right now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return Memory(int(values["VmRSS"].split()[0]) * 1024, int(values["RssAnon"].split()[0]) * 1024)


def settle(pid: int) -> None:
    """Waits until the process is quiet (what it writes behind is done), at most SETTLE_MAX_S."""
    deadline = time.monotonic() + SETTLE_MAX_S
    before = cpu_s(pid)
    while time.monotonic() < deadline:
        time.sleep(SETTLE_STEP_S)
        now = cpu_s(pid)
        if now - before <= SETTLE_CPU_S:
            return
        before = now


class GeneratorError(Exception):
    """A program could not run; the text has its command and what it printed."""


class LoadProgram:
    """One of the C programs that put load on a server: registered, and waiting for `go`."""

    def __init__(self, program: str, *words: str, **options: object) -> None:
        self.command = [str(OUT / program), *words]
        for name, value in options.items():
            self.command.append(f"--{name.replace('_', '-')}")
            if value is not True:
                self.command.append(str(value))
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._watchdog = threading.Timer(GENERATOR_TIMEOUT_S, self._process.kill)
        self._watchdog.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Returns at its next "ready"; a subscriber without acks says it a second time when it has received all."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != "ready\n":
            _, errors = self._process.communicate()
            self._watchdog.cancel()
            raise GeneratorError(f"{' '.join(self.command)}: {line}{errors}")

    def go(self) -> None:
        """Lets it pass its barrier."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Its line of JSON; `status` 0 means every answer came and none was an error."""
        output, errors = self._process.communicate()
        self._watchdog.cancel()
        if not output:
            raise GeneratorError(f"{' '.join(self.command)}: status {self._process.returncode}: {errors}")
        return {**json.loads(output.splitlines()[-1]), "status": self._process.returncode}


class Generator(LoadProgram):
    """A publisher or subscriber: `generator.c`."""

    def __init__(self, mode: str, **options: object) -> None:
        super().__init__("generator", mode, "--barrier", **options)


class Crowd(LoadProgram):
    """Many idle clients and subscriptions: `crowd.c`. As a context manager it closes them at the end."""

    def __init__(self, **options: object) -> None:
        super().__init__("crowd", **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> dict[str, Any]:
        """Closes the clients; raises GeneratorError if the server refused a request of theirs."""
        self.go()
        result = self.result()
        if result["status"]:
            raise GeneratorError(f"{' '.join(self.command)}: {result['errors']}")
        return result


class Responder:
    """The trivial responder on its own cluster id."""

    def __init__(self, port: int, cluster_id: str) -> None:
        self._process = subprocess.Popen(
            [str(OUT / "responder"), str(port), cluster_id], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise GeneratorError("the responder did not start")

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.communicate()
