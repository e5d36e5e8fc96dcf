"""Writes down at which moment a leader of the harness sends which message to which inbox."""

from server.protocol import stan_pb2 as pb
from tests.support.leader_harness import Frame, Leader, parse_frames
from tests.support.moved_loop import NS

_MS = NS // 1000

Name = int | str
"""A sequence, or `3r2` for the second redelivery of sequence 3."""


class Timeline:
    """Everything sent from its making on; moments are whole milliseconds since then. `leader.take` works beside it."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._start_ns = leader.loop.now_ns
        self._times: list[int] = []
        self._frames: list[tuple[int, Frame]] = []
        leader.take()
        self._seen = 0
        self._take = leader.take
        leader.take = self._collect_and_take  # type: ignore[method-assign]
        leader.nats.on_write = self._note_time

    def move(self, moment: float) -> None:
        """Let time pass up to this moment."""
        now = (self._leader.loop.now_ns - self._start_ns) / _MS
        assert moment >= now, (moment, now)
        self._leader.loop.move((moment - now) / 1000)

    def sent(self, inbox: str) -> list[tuple[int | Name, ...]]:
        """(moment, names…) for each moment at which something went to `inbox`, since the last call for that inbox."""
        self._collect()
        found: dict[int, list[Name]] = {}
        for moment, frame in self._frames:
            if frame.subject == inbox:
                one = pb.MsgProto.FromString(frame.payload)
                name = f"{one.sequence}r{one.redeliveryCount}" if one.redelivered else one.sequence
                found.setdefault(moment, []).append(name)
        self._forget(inbox)
        return [(moment, *names) for moment, names in found.items()]

    def moments(self, subject: str) -> list[int]:
        """When something went to `subject`, one for each message, since the last call for that subject."""
        self._collect()
        found = [moment for moment, frame in self._frames if frame.subject == subject]
        self._forget(subject)
        return found

    def _forget(self, subject: str) -> None:
        self._frames = [one for one in self._frames if one[1].subject != subject]

    def _note_time(self) -> None:
        if self._leader.nats.is_connected:  # else the write is dropped
            self._times.append((self._leader.loop.now_ns - self._start_ns) // _MS)

    def _collect(self) -> None:
        writes = self._leader.nats.writes
        new, self._seen = writes[self._seen :], len(writes)
        times, self._times = self._times, []
        for moment, data in zip(times, new, strict=True):
            self._frames += [(moment, frame) for frame in parse_frames(data)]

    def _collect_and_take(self, subject: str = "") -> list[Frame]:
        self._collect()
        self._seen = 0
        return self._take(subject)
