"""The benchmark's C programs against each other over a real NATS server: every answer counted, every error told."""

import shutil
from collections.abc import Iterator

import pytest

from benchmarks.processes import Generator, GeneratorError, Responder, build
from tests.support.nats_process import NatsProcess

CLUSTER = "yardstick"


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsProcess]:
    """A NATS server with the responder on it."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    build()
    with NatsProcess() as process:
        responder = Responder(process.port, CLUSTER)
        yield process
        responder.stop()


@pytest.mark.parametrize(("size", "window"), [(0, 1), (1, 7), (128, 16384), (70_000, 64)])
def test_every_publish_is_acked_once(nats: NatsProcess, size: int, window: int) -> None:
    """The generator ends when each of its publishes has its own PubAck."""
    generator = Generator("pub", port=nats.port, cluster=CLUSTER, count=500, size=size, window=window)
    generator.go()
    result = generator.result()
    assert (result["status"], result["acked"], result["unexpected"], result["errors"]) == (0, 500, 0, {})


def test_sync_reports_percentiles(nats: NatsProcess) -> None:
    """With one outstanding, latencies are ordered by percentile and fill the measured time."""
    generator = Generator("sync", port=nats.port, cluster=CLUSTER, count=200, size=128)
    generator.go()
    result = generator.result()
    assert result["acked"] == 200
    assert 0 < result["p50_us"] <= result["p90_us"] <= result["p99_us"] <= result["max_us"]
    assert result["p50_us"] * 100 <= result["seconds"] * 1e6


def test_missing_server_is_an_error(nats: NatsProcess) -> None:
    """Without a server the generator says which request got no answer."""
    with pytest.raises(GeneratorError, match=r"_STAN\.discover\.nobody: no answer"):
        Generator("pub", port=nats.port, cluster="nobody", count=1, timeout=1)


def test_wrong_option_is_refused(nats: NatsProcess) -> None:
    """A count that is no number is named."""
    with pytest.raises(GeneratorError, match="--count: a number of 0 or more is needed"):
        Generator("pub", port=nats.port, count="many")
