"""One write per turn, in order."""

from server.outbox import Outbox
from tests.support.moved_loop import MovedLoop


def made():
    loop, writes = MovedLoop(), []
    return Outbox(lambda parts: writes.append(b"".join(parts)), loop), loop, writes


def test_one_write_per_turn():
    """Frames of a turn that nobody ends leave together at its end."""
    outbox, loop, writes = made()
    outbox.send("a", b"1")
    outbox.send(b"b", b"", b"reply")
    assert writes == []
    loop.run()
    assert writes == [b"PUB a 1\r\n1\r\nPUB b reply 0\r\n\r\n"]
    outbox.send("c", b"")
    loop.run()
    assert writes[1:] == [b"PUB c 0\r\n\r\n"]


def test_flush_writes_now_and_only_once():
    """What was flushed is not written again by the end of the turn."""
    outbox, loop, writes = made()
    outbox.send("a", b"1")
    outbox.flush()
    outbox.flush()
    loop.run()
    assert writes == [b"PUB a 1\r\n1\r\n"]


def test_frames_collected_by_others_are_in_order():
    """`parts` is shared with the hot path: what is appended there leaves in its place."""
    outbox, loop, writes = made()
    outbox.send("a", b"1")
    outbox.parts += (b"PUB x 0\r\n", b"", b"\r\n")
    outbox.send("b", b"2")
    loop.run()
    assert writes == [b"PUB a 1\r\n1\r\nPUB x 0\r\n\r\nPUB b 1\r\n2\r\n"]


def test_no_reply_no_frame():
    """B18: the answer to a request without reply subject is dropped."""
    outbox, loop, writes = made()
    outbox.send(b"", b"answer")
    loop.run()
    assert writes == []


def test_what_is_taken_is_not_written():
    """B396: leadership ended: what waited for the end of the turn does not leave; what comes later does."""
    outbox, loop, writes = made()
    outbox.send("a", b"1")
    assert b"".join(outbox.take()) == b"PUB a 1\r\n1\r\n"
    outbox.send("b", b"2")
    loop.run()
    assert writes == [b"PUB b 1\r\n2\r\n"]
    assert outbox.take() == []
