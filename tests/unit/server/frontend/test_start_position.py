"""Start positions, the table of B220."""

import pytest

from server.frontend.start_position import last_sent_for
from server.protocol import stan_pb2 as pb

NOW = 1_000_000


def first_message(position, first_seq, last_seq, **fields):
    """Log with timestamps 10 * seq."""

    def at_or_after(timestamp_ns):
        return next((seq for seq in range(first_seq, last_seq + 1) if 10 * seq >= timestamp_ns), last_seq + 1)

    request = pb.SubscriptionRequest(startPosition=position, **fields)
    return 1 + last_sent_for(request, first_seq=first_seq, last_seq=last_seq, now_ns=NOW, first_at_or_after=at_or_after)


@pytest.mark.parametrize(
    ("position", "fields", "with_messages", "empty", "all_removed"),
    [
        (pb.NewOnly, {}, 11, 1, 11),
        (pb.LastReceived, {}, 10, 1, 11),
        (pb.First, {}, 3, 1, 11),
        (pb.SequenceStart, {"startSequence": 0}, 3, 1, 11),
        (pb.SequenceStart, {"startSequence": 2}, 3, 1, 11),
        (pb.SequenceStart, {"startSequence": 7}, 7, 1, 11),
        (pb.SequenceStart, {"startSequence": 10}, 10, 1, 11),
        (pb.SequenceStart, {"startSequence": 11}, 11, 1, 11),
        (pb.SequenceStart, {"startSequence": 2**64 - 1}, 11, 1, 11),
        (pb.TimeDeltaStart, {"startTimeDelta": NOW - 50}, 5, 1, 11),
        (pb.TimeDeltaStart, {"startTimeDelta": NOW - 51}, 6, 1, 11),
        (pb.TimeDeltaStart, {"startTimeDelta": NOW}, 3, 1, 11),
        (pb.TimeDeltaStart, {"startTimeDelta": 0}, 11, 1, 11),
        (pb.TimeDeltaStart, {"startTimeDelta": -5}, 11, 1, 11),
    ],
)
def test_start_positions(position, fields, with_messages, empty, all_removed):
    """B220, B221: a log holding 3 to 10, an empty one, and one whose messages are all removed."""
    assert first_message(position, 3, 10, **fields) == with_messages
    assert first_message(position, 1, 0, **fields) == empty
    assert first_message(position, 11, 10, **fields) == all_removed


def test_fields_of_other_positions_are_ignored():
    """B88."""
    assert first_message(pb.NewOnly, 3, 10, startSequence=5, startTimeDelta=NOW) == 11
