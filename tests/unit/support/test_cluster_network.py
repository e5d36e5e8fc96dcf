"""A cut really cuts, and heals; nothing of a network stays behind, not even after a crash of its maker."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.natsd.binary import find
from tests.support.cluster import capabilities, namespaces
from tests.support.cluster.capabilities import Capability
from tests.support.cluster.commands import NAME_PREFIX, CommandError, run
from tests.support.cluster.link_faults import FIREWALLS, LinkFaults
from tests.support.cluster.namespaces import CLIENTS, NAMESPACE_DIRECTORY, Network, entering, remove_leftovers

MISSING = capabilities.missing().get(Capability.NAMESPACES)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"network namespaces: {MISSING}")

needs_firewall = pytest.mark.skipif(
    Capability.FIREWALL in capabilities.missing(), reason=f"{capabilities.missing().get(Capability.FIREWALL)}"
)
needs_slow_links = pytest.mark.skipif(
    Capability.SLOW_LINKS in capabilities.missing(), reason=f"{capabilities.missing().get(Capability.SLOW_LINKS)}"
)

CONNECT = """
import socket, sys, time
from tests.support.cluster.namespaces import enter_namespace
enter_namespace(sys.argv[1])
try:
    connection = socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=0.5)
    connection.settimeout(0.5)
    print("reached" if connection.recv(5) == b"INFO " else "strange")
except TimeoutError:
    print("silence")
except OSError as error:
    print(error.strerror or type(error).__name__)
"""
"""Connects from a namespace to a nats-server and tells what came of it."""

SEND_100 = """
import socket, sys
from tests.support.cluster.namespaces import enter_namespace
enter_namespace(sys.argv[2])
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind((sys.argv[3], 5000))
enter_namespace(sys.argv[1])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(100):
    sender.sendto(b"x", (sys.argv[3], 5000))
receiver.settimeout(0.5)
count = 0
try:
    while receiver.recv(1):
        count += 1
except TimeoutError:
    print(count)
"""
"""Sends 100 packets from one namespace to another and tells how many came: a socket stays where it was made."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Two nodes; a nats-server runs at the second one."""
    with Network(["a", "b"]) as made:
        place = made.places["b"]
        command = [*place.prefix, str(find()), "-a", place.host, "-p", str(place.client_port)]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        with server.stderr:
            assert any("Server is ready" in line for line in server.stderr)
            try:
                yield made
            finally:
                server.kill()
                server.wait()


@pytest.fixture(params=sorted(FIREWALLS))
def links(request: pytest.FixtureRequest, network: Network) -> Iterator[LinkFaults]:
    """The faults by each packet filter that works here."""
    if capabilities.missing().get(Capability.FIREWALL) or not _works(request.param):
        pytest.skip(f"{request.param} does not work here")
    faults = LinkFaults(network, request.param)
    yield faults
    faults.heal()


def _works(program: str) -> bool:
    try:
        run(program, "--version")
    except CommandError:
        return False
    return True


def attempt(network: Network, source: str, target: str = "b") -> str:
    """What a connection from one node to the nats-server of the other comes to."""
    arguments = [network.namespace_of(source), network.addresses[target], str(network.places[target].client_port)]
    return run(sys.executable, "-c", CONNECT, *arguments).strip()


def test_every_node_and_the_clients_reach_a_server(network: Network) -> None:
    """Without faults the network is whole, and nothing of it is on the host."""
    assert [attempt(network, source) for source in ("a", "b", CLIENTS)] == ["reached"] * 3
    assert network.addresses["b"] not in run("ip", "addr")


@pytest.mark.parametrize(
    ("break_link", "expected"),
    [
        (lambda links: links.cut("a", "b"), {"silence"}),
        (lambda links: links.cut_one_way("a", "b"), {"silence"}),
        (lambda links: links.cut_one_way("b", "a"), {"silence"}),
        (lambda links: links.reset("a", "b"), {"Connection refused"}),
    ],
    ids=["cut", "there", "back", "reset"],
)
def test_broken_link_keeps_one_out_until_healed(
    network: Network, links: LinkFaults, break_link: Callable[[LinkFaults], None], expected: set[str]
) -> None:
    """F4, F5, F7: the other node cannot be reached, clients still can, and after healing all is as before."""
    break_link(links)
    assert attempt(network, "a") in expected
    assert attempt(network, CLIENTS) == "reached"
    links.heal()
    assert attempt(network, "a") == "reached"


@needs_firewall
def test_blackhole_route_fails_at_once(network: Network) -> None:
    """F4: no route, which a program is told, unlike a cut."""
    links = LinkFaults(network)
    links.blackhole("a", "b")
    assert attempt(network, "a") not in {"reached", "silence"}
    assert attempt(network, CLIENTS) == "reached"
    links.heal()
    assert attempt(network, "a") == "reached"


def test_lossy_link_loses_some(network: Network, links: LinkFaults) -> None:
    """F6: of many packets some arrive and some do not."""
    links.lose("a", "b", 0.5)
    arguments = [network.namespace_of("a"), network.namespace_of("b"), network.addresses["b"]]
    received = int(run(sys.executable, "-c", SEND_100, *arguments))
    assert 1 <= received <= 99


@needs_slow_links
@needs_firewall
def test_slow_link_is_shaped_until_healed(network: Network) -> None:
    """F6: both ends of the node's link have a rate, and none after healing."""
    links = LinkFaults(network)
    links.slow("b", 500)
    ends = [(network.namespace_of("b"), "eth0"), (network.clients_namespace, "to-b")]
    assert all("rate 500Kbit" in run(*entering(name), "tc", "qdisc", "show", "dev", device) for name, device in ends)
    links.heal()
    assert not any("tbf" in run(*entering(name), "tc", "qdisc", "show", "dev", device) for name, device in ends)


def test_network_of_a_killed_maker_is_removed() -> None:
    """A run that ended by kill -9 leaves names with its pid; the next one removes them and what runs in them."""
    script = (
        "import os, signal, subprocess\n"
        "from tests.support.cluster.namespaces import Network\n"
        "made = Network(['a'])\n"
        "left = subprocess.Popen([*made.places['a'].prefix, 'sleep', '600'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(made.clients_namespace, made.places['a'].namespace, left.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    maker = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    clients, node, left = maker.stdout.split()
    remove_leftovers()
    assert not (NAMESPACE_DIRECTORY / clients).exists()
    assert not (NAMESPACE_DIRECTORY / node).exists()
    state = Path(f"/proc/{left}/stat")
    assert not state.exists() or state.read_text().split()[2] in {"Z", "X"}


def test_namespace_that_is_gone_already_is_no_error() -> None:
    """Two runs may find the same leftover."""
    namespaces.remove_namespace(f"{NAME_PREFIX}-1-gone")


def test_network_in_use_is_no_leftover(network: Network) -> None:
    """Removing leftovers touches nothing whose maker lives."""
    assert network.clients_namespace not in remove_leftovers()
    assert attempt(network, "a") == "reached"


def test_only_own_names_are_removed() -> None:
    """A name of somebody else is refused by the remover."""
    with pytest.raises(AssertionError):
        namespaces.remove_namespace("somebody-1-else")
