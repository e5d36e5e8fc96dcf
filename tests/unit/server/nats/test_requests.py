"""Requests of the server: one answer each, the first in time."""

import pytest

from server import hot
from server.nats.requests import Requests
from server.outbox import Outbox
from tests.support.leader_harness import parse_frames
from tests.support.moved_loop import MovedLoop


class Asked:
    def __init__(self):
        self.loop = MovedLoop()
        self.written = []
        self.requests = Requests(Outbox(lambda parts: self.written.append(b"".join(parts)), self.loop), self.loop)
        self.answers = []

    def ask(self, timeout_s=1.0):
        self.requests.send("somebody", b"question", timeout_s, self.answers.append)
        self.loop.run()
        return parse_frames(self.written.pop())[0]

    def answer(self, frame, payload=b"", headers=b""):
        self.requests.handle(hot.Message(1, frame.reply.encode(), b"", headers, payload))


@pytest.fixture
def asked():
    return Asked()


def test_first_answer_counts(asked):
    """Called once, with the payload of the first answer; later ones go nowhere."""
    frame = asked.ask()
    assert (frame.subject, frame.payload) == ("somebody", b"question")
    assert frame.reply.startswith(asked.requests.subject.removesuffix("*"))
    asked.answer(frame, b"yes")
    asked.answer(frame, b"no")
    asked.loop.move(5)
    assert asked.answers == [b"yes"]
    assert asked.loop.timers() == []


def test_no_answer_in_time(asked):
    """None at the timeout, and nothing after it."""
    frame = asked.ask(0.5)
    asked.loop.move(0.49)
    assert asked.answers == []
    asked.loop.move(0.01)
    asked.answer(frame, b"late")
    assert asked.answers == [None]


@pytest.mark.parametrize(
    ("headers", "payload", "answer"),
    [
        (b"NATS/1.0 503\r\n\r\n", b"", None),
        (b"NATS/1.0 503 No Responders\r\n\r\n", b"", None),
        (b"NATS/1.0\r\nA: b\r\n\r\n", b"", b""),
        (b"", b"", b""),
    ],
)
def test_no_responders(asked, headers, payload, answer):
    """B51: the status of NATS is no answer; an empty payload is one (B24)."""
    asked.answer(asked.ask(), payload, headers)
    assert asked.answers == [answer]


def test_answers_are_told_apart(asked):
    """Each request has a reply subject of its own."""
    one, two = asked.ask(), asked.ask()
    assert one.reply != two.reply
    asked.answer(two, b"2")
    asked.answer(one, b"1")
    assert asked.answers == [b"2", b"1"]


def test_answers_to_an_earlier_process_go_nowhere(asked):
    """The inbox is new at every start."""
    assert Asked().requests.subject != asked.requests.subject
    asked.ask()
    asked.requests.handle(hot.Message(1, b"_INBOX.other.1", b"", b"", b"x"))
    assert asked.answers == []


def test_cancelled_requests_are_never_answered(asked):
    """Leadership is lost: nobody is called, no timer stays."""
    frame = asked.ask()
    asked.requests.cancel_all()
    asked.answer(frame, b"x")
    asked.loop.move(5)
    assert asked.answers == []
    assert asked.loop.timers() == []


def test_no_request_times_out_while_this_node_is_silent(asked):
    """B401: nothing is read, so no answer can come; afterwards each has its whole time, also one sent meanwhile."""
    frame = asked.ask(1.0)
    asked.ask(2.0)
    asked.loop.move(0.9)
    asked.requests.confirm = lambda: False
    asked.ask(3.0)
    asked.loop.move(1.9)
    assert asked.answers == []
    asked.requests.confirm = lambda: True
    asked.requests.release()
    asked.loop.move(0.9)
    asked.answer(frame, b"yes")
    assert asked.answers == [b"yes"]
    asked.loop.move(1.2)
    assert asked.answers == [b"yes", None]
    asked.loop.move(1)
    assert asked.answers == [b"yes", None, None]
    assert asked.loop.timers() == []
