"""Resolves the start position of a new subscription to the sequence before its first message (B220). Pure."""

from collections.abc import Callable

from server.protocol import stan_pb2


def last_sent_for(
    request: stan_pb2.SubscriptionRequest,
    *,
    first_seq: int,
    last_seq: int,
    now_ns: int,
    first_at_or_after: Callable[[int], int],
) -> int:
    """Sequence to count as sent already; the first message is the next one that exists.

    Args:
        request: carries startPosition, startSequence and startTimeDelta (ns); the latter two are ignored with any other
            position (B88).
        first_seq: first stored sequence; last + 1 when all are removed.
        last_seq: last sequence that was given out.
        now_ns: wall clock (B221).
        first_at_or_after: first sequence whose timestamp (Unix ns) is at least the argument; last + 1 if none.

    """
    match request.startPosition:
        case stan_pb2.NewOnly:
            return last_seq
        case stan_pb2.LastReceived:
            return max(last_seq, first_seq) - 1
        case stan_pb2.First:
            return first_seq - 1
        case stan_pb2.SequenceStart:
            return min(max(request.startSequence, first_seq), last_seq + 1) - 1
        case stan_pb2.TimeDeltaStart:
            return first_at_or_after(now_ns - request.startTimeDelta) - 1
        case unknown:
            raise AssertionError(f"start position {unknown} passed validation")
