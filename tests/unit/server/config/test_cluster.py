"""Options of a clustered server and their checks."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from raft.constants import MEMBERS_MAX
from raft.engine import Timing
from server.config.cluster import ClusterOptions, check_cluster_id
from server.config.option_error import OptionError

MS = 1_000_000
SECOND = 1_000 * MS


def refusal(**fields: object) -> OptionError:
    """The refusal of these options."""
    with pytest.raises(OptionError) as caught:
        ClusterOptions.model_validate(fields)
    return caught.value


def timeouts(heartbeat: int, election: int, lease: int, commit: int) -> dict[str, object]:
    """The four timeouts, given in milliseconds."""
    return {
        "raft_heartbeat_timeout_ns": heartbeat * MS,
        "raft_election_timeout_ns": election * MS,
        "raft_lease_timeout_ns": lease * MS,
        "raft_commit_timeout_ns": commit * MS,
    }


def test_defaults_are_the_documented_ones() -> None:
    """O41-O50: as in the original, but the journal is synced (O418)."""
    options = ClusterOptions()
    assert (options.node_id, options.peers, options.log_path) == ("", (), "")
    assert (options.log_cache_size, options.log_snapshots, options.trailing_logs) == (512, 2, 10240)
    assert options.sync
    flags = (options.bootstrap, options.raft_logging, options.allow_add_remove_node, options.proceed_on_restore_failure)
    assert flags == (False, False, False, False)
    assert options.secret.get_secret_value() == ""
    assert options.warnings() == ()


@pytest.mark.parametrize("name", ["a", "node-1.eu", "été", "a,b", "joint", "node", "x" * 255, "é" * 127])
def test_usable_node_ids(name: str) -> None:
    """Whatever can be a part of a subject and the name of a directory is the operator's choice, for peers as well."""
    assert ClusterOptions(node_id=name, peers=(name, "z")).peers == (name, "z")


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "a\tb",
        "a\n",
        "a*",
        ">",
        "a..b",
        ".a",
        "a.",
        "..",
        "a\x00",
        "a\x7f",
        "\udcff",
        "a/b",
        "x" * 256,
        "é" * 128,
    ],
)
@pytest.mark.parametrize(("field", "option"), [("node_id", "--cluster_node_id"), ("peers", "--cluster_peers")])
def test_unusable_node_ids_are_refused(name: str, field: str, option: str) -> None:
    """Blanks, wildcards, empty tokens, slashes, more than 255 bytes, and what is not UTF-8; the option is named."""
    error = refusal(**{field: ("ok", name) if field == "peers" else name})
    assert error.text.startswith('invalid node ID "')
    assert (error.option, error.value) == (option, name)


@pytest.mark.parametrize("name", ["join", "bootstrap", "node.add", "node.remove"])
def test_reserved_node_ids_are_refused(name: str) -> None:
    """O403, O408, O430: their subjects mean something else."""
    assert refusal(node_id=name).text == f'invalid node ID "{name}": the name is reserved'
    assert refusal(peers=("a", name)).option == "--cluster_peers"


def test_empty_peer_is_refused() -> None:
    """An empty name stands for nobody, while an empty node id means that none was given."""
    assert refusal(peers=("a", "")).value == ""
    assert ClusterOptions(node_id="").node_id == ""


def test_own_id_is_no_peer() -> None:
    """O406: removed by the id the node really goes by, which may be a stored one (O405); each peer counts once."""
    options = ClusterOptions(node_id="a", peers=("c", "a", "b", "c"))
    assert options.peers == ("c", "a", "b")
    assert options.peers_of("a") == ("c", "b")
    assert options.peers_of("b") == ("c", "a")
    assert options.peers_of("x") == ("c", "a", "b")


def test_peers_are_bounded() -> None:
    """No more than a configuration can hold, this node included."""
    names = tuple(f"n{number}" for number in range(MEMBERS_MAX))
    assert ClusterOptions(node_id="n0", peers=names).peers == names
    assert (
        refusal(peers=names).text
        == f"option --cluster_peers must be at most {MEMBERS_MAX - 1} besides this node, got {MEMBERS_MAX}"
    )


def test_peer_with_a_comma_is_warned_about() -> None:
    """O407: the exact text, once; the server goes on with the peer as it is named."""
    options = ClusterOptions(peers=("a,b", "c,d"))
    assert options.warnings() == (
        "Peer name contains ',' make sure you provided an array of peer names, not a string with commas",
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"log_snapshots": 0}, "option --cluster_log_snapshots must be 1 or more, got 0"),
        ({"trailing_logs": -1}, "option --cluster_trailing_logs must be 0 or more, got -1"),
    ],
)
def test_counts_out_of_range_are_refused(fields: dict[str, object], text: str) -> None:
    """O46, O47: the text names option, value and what is allowed."""
    assert refusal(**fields).text == text


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"log_cache_size": -1}, "Option --cluster_log_cache_size has no effect: "),
        ({"log_snapshots": 3}, "Option --cluster_log_snapshots has no effect: "),
        ({"proceed_on_restore_failure": True}, "Option --cluster_proceed_on_restore_failure has no effect: "),
    ],
)
def test_options_without_effect_are_warned_about(fields: dict[str, object], start: str) -> None:
    """O45, O46, O427: nothing is ignored in silence; one line for each."""
    assert [text.startswith(start) for text in ClusterOptions.model_validate(fields).warnings()] == [True]


def test_secret_is_bounded_and_never_shown() -> None:
    """A secret has at most 1024 bytes of UTF-8; neither a refusal nor a representation shows it."""
    assert "hidden" not in repr(ClusterOptions.model_validate({"secret": "hidden"}))
    assert ClusterOptions.model_validate({"secret": "é" * 512}).secret.get_secret_value() == "é" * 512
    for secret in ("é" * 512 + "x", "x\udcff"):
        error = refusal(secret=secret)
        assert error.text == "cluster secret must be at most 1024 bytes of UTF-8"
        assert (error.option, error.value) == ("--cluster_secret_file", "[REDACTED]")


def test_log_path_is_below_the_working_directory_by_default() -> None:
    """O44, O416: cluster and node id name it, unless the operator does."""
    assert ClusterOptions().log_path_of("c", "n") == Path("c/n")
    assert ClusterOptions(log_path="/logs").log_path_of("c", "n") == Path("/logs")


def test_timing_is_the_engines_by_default() -> None:
    """O425: fail-over is faster here, and the defaults of options and engine are the same."""
    assert ClusterOptions().timing() == Timing()


def test_timeouts_reach_the_engine() -> None:
    """O435-O437: elections begin between the shorter, and the sum of both; lease and heartbeat are as given."""
    original = ClusterOptions.model_validate(timeouts(2000, 2000, 1000, 100)).timing()
    assert (original.election_min_s, original.election_max_s) == (2.0, 4.0)
    assert (original.lease_s, original.heartbeat_s) == (1.0, 0.1)
    one = ClusterOptions.model_validate(timeouts(5000, 700, 600, 200)).timing()
    other = ClusterOptions.model_validate(timeouts(700, 5000, 600, 200)).timing()
    assert one == other
    assert (one.election_min_s, one.election_max_s) == (0.7, 5.7)


def test_leader_keeps_its_role_as_long_as_an_election_takes() -> None:
    """With long timeouts a leader must not give up before others could elect another one."""
    assert ClusterOptions.model_validate(timeouts(600, 800, 500, 150)).timing().quorum_silence_s == 2.0
    assert ClusterOptions.model_validate(timeouts(9000, 20000, 8000, 150)).timing().quorum_silence_s == 29.0


SHORTER = "the shorter of raft_heartbeat_timeout and raft_election_timeout"


@pytest.mark.parametrize(
    ("fields", "key", "value", "text"),
    [
        (timeouts(0, 800, 500, 150), "raft_heartbeat_timeout", "0s", "option {} must be positive, got 0s"),
        (timeouts(600, -1, 500, 150), "raft_election_timeout", "-1ms", "option {} must be positive, got -1ms"),
        (timeouts(600, 800, 0, 150), "raft_lease_timeout", "0s", "option {} must be positive, got 0s"),
        (timeouts(600, 800, 500, 0), "raft_commit_timeout", "0s", "option {} must be positive, got 0s"),
        (
            timeouts(800, 600, 500, 200),
            "raft_commit_timeout",
            "200ms",
            f"{{}} must be less than a third of {SHORTER}, 600ms, got 200ms",
        ),
        (
            timeouts(600, 800, 600, 150),
            "raft_lease_timeout",
            "600ms",
            f"{{}} must be more than raft_commit_timeout, 150ms, and less than {SHORTER}, 600ms, got 600ms",
        ),
        (
            timeouts(1000, 600, 150, 150),
            "raft_lease_timeout",
            "150ms",
            f"{{}} must be more than raft_commit_timeout, 150ms, and less than {SHORTER}, 600ms, got 150ms",
        ),
    ],
)
def test_timeouts_that_contradict_each_other_are_refused(
    fields: dict[str, object], key: str, value: str, text: str
) -> None:
    """O435-O437: the text names the key, the value and what is allowed."""
    error = refusal(**fields)
    assert error.text == text.format(key)
    assert (error.option, error.value) == (key, value)


def test_narrowest_timeouts_are_accepted_by_the_engine() -> None:
    """What passes the checks here never fails in the engine."""
    assert ClusterOptions.model_validate(timeouts(600, 600, 599, 199)).timing().lease_s == 0.599
    assert ClusterOptions.model_validate(timeouts(600, 600, 200, 199)).timing().heartbeat_s == 0.199


def test_cluster_id_names_a_directory() -> None:
    """O416: a slash, or more than 255 bytes, would not do."""
    check_cluster_id("é" * 127)
    for name in ("a/b", "é" * 128):
        with pytest.raises(OptionError) as caught:
            check_cluster_id(name)
        assert caught.value.text.startswith(f'invalid cluster ID "{name}": it names a directory')
        assert caught.value.option == "--cluster_id"


def test_options_cannot_be_changed_or_invented() -> None:
    """Options are frozen, and a field that does not exist is a bug."""
    with pytest.raises(ValidationError):
        setattr(ClusterOptions(), "sync", False)  # noqa: B010  the assignment must reach run time
    with pytest.raises(ValidationError):
        ClusterOptions.model_validate({"no_such": 1})
