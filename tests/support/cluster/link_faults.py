"""Breaks links between namespaces in all the ways a network has: silence, refusal, no route, loss, too little room.

Every fault stays until `heal`, which takes all of them back. Each is made on the receiving side (INPUT), so that one
direction can be broken alone.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from tests.support.cluster import capabilities
from tests.support.cluster.commands import run
from tests.support.cluster.namespaces import DEVICE, Network, entering

TABLE: Final = "inet faults"
CHAIN: Final = f"add table {TABLE}; add chain {TABLE} input {{ type filter hook input priority 0; }}; "
"""nftables: adding what exists is no error."""

PARTS: Final = 1000
"""Probabilities are rounded to a part of this many."""


class Firewall(Protocol):
    """What a packet filter must be able to do in one namespace, for packets that come from one address."""

    def drop(self, namespace: str, source: str) -> None:
        """They vanish."""

    def reset(self, namespace: str, source: str) -> None:
        """TCP connections are reset at the first packet. Resets pass: the other side's rule sends them."""

    def lose(self, namespace: str, source: str, probability: float) -> None:
        """Each vanishes with this probability."""

    def clear(self, namespace: str) -> None:
        """No rule is left."""


class NftFirewall:
    """Packet filter by `nft`."""

    def drop(self, namespace: str, source: str) -> None:
        """See Firewall."""
        self._add(namespace, f"ip saddr {source} drop")

    def reset(self, namespace: str, source: str) -> None:
        """See Firewall."""
        self._add(namespace, f"ip saddr {source} tcp flags & rst == 0 reject with tcp reset")

    def lose(self, namespace: str, source: str, probability: float) -> None:
        """See Firewall."""
        self._add(namespace, f"ip saddr {source} numgen random mod {PARTS} < {round(probability * PARTS)} drop")

    def clear(self, namespace: str) -> None:
        """See Firewall."""
        _nft(namespace, f"add table {TABLE}; delete table {TABLE}")

    def _add(self, namespace: str, rule: str) -> None:
        _nft(namespace, f"{CHAIN}add rule {TABLE} input {rule}")


class IptablesFirewall:
    """Packet filter by `iptables`."""

    def drop(self, namespace: str, source: str) -> None:
        """See Firewall."""
        self._add(namespace, "-s", source, "-j", "DROP")

    def reset(self, namespace: str, source: str) -> None:
        """See Firewall."""
        others = ("-p", "tcp", "!", "--tcp-flags", "RST", "RST")
        self._add(namespace, "-s", source, *others, "-j", "REJECT", "--reject-with", "tcp-reset")

    def lose(self, namespace: str, source: str, probability: float) -> None:
        """See Firewall."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", str(round(probability * PARTS) / PARTS))
        self._add(namespace, "-s", source, *chance, "-j", "DROP")

    def clear(self, namespace: str) -> None:
        """See Firewall."""
        run(*entering(namespace), "iptables", "-w", "-F", "INPUT")

    def _add(self, namespace: str, *rule: str) -> None:
        run(*entering(namespace), "iptables", "-w", "-A", "INPUT", *rule)


def _nft(namespace: str, script: str) -> None:
    run(*entering(namespace), "nft", "-f", "-", stdin=script)


FIREWALLS: Final[dict[str, Callable[[], Firewall]]] = {"nft": NftFirewall, "iptables": IptablesFirewall}


class LinkFaults:
    """The faults of one network. Ends of a link are node names, or `CLIENTS`.

    `firewall` is `nft` or `iptables`, by default the one that works here; without any, those faults raise KeyError.
    """

    def __init__(self, network: Network, firewall: str = "") -> None:
        self._network = network
        self._firewall = FIREWALLS[firewall or capabilities.firewall()]()
        self._filtered: set[str] = set()
        self._routes: set[tuple[str, str]] = set()
        self._shaped: set[tuple[str, str]] = set()

    def cut(self, one: str, other: str) -> None:
        """Packets vanish in both directions: connections stay open, nobody is told."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, source: str, target: str) -> None:
        """What `source` sends does not reach `target`; the other direction works."""
        self._firewall.drop(*self._filter(source, target))

    def reset(self, one: str, other: str) -> None:
        """Every connection between the two is reset, and new ones are refused, until healed."""
        self._firewall.reset(*self._filter(one, other))
        self._firewall.reset(*self._filter(other, one))

    def lose(self, one: str, other: str, probability: float) -> None:
        """Each packet between the two is lost with this probability."""
        assert 0 < probability < 1, probability
        self._firewall.lose(*self._filter(one, other), probability)
        self._firewall.lose(*self._filter(other, one), probability)

    def blackhole(self, one: str, other: str) -> None:
        """Neither side has a route to the other: sending fails at once."""
        for source, target in ((one, other), (other, one)):
            namespace, address = self._network.namespace_of(source), self._network.addresses[target]
            if (namespace, address) not in self._routes:
                run("ip", "-n", namespace, "route", "add", "blackhole", f"{address}/32")
                self._routes.add((namespace, address))

    def slow(self, node: str, kbit_per_s: int) -> None:
        """A node's link has this rate in both directions, with a short queue: what does not fit is dropped."""
        self._shape(node, "tbf", "rate", f"{kbit_per_s}kbit", "burst", "16kb", "latency", "200ms")

    def delay(self, node: str, delay_ms: int, jitter_ms: int) -> None:
        """Every packet of a node's link comes later; only where the kernel has netem."""
        self._shape(node, "netem", "delay", f"{delay_ms}ms", f"{jitter_ms}ms")

    def isolate(self, node: str, others: Iterable[str], break_link: Callable[[str, str], None]) -> None:
        """Breaks the links of a node to each of the others by the given fault."""
        for other in others:
            break_link(node, other)

    def heal(self) -> None:
        """Takes back every fault; nothing happens when there is none."""
        for namespace in self._filtered:
            self._firewall.clear(namespace)
        for namespace, address in self._routes:
            run("ip", "-n", namespace, "route", "del", "blackhole", f"{address}/32")
        for namespace, device in self._shaped:
            run(*entering(namespace), "tc", "qdisc", "del", "dev", device, "root")
        self._filtered.clear()
        self._routes.clear()
        self._shaped.clear()

    def _filter(self, source: str, target: str) -> tuple[str, str]:
        """The receiving namespace and the sender's address."""
        namespace = self._network.namespace_of(target)
        self._filtered.add(namespace)
        return namespace, self._network.addresses[source]

    def _shape(self, node: str, *discipline: str) -> None:
        """Both ends of the veth pair, each for what it sends."""
        ends = (
            (self._network.namespace_of(node), DEVICE),
            (self._network.clients_namespace, self._network.port_of(node)),
        )
        for namespace, device in ends:
            run(*entering(namespace), "tc", "qdisc", "replace", "dev", device, "root", *discipline)
            self._shaped.add((namespace, device))
