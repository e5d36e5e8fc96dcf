"""Holds the options of a clustered server and checks them (O40-O50, O108, O400-O407, O416, O425, O435-O438).

A `ClusterOptions` object that exists is valid. What an option of the original cannot change here is said in a warning.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pydantic import SecretStr, field_validator, model_validator

from raft.constants import MEMBERS_MAX

from .checks import Frozen, check_count, check_positive_duration, check_subject, is_utf8
from .option_error import OptionError
from .units import MILLISECOND_NS, SECOND_NS, format_duration, quote

if TYPE_CHECKING:
    from raft.engine import Timing

LOG_CACHE_SIZE_DEFAULT: Final = 512
LOG_SNAPSHOTS_DEFAULT: Final = 2

NAME_MAX_BYTES: Final = 255
"""Longest cluster or node id of a clustered server, bytes of UTF-8: it names a directory (O416)."""

RESERVED_NODE_IDS: Final = ("join", "bootstrap", "node.add", "node.remove")
"""Their subjects below `_STAN.raft.<cluster id>.` mean something else (O403, O408, O430)."""

SECRET_MAX_BYTES: Final = 1024
"""Longest cluster secret, bytes of UTF-8."""

_QUORUM_SILENCE_MIN_NS: Final = 2 * SECOND_NS
"""How long a leader keeps its role without a majority, at least: it serves no longer than its lease anyway."""

_NAME_ALLOWED: Final = f"at most {NAME_MAX_BYTES} bytes without slashes"


class ClusterOptions(Frozen):
    """What an operator decided about the cluster. Construction raises OptionError when a value cannot be used."""

    node_id: str = ""
    """Counts only if none is stored; empty = a random one (O405)."""
    bootstrap: bool = False
    peers: tuple[str, ...] = ()
    """Node ids as given, each once; this node's own may be among them, see `peers_of`."""
    log_path: str = ""
    """Directory of the replication log; empty = the default, see `log_path_of`."""
    log_cache_size: int = LOG_CACHE_SIZE_DEFAULT
    log_snapshots: int = LOG_SNAPSHOTS_DEFAULT
    trailing_logs: int = 10240
    """Entries kept behind what the store has durably, so that a slightly late follower needs no snapshot (O419)."""
    sync: bool = True
    """Whether the journal is durable before anything is acknowledged (O418)."""
    raft_logging: bool = False
    allow_add_remove_node: bool = False
    proceed_on_restore_failure: bool = False
    secret: SecretStr = SecretStr("")
    """What the nodes of the cluster prove to know; empty = none given."""
    raft_heartbeat_timeout_ns: int = 600 * MILLISECOND_NS
    raft_election_timeout_ns: int = 800 * MILLISECOND_NS
    raft_lease_timeout_ns: int = 500 * MILLISECOND_NS
    raft_commit_timeout_ns: int = 150 * MILLISECOND_NS

    @field_validator("peers", mode="after")
    @classmethod
    def _known_once(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        for peer in peers:
            _check_node_id(peer, "--cluster_peers")
        return tuple(dict.fromkeys(peers))

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.node_id:
            _check_node_id(self.node_id, "--cluster_node_id")
        others = len(self.peers_of(self.node_id))
        if others >= MEMBERS_MAX:
            allowed = f"at most {MEMBERS_MAX - 1} besides this node"
            raise OptionError(
                f"option --cluster_peers must be {allowed}, got {others}",
                option="--cluster_peers",
                value=others,
                allowed=allowed,
            )
        check_count("--cluster_log_snapshots", self.log_snapshots, 1)
        check_count("--cluster_trailing_logs", self.trailing_logs, 0)
        secret = self.secret.get_secret_value()
        if not is_utf8(secret) or len(secret.encode()) > SECRET_MAX_BYTES:
            allowed = f"at most {SECRET_MAX_BYTES} bytes of UTF-8"
            raise OptionError(
                f"cluster secret must be {allowed}",
                option="--cluster_secret_file",
                value="[REDACTED]",
                allowed=allowed,
            )
        self._check_timeouts()
        return self

    def _check_timeouts(self) -> None:
        """What fail-over relies on: several heartbeats per election timeout, and a lease that ends before it (O435-O437)."""
        heartbeat, election = self.raft_heartbeat_timeout_ns, self.raft_election_timeout_ns
        lease, commit = self.raft_lease_timeout_ns, self.raft_commit_timeout_ns
        for key, value_ns in (
            ("raft_heartbeat_timeout", heartbeat),
            ("raft_election_timeout", election),
            ("raft_lease_timeout", lease),
            ("raft_commit_timeout", commit),
        ):
            check_positive_duration(key, value_ns)
        election_min = min(heartbeat, election)
        shorter = f"the shorter of raft_heartbeat_timeout and raft_election_timeout, {format_duration(election_min)}"
        if 3 * commit >= election_min:
            allowed = f"less than a third of {shorter}"
            raise _timeout_error("raft_commit_timeout", commit, allowed)
        if not commit < lease < election_min:
            allowed = f"more than raft_commit_timeout, {format_duration(commit)}, and less than {shorter}"
            raise _timeout_error("raft_lease_timeout", lease, allowed)

    def peers_of(self, node_id: str) -> tuple[str, ...]:
        """The peers of the node that goes by `node_id`: all but itself (O406)."""
        return tuple(peer for peer in self.peers if peer != node_id)

    def log_path_of(self, cluster_id: str, node_id: str) -> Path:
        """Where the logs of that node lie, each below the name of its cluster (O44, O416)."""
        return Path(self.log_path) if self.log_path else Path(cluster_id) / node_id

    def timing(self) -> "Timing":
        """The timeouts as the engine takes them (O435-O437)."""
        from raft.engine import Timing  # noqa: PLC0415  help and version must not wait for the engine to be imported

        election_min_ns, beyond_ns = sorted((self.raft_heartbeat_timeout_ns, self.raft_election_timeout_ns))
        election_max_ns = election_min_ns + beyond_ns
        return Timing(
            election_min_s=election_min_ns / SECOND_NS,
            election_max_s=election_max_ns / SECOND_NS,
            heartbeat_s=self.raft_commit_timeout_ns / SECOND_NS,
            lease_s=self.raft_lease_timeout_ns / SECOND_NS,
            # With long timeouts, giving up the role earlier than others elect would only prolong the outage.
            quorum_silence_s=max(_QUORUM_SILENCE_MIN_NS, election_max_ns) / SECOND_NS,
        )

    def warnings(self) -> tuple[str, ...]:
        """What the operator should know: one line each."""
        no_effect = (
            ("--cluster_log_cache_size", self.log_cache_size != LOG_CACHE_SIZE_DEFAULT, _CACHE_REASON),
            ("--cluster_log_snapshots", self.log_snapshots != LOG_SNAPSHOTS_DEFAULT, _SNAPSHOTS_REASON),
            ("--cluster_proceed_on_restore_failure", self.proceed_on_restore_failure, _PROCEED_REASON),
        )
        commas = [_COMMA_WARNING] if any("," in peer for peer in self.peers) else []
        return (*commas, *(f"Option {name} has no effect: {why}" for name, is_given, why in no_effect if is_given))


_COMMA_WARNING: Final = "Peer name contains ',' make sure you provided an array of peer names, not a string with commas"
"""Exact text. Source: O407."""

_CACHE_REASON: Final = "exactly the log entries that --cluster_trailing_logs asks for are kept in memory"
_SNAPSHOTS_REASON: Final = "snapshots are made on demand and none is kept"
_PROCEED_REASON: Final = "an incomplete channel is never served"


def check_cluster_id(cluster_id: str) -> None:
    """A clustered server's, which is fit for subjects already, names directories as well (O416). Raises OptionError."""
    _check_directory_name(cluster_id, "cluster ID", "--cluster_id")


def _check_node_id(node_id: str, option: str) -> None:
    """It becomes part of subjects and the name of a directory."""
    check_subject(node_id, "node ID", option)
    _check_directory_name(node_id, "node ID", option)
    if node_id in RESERVED_NODE_IDS:
        raise OptionError(
            f"invalid node ID {quote(node_id)}: the name is reserved",
            option=option,
            value=node_id,
            allowed=f"any but {', '.join(RESERVED_NODE_IDS)}",
        )


def _check_directory_name(name: str, kind: str, option: str) -> None:
    if "/" in name or len(name.encode()) > NAME_MAX_BYTES:
        raise OptionError(
            f"invalid {kind} {quote(name)}: it names a directory and must be {_NAME_ALLOWED}",
            option=option,
            value=name,
            allowed=_NAME_ALLOWED,
        )


def _timeout_error(key: str, value_ns: int, allowed: str) -> OptionError:
    shown = format_duration(value_ns)
    return OptionError(f"{key} must be {allowed}, got {shown}", option=key, value=shown, allowed=allowed)
