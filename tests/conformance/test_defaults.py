"""Values that count where an operator gives none (B425)."""

from server.config.model import Limits, Options
from server.delivery.schedule import SLACK_NS
from server.frontend.clients import DUPLICATE_PROBE_S
from server.leadership import SECOND_SERVER_PROBE_S
from server.nats.connection import RECONNECT_WAIT_S


def test_defaults() -> None:
    """B425: heartbeats, probes, slack, limits, reconnects and the replacement of durables."""
    options = Options()
    assert (options.hb_interval_ns, options.hb_timeout_ns, options.hb_fail_count) == (30 * 10**9, 10 * 10**9, 10)
    assert options.limits == Limits(
        max_channels=100, max_msgs=1_000_000, max_bytes=1_024_000_000, max_subs=1000, max_age_ns=0, max_inactivity_ns=0
    )
    assert not options.replace_durable
    assert (DUPLICATE_PROBE_S, SECOND_SERVER_PROBE_S, RECONNECT_WAIT_S, SLACK_NS) == (0.5, 0.25, 0.25, 15 * 10**6)
