"""Runs the nats-server child: starts it, relays its output, starts it again when it dies, stops it (O110-O120).

Deliberate difference from O118: the child's death does not end us. Clients and our own connection survive the restart
of a NATS server, so the child is started again on the port it had, with growing pauses; only when that fails
`QUICK_FAILURES_MAX` times in a row, `on_fatal` is called.

Start it from the main thread: on Linux the child's death signal follows the thread that forked (O119).
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from server.clock import monotonic_ns
from server.errors import ChildError, ChildStartError

from . import launcher
from .backoff import Backoff
from .command import PORT_RANDOM, ChildConfig, arguments, config_text, join
from .output import Lines, parse
from .readiness import Ports, wait_ready

READY_TIMEOUT_S: Final = 10.0
"""Time until the child accepts clients, seconds. Source: O111."""

STOP_TIMEOUT_S: Final = 5.0
"""Time between SIGTERM and SIGKILL, seconds. The child has nothing to save."""

READ_BYTES: Final = 64 * 1024
CONFIG_MODE: Final = 0o600
OUTPUT_KEPT: Final = 20
"""Lines of a child that did not start that its error carries."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What monitoring shows. `pid` is 0 and `is_running` false between a death and the next start."""

    is_running: bool
    pid: int
    port: int
    http_port: int
    starts: int
    last_exit: str


@dataclass(slots=True)
class _Child:
    """One run of the program."""

    process: asyncio.subprocess.Process
    relay: asyncio.Task[None]
    pipe: int
    started_ns: int
    output: deque[str]

    async def ended(self) -> None:
        """Return when it is dead and everything it printed is relayed."""
        await self.process.wait()
        await asyncio.wait((self.relay,))

    def exit_text(self) -> str:
        """How it ended, for people."""
        status = self.process.returncode
        assert status is not None
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"exit status {status}"


class Supervisor:
    """The child with `config`. All methods belong to the event loop's thread.

    `on_line(level, text)` gets the child's output (O117), `on_exit(text)` each unexpected end and failed restart,
    `on_fatal(error)` is called once when restarting is given up; `stop` is still needed then.
    """

    def __init__(
        self,
        config: ChildConfig,
        *,
        program: Path,
        on_line: Callable[[str, str], None],
        on_exit: Callable[[str], None],
        on_fatal: Callable[[ChildError], None],
    ) -> None:
        self._config = config
        self._program = program
        self._on_line = on_line
        self._on_exit = on_exit
        self._on_fatal = on_fatal
        self._backoff = Backoff()
        self._directory: Path | None = None
        self._child: _Child | None = None
        self._ports = Ports(0)
        self._watcher: asyncio.Task[None] | None = None
        self._starts = 0
        self._last_exit = ""

    @property
    def port(self) -> int:
        """Port for clients. It stays the same over restarts, also when the operator asked for a random one."""
        return self._ports.client

    @property
    def http_port(self) -> int:
        """Port of the child's monitoring; 0 = none."""
        return self._ports.http

    @property
    def url(self) -> str:
        """URL under which we reach the child (O120), without login."""
        return f"nats://{join(self._config.connect_host, self.port)}"

    def statistics(self) -> Statistics:
        """A snapshot."""
        pid = self._child.process.pid if self._child is not None else 0
        return Statistics(self._child is not None, pid, self.port, self.http_port, self._starts, self._last_exit)

    async def start(self) -> None:
        """Start the child and return when it accepts clients.

        Raises ChildStartError with the text of O111; what the child said about it was relayed before (O116).
        """
        assert self._watcher is None, "start only once"
        self._directory = Path(tempfile.mkdtemp(prefix="nats-streaming-server-"))  # mode 0700
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="nats-server watcher")

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `STOP_TIMEOUT_S`; nothing is left of the child. Calling it again is harmless."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait((self._watcher,))
        if self._child is not None:
            await self._end(self._child)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _watch(self) -> None:
        """Task: start the child again whenever it ends. A bug in here is fatal, not silent."""
        try:
            while True:
                ran_ns = await self._until_exit()
                delay_ns = self._backoff.next_delay_ns(ran_ns)
                if delay_ns is None:
                    self._on_fatal(ChildError(f"nats-server on {self._config.address} cannot be kept running"))
                    return
                await asyncio.sleep(delay_ns / 1e9)
                try:
                    await self._launch()
                except ChildStartError as error:
                    self._on_exit(f"nats-server did not start again: {error}")
        except Exception as error:  # a task's top
            self._on_fatal(ChildError(f"watching nats-server failed: {type(error).__name__}: {error}"))
            raise

    async def _until_exit(self) -> int:
        """Wait for the child's end and report it. Returns how long it ran, ns; 0 when it is not running at all."""
        child = self._child
        if child is None:
            return 0
        await child.ended()
        self._forget(child)
        self._on_exit(f"nats-server ended unexpectedly: {self._last_exit}")
        return monotonic_ns() - child.started_ns

    async def _launch(self) -> None:
        """Start the program and wait until it is ready. Raises ChildStartError, and then it does not run."""
        assert self._directory is not None
        config_path = self._directory / "nats-server.conf"
        write_private(config_path, config_text(self._config, str(self._directory)))
        child = self._child = await self._spawn(arguments(str(config_path)))
        self._starts += 1
        ready = asyncio.ensure_future(wait_ready(self._directory, child.process.pid, self._config.connect_host))
        ended = asyncio.ensure_future(child.ended())
        try:
            await asyncio.wait((ready, ended), timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done() or ended.done():
                await self._end(child)
                raise ChildStartError(
                    f"unable to start a NATS Server on {self._config.address}",
                    host=self._config.host,
                    port=self._config.port,
                    output=child.output,
                )
            self._ports = ready.result()
        finally:
            for waiter in (ready, ended):
                waiter.cancel()
            config_path.unlink(missing_ok=True)  # read by now: no reason to keep secrets on disk
        self._fix_ports()

    def _fix_ports(self) -> None:
        """A restarted child must be found where clients know it."""
        if self._config.port == PORT_RANDOM:
            self._config = replace(self._config, port=self._ports.client)
        if self._config.http_port == PORT_RANDOM:
            self._config = replace(self._config, http_port=self._ports.http)

    async def _spawn(self, options: list[str]) -> _Child:
        theirs, ours = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(launcher.__file__), str(os.getpid()), str(theirs)),
                *(str(self._program), *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs,),
                start_new_session=True,  # Ctrl-C in the terminal reaches only us (O119)
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        output: deque[str] = deque(maxlen=OUTPUT_KEPT)
        assert process.stdout is not None
        relay = asyncio.get_running_loop().create_task(self._relay(process.stdout, output), name="nats-server output")
        return _Child(process, relay, ours, monotonic_ns(), output)

    async def _relay(self, stream: asyncio.StreamReader, output: deque[str]) -> None:
        """Task: hand on what the child prints, until its end."""
        lines = Lines()
        while data := await stream.read(READ_BYTES):
            for line in lines.feed(data):
                self._hand_on(line, output)
        for line in lines.end():
            self._hand_on(line, output)

    def _hand_on(self, line: str, output: deque[str]) -> None:
        level, text = parse(line)
        output.append(text)
        self._on_line(level, text)

    async def _end(self, child: _Child) -> None:
        """End the child, if it runs, and reap it."""
        with suppress(ProcessLookupError):
            child.process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.ended()
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.process.kill()
            await child.ended()
        self._forget(child)

    def _forget(self, child: _Child) -> None:
        self._last_exit = child.exit_text()
        os.close(child.pipe)
        self._child = None


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, CONFIG_MODE), "w", encoding="utf-8") as file:
        file.write(text)
