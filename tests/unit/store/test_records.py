"""Sealed records: what is not what was written is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import records
from store.errors import CorruptionError
from store.machine.state import Channel, Client, State, Subscription
from store.operations import Limits
from store.ranges import Ranges

u64 = st.integers(0, 2**64 - 1)
text = st.text(max_size=10)


@given(st.binary(max_size=10), st.binary(max_size=50))
def test_sealed_content_comes_back(key, content):
    """Under its key."""
    assert records.unseal(key, records.seal(key, content), "file") == content


@given(st.binary(min_size=1, max_size=8), st.binary(max_size=20), st.data())
def test_every_flipped_bit_is_found(key, content, draw):
    """In the record or in the key."""
    whole = bytearray(key + records.seal(key, content))
    position = draw.draw(st.integers(0, len(whole) * 8 - 1))
    whole[position // 8] ^= 1 << position % 8
    with pytest.raises(CorruptionError, match=r"^file is damaged"):
        records.unseal(bytes(whole[: len(key)]), bytes(whole[len(key) :]), "file")


def test_short_record_is_found():
    """Shorter than its checksum."""
    with pytest.raises(CorruptionError, match="at least 4 bytes under key 6b"):
        records.unseal(b"k", b"abc", "file")


@given(st.builds(Channel, u64, text, st.builds(Limits, u64, u64, u64), u64, u64, u64, st.integers(0, 2**63 - 1)))
def test_channel(channel):
    """A channel with its range and limits."""
    decoded = records.decode_channel(channel.channel_id, records.encode_channel(channel))
    channel.tail = decoded.tail = None
    assert decoded == channel


@given(
    st.builds(Client, text, st.binary(max_size=5), text, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), u64)
)
def test_client(client):
    """A client without its subscriptions."""
    assert records.decode_client(client.number, records.encode_client(client)) == client


subscriptions = st.builds(
    Subscription,
    *(u64, u64, text, text, text, text, text, u64, u64, st.booleans(), u64, u64),
    st.just([(3, 9), (12, 12)]).map(Ranges),
)


@given(subscriptions)
def test_subscription(subscription):
    """A subscription of its two records."""
    number, content = subscription.subscription_id, records.encode_subscription(subscription)
    assert records.decode_subscription(number, content, records.encode_progress(subscription)) == subscription


def test_cluster():
    """What exists once."""
    state = State("c", "t", 5, 6, 7, progress_is_exact=True, configuration=b"\0\xff members")
    decoded = records.decode_cluster(records.encode_cluster(state))
    assert records.encode_cluster(decoded) == records.encode_cluster(state)
    assert (decoded.cluster_id, decoded.ack_inbox_token, decoded.progress_is_exact) == ("c", "t", True)
    assert decoded.configuration == b"\0\xff members"
    assert (decoded.next_channel_id, decoded.next_subscription_id, decoded.next_client_number) == (5, 6, 7)
