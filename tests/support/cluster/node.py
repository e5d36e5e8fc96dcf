"""One node as in production: a nats-server of its own, a streaming server that uses it, and a disk for its data.

The nats-servers of all nodes are joined by routes. The streaming server has its data (`-dir`) and its log
(`-cluster_log_path`) on the node's disk; both survive restarts unless a fault takes them away.
"""

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.natsd.binary import find
from tests.support.cluster.call_faults import CallFaults
from tests.support.cluster.capabilities import faketime_library
from tests.support.cluster.disks import Disk
from tests.support.cluster.namespaces import Place
from tests.support.cluster.processes import LoggedProcess

REPOSITORY: Final = Path(__file__).resolve().parents[3]

NATS_READY_TEXT: Final = "Server is ready"
STARTED_TEXT: Final = "Message store is"
"""O208: the store was opened; a follower prints no later line of its start (O424)."""

SIGTERM_STATUS: Final = 143
"""O225: exit status of an orderly stop by SIGTERM."""

NATS_START_TIMEOUT_S: Final = 20.0
START_TIMEOUT_S: Final = 30.0

ROUTE_PING_S: Final = 2
"""A route that is silent for twice this many seconds is made anew: without it, TCP's growing pauses decide."""

DATA: Final = "data"
LOG: Final = "log"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What all nodes of a cluster share. Without `clustered` the one node is a standalone server."""

    cluster_id: str = "test-cluster"
    clustered: bool = True
    options: tuple[str, ...] = ()
    """Appended to the streaming server's command line."""
    is_clock_faked: bool = False
    """Whether the streaming servers get their wall clock from libfaketime."""


class Node:
    """A node's processes and files. `peers` are the places of all nodes, this one included."""

    def __init__(
        self,
        place: Place,
        peers: Sequence[Place],
        *,
        disk: Disk,
        directory: Path,
        settings: NodeSettings,
        changed: threading.Condition,
    ) -> None:
        self.name = place.node
        self.node_id = place.node
        """Option -cluster_node_id: the name, until disks are swapped."""
        self.place = place
        self.disk = disk
        self.settings = settings
        self.nats = LoggedProcess(f"nats-{self.name}", changed)
        self.server = LoggedProcess(f"server-{self.name}", changed)
        self.call_faults = CallFaults()
        self.is_damaged = False
        """Whether its files were tampered with: it may refuse to start then, and be replaced by an empty node."""
        self.kills = 0
        """Times it died without warning: kill -9 and power cuts."""
        self._peers = [peer for peer in peers if peer.node != self.name]
        self._names = [peer.node for peer in peers]
        self._nats_file = directory / f"nats-{self.name}.conf"
        self._clock_file = directory / f"clock-{self.name}"

    @property
    def data_directory(self) -> Path:
        """Option -dir."""
        return self.disk.path / DATA

    @property
    def log_directory(self) -> Path:
        """Option -cluster_log_path; the data directory of a standalone server, which has its journal there."""
        return self.disk.path / LOG if self.settings.clustered else self.data_directory

    @property
    def directories(self) -> tuple[Path, ...]:
        """Everything the node keeps."""
        return (self.data_directory, self.log_directory) if self.settings.clustered else (self.data_directory,)

    # ---- the nats-server

    def start_nats(self) -> None:
        """Returns when it accepts clients."""
        self._nats_file.write_text(self._nats_configuration())
        self.nats.spawn([*self.place.prefix, str(find()), "-c", str(self._nats_file)], directory=self._nats_file.parent)
        self.nats.wait_for_line(NATS_READY_TEXT, timeout_s=NATS_START_TIMEOUT_S)

    def _nats_configuration(self) -> str:
        place = self.place
        routes = "".join(f'    "nats://{peer.host}:{peer.route_port}"\n' for peer in self._peers)
        return (
            f'server_name: "{self.name}"\n'
            f'listen: "{place.host}:{place.client_port}"\n'
            "cluster {\n"
            f'  name: "{self.settings.cluster_id}"\n'
            f'  listen: "{place.host}:{place.route_port}"\n'
            f'  ping_interval: "{ROUTE_PING_S}s"\n'
            "  ping_max: 2\n"
            "  no_advertise: true\n"
            f"  routes: [\n{routes}  ]\n"
            "}\n"
        )

    # ---- the streaming server

    def spawn(self) -> None:
        """Starts the streaming server without waiting."""
        self.server.spawn(self._command(), environment=self._environment(), directory=REPOSITORY)
        if self.is_damaged:
            self.server.expect_end()

    def start(self) -> None:
        """Starts the streaming server; returns when it has opened its store. Raises ProcessWaitError."""
        self.spawn()
        self.wait_started()

    def wait_started(self) -> None:
        """Returns when the store is open; raises ProcessWaitError."""
        self.server.wait_for_line(STARTED_TEXT, timeout_s=START_TIMEOUT_S)

    def kill(self) -> None:
        """Kill -9 of the streaming server."""
        self.call_faults.detach()
        if self.server.is_running:
            self.kills += 1
        self.server.kill()

    def _command(self) -> list[str]:
        settings = self.settings
        command = [*self.place.prefix, sys.executable, "-m", "server", "-a", "127.0.0.1", "-ns", self.place.url]
        command += ["-cid", settings.cluster_id, "-st", "FILE", "-dir", str(self.data_directory)]
        if settings.clustered:
            command += ["-clustered", "-cluster_node_id", self.node_id, "-cluster_peers", ",".join(self._names)]
            command += ["-cluster_log_path", str(self.log_directory), "-cluster_raft_logging"]
        return [*command, *settings.options]

    def _environment(self) -> dict[str, str] | None:
        if not self.settings.is_clock_faked:
            return None
        if not self._clock_file.exists():
            self.set_clock(0)
        return os.environ | {
            "LD_PRELOAD": faketime_library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock_file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, offset_s: int) -> None:
        """The wall clock of the streaming server is off by this much from now on; only with `is_clock_faked`."""
        assert self.settings.is_clock_faked
        temporary = self._clock_file.with_suffix(".new")
        temporary.write_text(f"{offset_s:+d}\n")
        temporary.replace(self._clock_file)  # libfaketime reads it at every look at the clock

    # ---- its files

    def empty(self) -> None:
        """The stopped streaming server has lost all it kept."""
        assert not self.server.is_running
        for directory in self.directories:
            shutil.rmtree(directory, ignore_errors=True)
        self.is_damaged = False

    def swap_directories(self, other: "Node") -> None:
        """The two stopped nodes have each other's files, and with them each other's node id (O405)."""
        assert not self.server.is_running
        assert not other.server.is_running
        for mine, theirs in zip(self.directories, other.directories, strict=True):
            aside = mine.with_name(f"{mine.name}-aside")
            shutil.move(mine, aside)
            shutil.move(theirs, mine)
            shutil.move(aside, theirs)
        self.node_id, other.node_id = other.node_id, self.node_id
        self.is_damaged, other.is_damaged = other.is_damaged, self.is_damaged

    def close(self) -> None:
        """Ends both processes and removes the disk."""
        self.call_faults.detach()
        self.server.kill()
        self.nats.kill()
        self.disk.close()
