"""The table of options."""

from collections import Counter

import pytest
from pydantic import SecretStr

from server.cli.flag_table import (
    CLUSTER_PREFIX,
    CLUSTER_SECRET_FILE_TARGET,
    CLUSTERED_TARGET,
    FLAGS,
    HELP_TARGET,
    NATS_DEBUG_AND_TRACE_TARGET,
    REFUSED,
    SECTIONS,
    STAN_DEBUG_AND_TRACE_TARGET,
    SUPPORTED,
    VERSION_TARGET,
)
from server.cli.flags import Flag, Kind
from server.config.cluster import ClusterOptions
from server.config.model import Limits, Options
from server.config.units import parse_duration, parse_integer

NO_FIELD = {
    CLUSTER_SECRET_FILE_TARGET,
    CLUSTERED_TARGET,
    HELP_TARGET,
    NATS_DEBUG_AND_TRACE_TARGET,
    STAN_DEBUG_AND_TRACE_TARGET,
    VERSION_TARGET,
}
OPTIONS_OF_THE_ORIGINAL = """
    cid cluster_id st store dir mc max_channels msu max_subs mm max_msgs mb max_bytes ma max_age mi max_inactivity
    ns nats_server sc stan_config hbi hb_interval hbt hb_timeout hbf hb_fail_count ft_group sl signal encrypt
    encryption_cipher encryption_key replace_durable clustered cluster_node_id cluster_bootstrap cluster_peers
    cluster_log_path cluster_log_cache_size cluster_log_snapshots cluster_trailing_logs cluster_sync
    cluster_raft_logging cluster_allow_add_remove_node file_compact_enabled file_compact_frag file_compact_interval
    file_compact_min_size file_buffer_size file_crc file_crc_poly file_sync file_slice_max_msgs file_slice_max_bytes
    file_slice_max_age file_slice_archive_script file_fds_limit file_parallel_recovery file_truncate_bad_eof
    file_read_buffer_size file_auto_sync sql_driver sql_source sql_no_caching sql_max_open_conns sql_bulk_insert_limit
    secure tls_client_key tls_client_cert tls_client_cacert SD stan_debug SV stan_trace SDV syslog_name a addr net
    p port P pid m http_port ms https_port c config l log T logtime s syslog r remote_syslog D debug V trace DV VV DVV
    user pass auth tls tlsverify tlscert tlskey tlscacert routes cluster cluster_listen h help v version help_tls
    n name server_name client_advertise cluster_name cluster_advertise no_advertise connect_retries ports_file_dir
    log_size_limit max_traced_msg_len profile t js jetstream sd store_dir io_batch_size io_sleep_time
    cluster_proceed_on_restore_failure
"""
OURS = ["cluster_secret_file"]
FILE_ONLY = {"limits", "nats_server_binary", "discover_prefix", "cluster"}


def test_every_option_of_the_original_is_known() -> None:
    """Each name of O20-O108 is in the table once, and no other but ours."""
    names = Counter(name for flag in FLAGS for name in flag.names)
    assert names == Counter([*OPTIONS_OF_THE_ORIGINAL.split(), *OURS])


def test_supported_options_lead_to_fields() -> None:
    """Each option that exists sets a field; every field has an option, but what only a file or the environment sets."""
    fields = set(Options.model_fields) - FILE_ONLY | set(Limits.model_fields) - {"channels"}
    cluster = {
        CLUSTER_PREFIX + name
        for name in ClusterOptions.model_fields
        if not name.startswith("raft_") or name == "raft_logging"
    }
    assert {flag.target for flag in SUPPORTED} - NO_FIELD == fields | cluster - {CLUSTER_PREFIX + "secret"}


def test_refused_options_have_no_target() -> None:
    """An option without effect is refused, never ignored."""
    assert [flag.names for flag in REFUSED if flag.target is not None] == []


def test_sections_are_known() -> None:
    """Every option stands below a heading of the help text, in their order (O11)."""
    sections = [flag.section for flag in SUPPORTED]
    assert sections == sorted(sections, key=SECTIONS.index)


@pytest.mark.parametrize(
    "flag", [flag for flag in SUPPORTED if flag.target not in NO_FIELD], ids=lambda flag: flag.names[-1]
)
def test_documented_defaults_are_the_real_ones(flag: Flag) -> None:
    """The default in the help text is the field's (O20-O33, O41-O50, O82-O96, O418)."""
    assert flag.target is not None
    cluster = {CLUSTER_PREFIX + name: field for name, field in ClusterOptions.model_fields.items()}
    real = (Options.model_fields | Limits.model_fields | cluster)[flag.target].default
    match flag.kind:
        case Kind.BOOL:
            assert flag.default == str(real).lower()
        case Kind.DURATION:
            assert parse_duration(flag.default) == real
        case Kind.INTEGER | Kind.SIZE:
            assert parse_integer(flag.default) == real
        case _:
            plain = real.get_secret_value() if isinstance(real, SecretStr) else real
            assert flag.default == (plain or "")
