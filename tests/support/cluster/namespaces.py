"""Lays out a network of its own for each run: a bridge in one namespace, and one namespace per node behind a veth pair.

Nothing is visible on the host: no interface, no address, no open port. Names carry the pid of the maker, so that what
a crashed run left behind is found and removed by the next one.
"""

import ctypes
import itertools
import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.cluster.commands import NAME_PREFIX, TIMEOUT_S, CommandError, is_alive, maker_of, run
from tests.support.ports import HOST, free_port

NAMESPACE_DIRECTORY: Final = Path("/run/netns")
"""Where `ip netns` keeps its names."""

SUBNET: Final = "10.77.0"
"""First three numbers of the addresses; they exist only inside the namespaces."""

CLIENTS: Final = "clients"
"""Name of the bridge's namespace, from which clients reach every node."""

CLIENT_PORT: Final = 4222
ROUTE_PORT: Final = 6222
DEVICE: Final = "eth0"
"""Name of a node's interface."""

CLONE_NEWNET: Final = 0x40000000
"""Flag of setns: a network namespace. Source: sched.h."""

_runs = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node's processes run and how it is reached; `namespace` is empty when it is the host."""

    node: str
    namespace: str
    host: str
    client_port: int
    route_port: int

    @property
    def url(self) -> str:
        """The NATS URL for clients and for the node's own streaming server."""
        return f"nats://{self.host}:{self.client_port}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command to run it here. The command keeps the pid, and sees the host's mounts."""
        return entering(self.namespace)


class Loopback:
    """The network where namespaces are not available: all nodes on the host's loopback address, no link faults."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.places = {node: Place(node, "", HOST, free_port(), free_port()) for node in nodes}
        self.clients_namespace = ""

    def close(self) -> None:
        """Nothing was made."""


class Network:
    """The namespaces of one run, made by the constructor and removed by `close`, with every process still in them."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._base = f"{NAME_PREFIX}-{os.getpid()}-{next(_runs)}"
        self.clients_namespace = f"{self._base}-{CLIENTS}"
        self.places = {
            node: Place(node, f"{self._base}-{node}", f"{SUBNET}.{number}", CLIENT_PORT, ROUTE_PORT)
            for number, node in enumerate(nodes, start=1)
        }
        self.addresses = {CLIENTS: f"{SUBNET}.254"} | {node: place.host for node, place in self.places.items()}
        try:
            self._make_bridge()
            for place in self.places.values():
                self._make_node(place)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what still runs in the namespaces and removes them; their interfaces go with them."""
        for name in (*(place.namespace for place in self.places.values()), self.clients_namespace):
            remove_namespace(name)

    def namespace_of(self, node: str) -> str:
        """Of a node, or of the clients."""
        return self.clients_namespace if node == CLIENTS else self.places[node].namespace

    def port_of(self, node: str) -> str:
        """Name of the interface in the clients' namespace that leads to a node."""
        assert node in self.places, node
        return f"to-{node}"

    def _make_bridge(self) -> None:
        run("ip", "netns", "add", self.clients_namespace)
        inside = ("ip", "-n", self.clients_namespace)
        run(*inside, "link", "add", "bridge", "type", "bridge")
        run(*inside, "addr", "add", f"{self.addresses[CLIENTS]}/24", "dev", "bridge")
        run(*inside, "link", "set", "bridge", "up")
        run(*inside, "link", "set", "lo", "up")

    def _make_node(self, place: Place) -> None:
        port = self.port_of(place.node)
        run("ip", "netns", "add", place.namespace)
        bridge = ("ip", "-n", self.clients_namespace)
        pair = ("type", "veth", "peer", "name", DEVICE, "netns", place.namespace)
        run(*bridge, "link", "add", port, *pair)
        run(*bridge, "link", "set", port, "master", "bridge", "up")
        inside = ("ip", "-n", place.namespace)
        run(*inside, "addr", "add", f"{place.host}/24", "dev", DEVICE)
        run(*inside, "link", "set", DEVICE, "up")
        run(*inside, "link", "set", "lo", "up")


def entering(namespace: str) -> tuple[str, ...]:
    """What to put before a command to run it in a namespace. Not `ip netns exec`: it would copy the mounts."""
    return ("nsenter", f"--net={NAMESPACE_DIRECTORY / namespace}") if namespace else ()


def enter_namespace(namespace: str) -> None:
    """Moves the calling thread, and no other, into a namespace: the sockets it makes from now on are there."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(NAMESPACE_DIRECTORY / namespace, os.O_RDONLY)
    try:
        if library.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns: {namespace}")
    finally:
        os.close(descriptor)


def remove_namespace(name: str) -> None:
    """Kills the processes in a namespace of ours and removes it; a name that is not there is no error.

    Another run may be removing the same leftover at the same time: what it has done already is done.
    """
    assert maker_of(name) is not None, name
    path = NAMESPACE_DIRECTORY / name
    with suppress(CommandError):  # the name is there, the namespace is not: a crash between the two
        for pid in run("ip", "netns", "pids", name).split():
            if int(pid) != os.getpid():
                _kill(int(pid))
    try:
        run("ip", "netns", "del", name)
    except CommandError:
        if path.exists():
            raise


def _kill(pid: int) -> None:
    """Kill -9 of a process that need not be a child; returns when it has ended."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], TIMEOUT_S)
        finally:
            os.close(descriptor)


def remove_leftovers() -> list[str]:
    """Removes the namespaces whose maker is gone, with the processes in them; their names."""
    if not NAMESPACE_DIRECTORY.is_dir():
        return []
    gone = [
        entry.name
        for entry in NAMESPACE_DIRECTORY.iterdir()
        if (maker := maker_of(entry.name)) is not None and not is_alive(maker)
    ]
    for name in gone:
        remove_namespace(name)
    return gone
