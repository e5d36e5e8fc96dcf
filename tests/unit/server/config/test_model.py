"""Options and their checks."""

import pytest
from pydantic import SecretStr, ValidationError

from server.config.channel_limits import ChannelLimits
from server.config.cluster import ClusterOptions
from server.config.model import Limits, Options
from server.config.option_error import OptionError
from server.config.route_urls import RouteAddress
from server.errors import ConfigError


def refusal(**fields: object) -> str:
    """Text of the refusal of these options."""
    with pytest.raises(OptionError) as caught:
        Options.model_validate(fields)
    return str(caught.value)


def test_defaults_are_the_documented_ones() -> None:
    """Without any option a memory store with the limits of O23-O28 listens on 0.0.0.0:4222 (O20-O33, O82-O89, O500)."""
    options = Options()
    assert options.cluster_id == "test-cluster"
    assert (options.store, options.dir) == ("MEMORY", "")
    assert (options.host, options.port, options.http_port, options.nats_urls) == ("0.0.0.0", 4222, 0, ())
    assert options.limits == Limits(
        max_channels=100, max_subs=1000, max_msgs=1000000, max_bytes=1024000000, max_age_ns=0, max_inactivity_ns=0
    )
    assert (options.hb_interval_ns, options.hb_timeout_ns, options.hb_fail_count) == (30 * 10**9, 10 * 10**9, 10)
    assert options.logtime
    assert {options.stan_debug, options.stan_trace, options.nats_debug, options.nats_trace} == {False}
    assert not options.replace_durable
    assert options.cluster is None


def test_routes_are_parsed() -> None:
    """Both options become what the NATS server is given (O102, O103)."""
    options = Options.model_validate({"route_listen": "nats://u:p@:6222", "routes": ("nats-route://r:1",)})
    assert options.route_listen == RouteAddress(host="", port=6222, user="u", password=SecretStr("p"))
    assert options.routes == ("nats://r:1",)
    assert Options.model_validate({"route_listen": ""}).route_listen is None


@pytest.mark.parametrize("listen", [{}, {"route_listen": ""}])
def test_routes_need_an_own_address(listen: dict[str, object]) -> None:
    """The text of O102; a login in a route is not part of it."""
    with pytest.raises(OptionError) as caught:
        Options.model_validate({**listen, "routes": ("nats://u:hidden@r:1",)})
    assert str(caught.value) == "solicited routes require cluster capabilities, e.g. --cluster"
    assert "hidden" not in repr(caught.value.__dict__)


@pytest.mark.parametrize("store", ["file", "FILE", "File"])
def test_store_type_has_any_case(store: str) -> None:
    """The store type is read in any case and kept in capitals (O21)."""
    assert Options.model_validate({"store": store, "dir": "data"}).store == "FILE"


def test_unknown_store_type_is_refused() -> None:
    """Another type is named in the refusal (O21)."""
    assert refusal(store="redis") == "unsupported store type: REDIS"


def test_sql_store_is_refused_for_now() -> None:
    """SQL is a type of the original that this version does not have."""
    assert refusal(store="sql") == "store type SQL is not supported by this version"


def test_file_store_needs_a_directory() -> None:
    """A FILE store without a root directory does not start (O22)."""
    assert refusal(store="FILE") == "for FILE stores, root directory must be specified"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("max_channels", -1, "max channels limit cannot be negative (-1)"),
        ("max_subs", -2, "max subscriptions limit cannot be negative (-2)"),
        ("max_msgs", -3, "max messages limit cannot be negative (-3)"),
        ("max_bytes", -4, "max bytes limit cannot be negative (-4)"),
        ("max_age_ns", -(10**9), "max age limit cannot be negative (-1s)"),
        ("max_inactivity_ns", -90 * 10**9, "max inactivity limit cannot be negative (-1m30s)"),
    ],
)
def test_limits_cannot_be_negative(field: str, value: int, reason: str) -> None:
    """Each limit has its own text (O23-O28)."""
    with pytest.raises(OptionError) as caught:
        Limits.model_validate({field: value})
    assert str(caught.value) == reason
    assert caught.value.option == f"--{field.removesuffix('_ns')}"


@pytest.mark.parametrize("name", ["foo..bar", "", "foo*", "a.>.b", "a b"])
def test_limits_are_for_names_that_channels_can_have(name: str) -> None:
    """The refusal quotes the name (O176)."""
    with pytest.raises(OptionError) as caught:
        Limits(channels={"fine": ChannelLimits(), name: ChannelLimits()})
    assert str(caught.value) == f'invalid channel name "{name}"'
    assert (caught.value.option, caught.value.value) == ("store_limits.channels", name)
    assert "wildcards only as whole parts" in caught.value.allowed


def test_more_channels_with_limits_than_may_exist_are_refused() -> None:
    """Names without wildcards count, patterns do not, and 0 allows any number (O507, O472)."""
    channels = {name: ChannelLimits() for name in ("a", "b", "c", "*", "a.>", ">")}
    with pytest.raises(OptionError) as caught:
        Limits(max_channels=2, channels=channels)
    assert str(caught.value) == "too many channels defined (3). The max channels limit is set to 2"
    assert (caught.value.value, caught.value.allowed) == (3, "at most 2 names without wildcards")
    assert Limits(max_channels=3, channels=channels).channels == channels
    assert Limits(max_channels=0, channels=channels).channels == channels


def test_limits_of_one_channel_are_set_or_inherited() -> None:
    """Zero and negative values are unlimited, absent ones inherited, and nothing else is a limit (O177, B332, B336)."""
    assert ChannelLimits().model_dump() == dict.fromkeys(ChannelLimits.model_fields)
    entry = ChannelLimits(max_subs=0, max_msgs=-1, max_age_ns=7)
    assert (entry.max_subs, entry.max_msgs, entry.max_bytes, entry.max_age_ns) == (0, 0, None, 7)
    for fields in ({"max_msgs": "1"}, {"max_msgs": 1.5}, {"max_channels": 1}):
        with pytest.raises(ValidationError):
            ChannelLimits.model_validate(fields)


def test_refusals_are_config_errors() -> None:
    """A refusal carries option, value and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        Options(port=70000)
    assert (caught.value.option, caught.value.value) == ("--port", 70000)
    assert caught.value.allowed == "-1 (random) to 65535"


@pytest.mark.parametrize("cluster_id", ["", "a b", "a\tb", "a*", ">", "a..b", ".a", "a.", "a\x00", "\udcff", "a\n"])
def test_cluster_id_must_be_usable_in_subjects(cluster_id: str) -> None:
    """Blanks, wildcards and empty tokens are refused (B67)."""
    assert refusal(cluster_id=cluster_id).startswith("invalid cluster ID ")


@pytest.mark.parametrize("prefix", ["", "a b", "a.*", "a.", ".a"])
def test_discover_prefix_must_be_usable_in_subjects(prefix: str) -> None:
    """B11: like the cluster id."""
    assert refusal(discover_prefix=prefix).startswith("invalid discover prefix ")


@pytest.mark.parametrize("cluster_id", ["test-cluster", "a.b", "\u00e9t\u00e9", "$x"])
def test_usable_cluster_ids_are_kept(cluster_id: str) -> None:
    """Anything else is the operator's choice, also dots (B67)."""
    assert Options(cluster_id=cluster_id).cluster_id == cluster_id


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"port": -2}, "option --port must be -1 (random) to 65535, got -2"),
        ({"http_port": 65536}, "option --http_port must be -1 (random) to 65535, got 65536"),
        ({"hb_interval_ns": 0}, "option --hb_interval must be positive, got 0s"),
        ({"hb_timeout_ns": -1}, "option --hb_timeout must be positive, got -1ns"),
        ({"hb_fail_count": -1}, "option --hb_fail_count must be 0 or more, got -1"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, int], reason: str) -> None:
    """Ports and heartbeats that could never work do not start (O31-O33, O83, O85)."""
    assert refusal(**fields) == reason


def test_port_zero_is_the_default_port() -> None:
    """The NATS server reads 0 as not set (O83)."""
    assert Options(port=0).port == 4222


def test_empty_address_is_the_default_address() -> None:
    """The NATS server reads an empty address as not set (O82)."""
    assert Options(host="").host == "0.0.0.0"


@pytest.mark.parametrize("field", ["host", "user", "password", "token"])
def test_texts_for_nats_must_be_utf8(field: str) -> None:
    """Bytes that are not UTF-8 are refused before they reach NATS, and not shown."""
    options = {"host": "--addr", "user": "--user", "password": "--pass", "token": "--auth"}
    assert refusal(**{field: "x\udcff"}) == f"option {options[field]} must be valid UTF-8"


def test_monitoring_with_external_nats_is_refused_for_now() -> None:
    """Monitoring is served by the embedded NATS server, which an external one replaces (O85)."""
    text = refusal(http_port=8222, nats_urls=("nats://localhost:4222",))
    assert text.startswith("option --http_port cannot be combined with --nats_server")


def test_clustering_needs_a_store_on_disk() -> None:
    """O400: the exact text for MEMORY; a directory must be given as always, and SQL does not exist either way."""
    cluster = ClusterOptions()
    text = "stan: clustering mode not supported with MEMORY store type"
    assert refusal(cluster=cluster) == text
    assert refusal(cluster=cluster, store="memory", dir="data") == text
    assert refusal(cluster=cluster, store="FILE") == "for FILE stores, root directory must be specified"
    assert refusal(cluster=cluster, store="SQL") == "store type SQL is not supported by this version"
    assert Options(cluster=cluster, store="FILE", dir="data").cluster == cluster


def test_clustering_needs_a_cluster_id_that_can_name_a_directory() -> None:
    """O416: standalone, the same id is fine."""
    fields = {"cluster_id": "a/b", "store": "FILE", "dir": "data"}
    assert refusal(**fields, cluster=ClusterOptions()).startswith('invalid cluster ID "a/b": it names a directory')
    assert Options.model_validate(fields).cluster_id == "a/b"


def test_external_urls_are_completed() -> None:
    """URLs are stored complete (O240)."""
    assert Options(nats_urls=("n1", "n2")).nats_urls == ("nats://n1:4222", "nats://n2:4222")


def test_password_needs_a_user() -> None:
    """A password that would protect nothing is refused (O94, O95)."""
    assert refusal(password="pw") == "option --pass has no effect without --user"


def test_token_and_user_exclude_each_other() -> None:
    """A NATS server takes one or the other (O94, O96)."""
    assert refusal(user="u", token="t").startswith("option --auth cannot be combined with --user")


def test_secrets_are_not_shown() -> None:
    """Passwords, tokens and logins in URLs appear in no representation (O243)."""
    shown = repr(Options.model_validate({"user": "u", "password": "hidden", "nats_urls": ("nats://u:hidden@h:1",)}))
    shown += repr(Options.model_validate({"token": "hidden"}))
    shown += repr(Options.model_validate({"store": "FILE", "dir": "d", "cluster": {"secret": "hidden"}}))
    route = "nats://u:hidden@h:1"
    shown += repr(Options.model_validate({"route_listen": route, "routes": (route,)}))
    assert "hidden" not in shown


def test_options_cannot_be_changed_or_invented() -> None:
    """Options are frozen, and a field that does not exist is a bug."""
    with pytest.raises(ValidationError):
        setattr(Options(), "port", 1)  # noqa: B010  the assignment must reach run time
    with pytest.raises(ValidationError):
        Options.model_validate({"no_such": 1})
