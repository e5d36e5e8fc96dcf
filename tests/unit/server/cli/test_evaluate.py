"""From a parsed command line to options."""

from pathlib import Path

import pytest

from server.cli.evaluate import evaluate, is_asked
from server.cli.flag_table import FLAGS, HELP_TARGET, REFUSED
from server.cli.flags import Flag, FlagError, Kind, parse
from server.config.cluster import ClusterOptions
from server.config.model import Options
from server.config.option_error import OptionError
from server.config.route_urls import RouteAddress


def options(words: str, **environ: str) -> Options:
    """Options of a command line."""
    return evaluate(parse(words.split(), FLAGS).given, environ).options


def warnings(words: str) -> tuple[str, ...]:
    """Warnings of a command line."""
    return evaluate(parse(words.split(), FLAGS).given, {}).warnings


def refusal(words: str) -> str:
    """Text that refuses a command line."""
    with pytest.raises(OptionError) as caught:
        options(words)
    return str(caught.value)


def test_nothing_given_means_defaults() -> None:
    """An empty command line is valid and warns of nothing."""
    assert options("") == Options()
    assert warnings("") == ()


def test_every_option_reaches_its_field() -> None:
    """Each option sets its own field and no other (O20-O33, O77-O96)."""
    assert options(
        "-cid c -st file --dir d -a 127.0.0.1 -p 1 -m 2 -mc 3 -msu 4 -mm 5 -mb 6 -ma 7s -mi 8s -hbi 9s -hbt 10s -hbf 11"
        " -SD -SV -D -V -l log -T=false -P pid -user u -pass pw --replace_durable --clustered=false"
        " -cluster nats://0.0.0.0:6222 -routes nats://r1:6222,nats://r2:6223"
    ) == Options.model_validate(
        {
            "cluster_id": "c",
            "store": "FILE",
            "dir": "d",
            "host": "127.0.0.1",
            "port": 1,
            "http_port": 2,
            "limits": {
                "max_channels": 3,
                "max_subs": 4,
                "max_msgs": 5,
                "max_bytes": 6,
                "max_age_ns": 7 * 10**9,
                "max_inactivity_ns": 8 * 10**9,
            },
            "hb_interval_ns": 9 * 10**9,
            "hb_timeout_ns": 10 * 10**9,
            "hb_fail_count": 11,
            "stan_debug": True,
            "stan_trace": True,
            "nats_debug": True,
            "nats_trace": True,
            "log_file": "log",
            "logtime": False,
            "pid_file": "pid",
            "user": "u",
            "password": "pw",
            "replace_durable": True,
            "route_listen": RouteAddress(host="0.0.0.0", port=6222),
            "routes": ("nats://r1:6222", "nats://r2:6223"),
        }
    )


def test_token_reaches_its_field() -> None:
    """`--auth` is the token (O96)."""
    assert options("--auth t").token.get_secret_value() == "t"


def test_external_servers_reach_their_field() -> None:
    """`-ns` is a list of URLs (O29)."""
    assert options("-ns nats://n1:1,nats://n2:2").nats_urls == ("nats://n1:1", "nats://n2:2")


@pytest.mark.parametrize(
    ("words", "port"), [("-p 1 --port 2", 2), ("--port 1 -p 2", 2), ("-p 1 --port 2 -p 3", 3), ("-p 1 -p 2", 2)]
)
def test_the_last_alias_wins(words: str, port: int) -> None:
    """Aliases are the same variable (O7)."""
    assert options(words).port == port


@pytest.mark.parametrize("words", ["-mb 1k --max_bytes 2k", "--max_bytes 2k -mb 1k"])
def test_short_size_wins_over_the_long_one(words: str) -> None:
    """Of `-mb` and `--max_bytes` the first name wins, whatever the order (O7)."""
    assert options(words).limits.max_bytes == 1000


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("-mb 12abc", "mb should be a size, got '12abc'"),
        ("--max_bytes=1.5k", "max_bytes should be a size, got '1.5k'"),
        ("-mb 1 --max_bytes x", "max_bytes should be a size, got 'x'"),
    ],
)
def test_bad_sizes_are_named_as_typed(words: str, reason: str) -> None:
    """A bad size is an error of evaluation with the name as it was typed (O5)."""
    assert refusal(words) == reason


@pytest.mark.parametrize(
    ("words", "debug", "trace"),
    [
        ("-SDV", True, True),
        ("-SDV=false -SD -SV", False, False),
        ("-SD -SDV=false", False, False),
        ("-SD=false -SDV", True, True),
        ("-SD", True, False),
        ("-SV", False, True),
    ],
)
def test_both_at_once_wins(words: str, debug: bool, trace: bool) -> None:
    """`-SDV` sets debug and trace, wherever it stands (O79)."""
    assert (options(words).stan_debug, options(words).stan_trace) == (debug, trace)


def test_nats_debug_is_independent_of_ours() -> None:
    """`-DV` concerns NATS only (O92, O93)."""
    given = options("-DV")
    assert (given.nats_debug, given.nats_trace, given.stan_debug, given.stan_trace) == (True, True, False, False)


@pytest.mark.parametrize("flag", REFUSED, ids=lambda flag: flag.names[-1])
def test_options_of_the_original_are_refused_by_name(flag: Flag) -> None:
    """An option that would have no effect ends the start with a clear text, under each of its names."""
    word = {Kind.BOOL: "true", Kind.INTEGER: "1", Kind.DURATION: "1s"}.get(flag.kind, "x")
    assert [refusal(f"--{name}={word}") for name in flag.names] == [
        f"option {flag.dashed(name)} is not supported by this version" for name in flag.names
    ]


FILE_STORE = "-st file --dir d "


def test_every_cluster_option_reaches_its_field(tmp_path: Path) -> None:
    """Each option sets its own field and no other (O41-O50, O108); one or two dashes, as always."""
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    assert options(
        FILE_STORE + "-clustered -cluster_node_id a --cluster_bootstrap --cluster_peers a,b --cluster_log_path logs"
        " -cluster_log_cache_size -1 --cluster_log_snapshots 3 --cluster_trailing_logs 0 --cluster_sync=false"
        " --cluster_raft_logging --cluster_allow_add_remove_node --cluster_proceed_on_restore_failure"
        f" --cluster_secret_file {secret}"
    ).cluster == ClusterOptions.model_validate(
        {
            "node_id": "a",
            "bootstrap": True,
            "peers": ("a", "b"),
            "log_path": "logs",
            "log_cache_size": -1,
            "log_snapshots": 3,
            "trailing_logs": 0,
            "sync": False,
            "raft_logging": True,
            "allow_add_remove_node": True,
            "proceed_on_restore_failure": True,
            "secret": "hidden",
        }
    )


def test_clustered_alone_means_defaults() -> None:
    """O40: a boolean; false is the same as not given."""
    assert options(FILE_STORE + "--clustered").cluster == ClusterOptions()
    assert options(FILE_STORE + "--clustered --clustered=false").cluster is None


@pytest.mark.parametrize("words", ["", "--clustered=false "])
def test_cluster_options_are_ignored_without_clustered(words: str) -> None:
    """O40: silently, whatever their values; not even the secret's file is opened."""
    words += (
        "--cluster_node_id join --cluster_peers > --cluster_log_snapshots 0 --cluster_trailing_logs -1"
        " --cluster_log_cache_size 7 --cluster_proceed_on_restore_failure --cluster_secret_file /nowhere/secret"
    )
    assert options(words) == Options()
    assert warnings(words) == ()


def test_malformed_cluster_options_are_refused_without_clustered() -> None:
    """O9: syntax is checked before anything is ignored."""
    with pytest.raises(FlagError) as caught:
        parse(["--cluster_trailing_logs", "x"], FLAGS)
    assert str(caught.value) == 'invalid value "x" for flag -cluster_trailing_logs: parse error'


def test_checks_of_the_cluster_options_apply() -> None:
    """Evaluation ends with the checks of the options (O14, O400)."""
    assert refusal("--clustered") == "stan: clustering mode not supported with MEMORY store type"
    assert refusal(FILE_STORE + "--clustered --cluster_node_id join").startswith('invalid node ID "join"')
    text = 'cluster secret file "/nowhere/secret" cannot be read: no such file or directory'
    assert refusal(FILE_STORE + "--clustered --cluster_secret_file /nowhere/secret") == text


def test_warnings_of_clustering(tmp_path: Path) -> None:
    """Options without effect, and a secret that others can read, in one list with the other warnings."""
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    secret.chmod(0o644)
    words = FILE_STORE + f"-cid a.b --clustered --cluster_log_snapshots 1 --cluster_secret_file {secret}"
    dots, snapshots, readable = warnings(words)
    assert dots.startswith('Cluster ID "a.b"')
    assert snapshots.startswith("Option --cluster_log_snapshots has no effect")
    assert readable == f'cluster secret file "{secret}" can be read by others'


def test_checks_of_the_options_apply() -> None:
    """Evaluation ends with the checks of the options (O14)."""
    assert refusal("-mc -1") == "max channels limit cannot be negative (-1)"
    assert refusal("-st FILE") == "for FILE stores, root directory must be specified"


def test_environment_names_the_nats_server_program() -> None:
    """`NATS_SERVER_BINARY` replaces the installed program; empty means not set."""
    assert options("", NATS_SERVER_BINARY="bin/nats-server").nats_server_binary == "bin/nats-server"
    assert options("", NATS_SERVER_BINARY="").nats_server_binary is None


def test_dots_in_the_cluster_id_are_warned_about() -> None:
    """A cluster `a` hears the publishes for a cluster `a.b` (B67)."""
    assert [text.startswith('Cluster ID "a.b" contains dots') for text in warnings("-cid a.b")] == [True]


def test_options_unused_with_external_nats_are_named() -> None:
    """Options of the own NATS server are unused with `-ns`; one warning names them (O109)."""
    assert warnings("-ns nats://h:1 -p 1 --addr x -DV -D -V") == (
        "Options without effect together with --nats_server: -p --addr -DV -D -V",
    )
    assert warnings("-p 1 -DV") == ()


def test_unused_routes_are_validated_and_named_without_logins() -> None:
    """With `-ns` routes are checked all the same, then one warning names the options only (O102, O103, O109)."""
    words = "-ns nats://h:1 -cluster_listen nats://u:hidden@h:6222 -routes nats://u:hidden@h:6223"
    assert warnings(words) == ("Options without effect together with --nats_server: --cluster_listen --routes",)
    assert refusal("-ns nats://h:1 -cluster nats://u@h:6222") == "expected cluster password to be set"


@pytest.mark.parametrize(
    ("words", "asked"), [("-h", True), ("--help", True), ("", False), ("-h=false", False), ("-h --help=false", False)]
)
def test_help_is_asked_for(words: str, asked: bool) -> None:
    """The last occurrence of help decides (O7)."""
    assert is_asked(parse(words.split(), FLAGS).given, HELP_TARGET) is asked
