"""Runs the nodes of a cluster as an operator starts them: each with its own NATS server, joined by `-cluster` and `-routes`.

What a command line says of hosts, ports and directories is replaced by free loopback ports and a temporary directory.
"""

import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.cluster.leadership import LEADS_TEXT, LOST_TEXT
from tests.support.ports import HOST, free_port
from tests.support.server_process import START_TIMEOUT_S, ServerProcess

POLL_S = 0.01
"""Pause between two looks at the logs while waiting for a leader, seconds."""

_LEADERSHIP = re.compile(rf"{LEADS_TEXT} term=(\d+)|{LOST_TEXT}")
_ROUTE = re.compile(r"(?<=[/@])(?P<host>[\w.-]+):(?P<port>\d+)")


class RoutedNodes:
    """Nodes by id, with their command lines. `data` is the directory in these under which each node keeps everything.

    Addresses in `-cluster` and `-routes` must name nodes by their id; the one in a node's `-cluster` is its own.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], directory: Path, *, data: str) -> None:
        self.route_ports = {name: free_port() for name in commands}
        self.servers: dict[str, ServerProcess] = {}
        for name, words in commands.items():
            place = directory / name
            place.mkdir()
            local = [self._local(name, word, words[index - 1], data, place) for index, word in enumerate(words)]
            self.servers[name] = ServerProcess(directory=place, options=local)

    def __enter__(self) -> Self:
        try:
            for server in self.servers.values():
                server.spawn()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """Everything that all nodes have printed."""
        return "\n".join(f"--- {name}\n{server.log}" for name, server in self.servers.items())

    def kill(self) -> None:
        """Kill -9 of every node."""
        for server in self.servers.values():
            server.kill()

    def stop(self) -> list[int | None]:
        """SIGTERM of one node after the other; their exit statuses."""
        return [server.stop() for server in self.servers.values()]

    def wait_leader(self, *, after_term: int = 0, timeout_s: float = START_TIMEOUT_S) -> tuple[str, int]:
        """The running node that leads in a later term than `after_term`, and the term. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while True:
            for name, server in self.servers.items():
                term = _leads_in(server.log) if server.is_running else 0
                if term > after_term:
                    return name, term
            if time.monotonic() > deadline:
                raise TimeoutError(f"no leader after term {after_term} within {timeout_s} s\n{self.log}")
            pause.wait(POLL_S)

    def _local(self, name: str, word: str, before: str, data: str, place: Path) -> str:
        if before in ("-cluster", "-routes"):
            own = name if before == "-cluster" else ""
            return _ROUTE.sub(lambda match: f"{HOST}:{self.route_ports[own or match['host']]}", word)
        if before in ("-m", "-p"):
            return str(free_port())
        return str(place) + word.removeprefix(data) if word == data or word.startswith(f"{data}/") else word


def _leads_in(log: str) -> int:
    """The term in which a process with this log leads; 0 if it does not."""
    *_, last = [None, *_LEADERSHIP.finditer(log)]
    return int(last[1] or 0) if last is not None else 0
