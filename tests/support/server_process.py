"""Runs our server as a real process on free ports: start, kill -9, restart on the same directory, orderly stop."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from server.delivery.watchdog import SILENT_TEXT
from tests.support.log_reader import LogReader
from tests.support.ports import HOST, free_port, wait_served

READY_TEXT = "Streaming Server is ready"
"""O211: the line at the end of a start."""

SIGTERM_STATUS = 143
"""O225: exit status of an orderly stop by SIGTERM."""

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
REPOSITORY = Path(__file__).resolve().parents[2]

StoreType = Literal["FILE", "MEMORY"]


class ServerProcess:
    """One server; cluster id, directory and ports stay the same over restarts.

    Without `nats_url` the server starts its own nats-server on `port`; with it (option -ns) it uses that one.
    The directory is a temporary one, removed at the end, unless given. `options` are appended to the command line.
    """

    def __init__(
        self,
        *,
        store: StoreType = "FILE",
        directory: Path | None = None,
        nats_url: str | None = None,
        cluster_id: str = "test-cluster",
        monitoring: bool = False,
        options: Sequence[str] = (),
        command: Sequence[str] = (sys.executable, "-m", "server"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._owns_directory = directory is None
        self.directory = directory if directory is not None else Path(tempfile.mkdtemp(prefix="streaming-test-"))
        self.store = store
        self.nats_url = nats_url
        self.cluster_id = cluster_id
        self.port = free_port()
        self.monitoring_port = free_port() if monitoring else None
        self.options = tuple(options)
        self.command = tuple(command)
        self.environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._log: LogReader | None = None
        self._earlier_logs: list[str] = []

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.remove()

    @property
    def url(self) -> str:
        """The URL at which clients reach the NATS server in use."""
        return self.nats_url if self.nats_url is not None else f"nats://{HOST}:{self.port}"

    @property
    def monitoring_url(self) -> str:
        """Root of the monitoring endpoints; only with `monitoring`."""
        assert self.monitoring_port is not None
        return f"http://{HOST}:{self.monitoring_port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives; False too after it ended by itself."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything printed, by the processes before a restart too."""
        current = self._log.text if self._log is not None else ""
        return "\n".join([*self._earlier_logs, current])

    def wait_for_log(self, text: str, *, timeout_s: float = START_TIMEOUT_S) -> str:
        """The first line of the current process with `text`; raises LogWaitError at the deadline."""
        assert self._log is not None
        return self._log.wait_for(text, timeout_s=timeout_s)

    def start(self) -> None:
        """Starts the process and returns when it is ready; raises LogWaitError with its output if it is not in time."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Starts the process without waiting."""
        assert self._process is None
        arguments = ["-a", HOST, "-p", str(self.port), "-cid", self.cluster_id, "-st", self.store]
        if self.store == "FILE":
            arguments += ["-dir", str(self.directory)]
        if self.nats_url is not None:
            arguments += ["-ns", self.nats_url]
        if self.monitoring_port is not None:
            arguments += ["-m", str(self.monitoring_port)]
        self._process = subprocess.Popen(
            [*self.command, *arguments, *self.options],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        self._log = LogReader(self._process.stdout)

    def wait_ready(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Waits for the ready line; a process that does not print it in time is killed."""
        assert self._log is not None
        try:
            self._log.wait_for(READY_TEXT, timeout_s=timeout_s)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill -9; returns when the process is gone and its nats-server has left the port (O119)."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        if self.nats_url is None:
            wait_served(self.port, served=False, timeout_s=STOP_TIMEOUT_S)
        self._finish()

    def stop(self) -> int | None:
        """SIGTERM; the exit status (SIGTERM_STATUS if in order), None when it was not running. Raises TimeoutExpired (after a kill) if it hangs."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._finish()
        return status

    def restart(self) -> None:
        """Kill -9, then a start on the same directory and ports."""
        self.kill()
        self.start()

    def remove(self) -> None:
        """Removes the directory if it is the temporary one of this object."""
        assert self._process is None
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _finish(self) -> None:
        """Keeps the log of the ended process; its child may hold the pipe a moment longer, hence the bounded join."""
        assert self._log is not None
        self._log.join(STOP_TIMEOUT_S)
        text = self._log.text
        self._earlier_logs.append(text)
        self._log = None
        self._process = None
        assert SILENT_TEXT not in text, text
