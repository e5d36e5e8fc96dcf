"""Refusals of publishes, made of the PubAcks that the hot loop had ready."""

from hypothesis import given
from hypothesis import strategies as st

from server import hot, windows
from server.protocol import responses
from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import Frame, parse_frames

MAX_PAYLOAD = 10_000
TEXT = responses.OUTCOME_UNKNOWN

replies = st.text(alphabet="abc.$_-", min_size=1, max_size=30)
guids = st.one_of(
    st.text(min_size=1, max_size=200),
    st.integers(1, 9_000).map(lambda size: "g" * size),
    st.sampled_from(["\r\n", "PUB a 1\r\n\r\n", " 5\r\n", "\n\x05guess"]),
)
publishes = st.lists(st.tuples(replies, guids, st.integers(1, 5)), max_size=20)


def acks_of(received):
    """The PubAck frames of a batch: each publish comes as often as it says, its guid made anew but as long."""
    channel = windows.Channel("foo", 1, 0)
    core = hot.Core(lambda _message, _subject: channel, lambda _message: None, MAX_PAYLOAD)
    core.publish_sid = 1
    expected, data = [], b""
    for number, (reply, guid, count) in enumerate(received):
        for copy in range(count):
            unique = f"{number:02d}{copy}{guid}"
            payload = pb.PubMsg(clientID="me", guid=unique, subject="foo", data=b"x").SerializeToString()
            data += b"MSG p 1 %b %d\r\n%b\r\n" % (reply.encode(), len(payload), payload)
            expected.append((reply, unique))
    core.feed(data, 1)
    return core.acks, expected


@given(publishes)
def test_each_publish_is_refused_where_it_would_have_been_acked(received):
    """B402: every guid and reply of a batch, in order, with the error; whole frames, whatever bytes a guid has."""
    acks, expected = acks_of(received)
    before = list(acks)
    frames = parse_frames(b"".join(responses.refused_pub_acks(acks, TEXT, MAX_PAYLOAD)))
    wanted = [Frame(reply, "", pb.PubAck(guid=guid, error=TEXT).SerializeToString()) for reply, guid in expected]
    assert frames == wanted
    assert acks == before


def test_runs_are_taken_apart():
    """B402: a run of publishes that look alike is one piece in the hot loop; the case above must have met it."""
    acks, expected = acks_of([("r", "guid", 5), ("r", "other", 1)])
    assert len(acks) < 3 * len(expected)
    assert len(parse_frames(b"".join(responses.refused_pub_acks(acks, TEXT, MAX_PAYLOAD)))) == 6


def test_guid_that_is_no_text():
    """B402: the hot loop takes the guid of a run as bytes: it may be no UTF-8."""
    frames = [b"PUB r 5\r\n\n\x03", b"\xff\xfe\n", b"\r\n"]
    refused = b"".join(responses.refused_pub_acks(frames, "no", MAX_PAYLOAD))
    assert refused == b"PUB r 9\r\n\n\x03\xff\xfe\n\x12\x02no\r\n"


def test_refusal_that_nats_would_not_carry_is_left_out():
    """B97: an error makes the answer longer; sending more than the max payload would end our connection."""
    longest = MAX_PAYLOAD - len(TEXT) - 2
    for size, is_sent in ((longest, True), (longest + 1, False)):
        guid = "g" * (size - 3)
        acks = [b"PUB r %d\r\n\n%b" % (size, windows.varint(len(guid))), guid.encode(), b"\r\n"]
        acks += [b"PUB s 3\r\n\n\x01", b"g", b"\r\n"]
        frames = parse_frames(b"".join(responses.refused_pub_acks(acks, TEXT, MAX_PAYLOAD)))
        assert [frame.subject for frame in frames] == (["r", "s"] if is_sent else ["s"]), size
        assert all(len(frame.payload) <= MAX_PAYLOAD for frame in frames)


def test_nothing_of_nothing():
    """An empty batch."""
    assert responses.refused_pub_acks([], TEXT, MAX_PAYLOAD) == []
