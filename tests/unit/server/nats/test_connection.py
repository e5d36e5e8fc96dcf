"""Covers server/nats/connection.py against a fake server; tests/integration/test_nats_connection.py has the real one."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

import pytest

from server.errors import NatsUnavailableError, ProtocolError
from server.nats.address import Login
from server.nats.connection import FIRST_PONG_S, PING_INTERVAL_S, RECONNECT_WAIT_S, SILENCES_MAX
from server.nats.dial import NO_SERVERS, Security
from tests.support.ports import HOST, free_port
from tests.unit.server.nats.harness import FakeNats, Recorder


class MovedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock the test moves."""

    offset_s = 0.0
    stopped_at_s: float | None = None

    def time(self) -> float:
        return super().time() + self.offset_s if self.stopped_at_s is None else self.stopped_at_s


def run_moved(test: Callable[[MovedLoop], Coroutine[None, None, None]]) -> None:
    """Run `test` on a loop with a moved clock."""
    with asyncio.Runner(loop_factory=MovedLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, MovedLoop)
        runner.run(test(loop))


def tasks_of_connections() -> int:
    """Tasks of connections under test and of the library's clients below them, that still run."""
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    return sum(name.startswith(("NatsConnection.", "Client.", "_Client.")) for name in names)


@pytest.mark.asyncio
async def test_subscriptions_are_written_before_the_connection_is_told() -> None:
    """What the owner writes when it learns of a (re)connection comes behind all SUB lines, which are one write."""
    async with FakeNats() as server:
        recorder = Recorder(server.url, on_connected=lambda connection: connection.write((b"PUB x 0\r\n\r\n",)))
        first = recorder.connection.subscribe("a.>")
        second = recorder.connection.subscribe("b")
        async with recorder as connection:
            expected = b"SUB a.> %d\r\nSUB b %d\r\nPING\r\nPUB x 0\r\n\r\n" % (first, second)
            await server.changes.until(lambda: server.sessions[0].received == expected)
            connection.unsubscribe(first)
            third = connection.subscribe("c")
            (await server.session(0)).close()
            await recorder.reconnected()
            session = await server.session(1)
            expected = b"SUB b %d\r\nSUB c %d\r\nPING\r\nPUB x 0\r\n\r\n" % (second, third)
            await server.changes.until(lambda: session.received == expected)
    assert len({first, second, third}) == 3


@pytest.mark.asyncio
async def test_subscribe_while_connected_is_written_at_once() -> None:
    """Subscribing needs no wait; ending an unknown subscription is an error."""
    async with FakeNats() as server, Recorder(server.url) as connection:
        sid = connection.subscribe("late")
        connection.unsubscribe(sid)
        await connection.barrier()
        assert b"SUB late %d\r\nUNSUB %d\r\nPING\r\n" % (sid, sid) in server.sessions[0].received
        with pytest.raises(KeyError):
            connection.unsubscribe(sid)


@pytest.mark.asyncio
async def test_no_data_before_connected_and_none_lost() -> None:
    """Bytes that came with the handshake are handed on after `on_connected`."""
    async with FakeNats() as server:
        server.after_pong = b'INFO {"max_payload": 77}\r\nMSG s 1 2\r\nhi\r\n'
        recorder = Recorder(
            server.url, on_connected=lambda _: recorder.events.append(f"{len(recorder.messages)} messages")
        )
        async with recorder as connection:
            await recorder.until(lambda: recorder.messages)
            assert recorder.events == ["connected", "0 messages"]
            assert recorder.messages == [(b"MSG s 1 2", b"hi")]
            assert connection.max_payload == 77


@pytest.mark.asyncio
async def test_pings_are_answered() -> None:
    """A PING of the server is answered with a PONG."""
    async with FakeNats() as server, Recorder(server.url):
        session = await server.session(0)
        session.send(b"PING\r\n")
        await server.changes.until(lambda: b"PONG\r\n" in session.received)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"WHAT IS THIS\r\n", "unknown line: b'WHAT IS THIS'"),
        (b"INFO {\r\n", "INFO without an object"),
        (b"-ERR 'Maximum Connections Exceeded'\r\n", "nats: Maximum Connections Exceeded"),
        (b"-ERR 'Stale Connection'\r\n", "nats: Stale Connection"),
        (b"-ERR 'Authorization Violation'\r\n", "nats: Authorization Violation"),
    ],
)
async def test_unreadable_line_or_fatal_error_makes_the_connection_anew(
    sent: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that a server says ends the connection for good; the reason is told and logged."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        async with recorder as connection:
            (await server.session(0)).send(sent)
            await recorder.reconnected()
            await connection.barrier()
    assert len(server.sessions) == 2
    assert reason in recorder.events[1]
    assert reason in caplog.text


@pytest.mark.asyncio
async def test_failing_parser_makes_the_connection_anew(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the receiver is logged with its traceback; the connection comes back and works."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        async with recorder as connection:
            await connection.barrier()
            recorder.failures.append(ZeroDivisionError("bug"))
            (await server.session(0)).send(b"+OK\r\n")
            await recorder.reconnected()
            await connection.barrier()
    assert "disconnected: ZeroDivisionError: bug" in recorder.events
    assert "Traceback" in caplog.text


@pytest.mark.asyncio
async def test_harmless_error_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """O244: it is logged with connection and subject, once per kind in a while, and the connection stays."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        async with recorder as connection:
            session = await server.session(0)
            session.send(b"".join(b"-ERR 'Permissions Violation for Publish to \"s.%d\"'\r\n" % n for n in range(5)))
            session.send(b"MSG a 1 0\r\n\r\n")
            await recorder.until(lambda: recorder.messages)
            assert connection.is_connected
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "Asynchronous error on connection _NSS-test-general, subject s.0: "
        'nats: Permissions Violation for Publish to "s.0"'
    )


@pytest.mark.asyncio
async def test_barriers_are_released_in_order_by_their_pongs() -> None:
    """A barrier waits for the PONG of its own PING, which was written behind everything before."""
    async with FakeNats() as server:
        server.answers_pings = False
        async with Recorder(server.url) as connection:
            session = await server.session(0)
            connection.write((b"PUB a 1\r\nx\r\n",))
            done: list[int] = []
            barriers = [asyncio.create_task(connection.barrier()) for _ in range(2)]
            for number, barrier in enumerate(barriers):
                barrier.add_done_callback(lambda _, number=number: done.append(number))
            await server.changes.until(lambda: session.received.count(b"PING") == 3)
            assert session.received == b"PING\r\nPUB a 1\r\nx\r\nPING\r\nPING\r\n"
            session.send(b"PONG\r\n")  # of the connection's own first ping
            session.send(b"PONG\r\n")
            await asyncio.wait_for(barriers[0], 10)
            assert done == [0]
            session.send(b"PONG\r\n")
            await asyncio.wait_for(barriers[1], 10)
            assert done == [0, 1]


@pytest.mark.asyncio
async def test_barrier_that_nobody_waits_for_takes_its_pong() -> None:
    """After a barrier was given up the next one is not released by the other's PONG."""
    async with FakeNats() as server:
        server.answers_pings = False
        async with Recorder(server.url) as connection:
            session = await server.session(0)
            given_up = asyncio.create_task(connection.barrier())
            await server.changes.until(lambda: session.received.count(b"PING") == 2)
            given_up.cancel()
            second = asyncio.create_task(connection.barrier())
            await server.changes.until(lambda: session.received.count(b"PING") == 3)
            session.send(b"PONG\r\nPONG\r\nPING\r\n")
            await server.changes.until(lambda: b"PONG" in session.received)
            assert not second.done()
            session.send(b"PONG\r\n")
            await asyncio.wait_for(second, 10)


@pytest.mark.asyncio
async def test_barrier_fails_with_the_connection() -> None:
    """Who waits learns that the connection went down, at once and when it is down already."""
    async with FakeNats() as server:
        server.answers_pings = False
        recorder = Recorder(server.url)
        async with recorder as connection:
            barrier = asyncio.create_task(connection.barrier())
            session = await server.session(0)
            await server.changes.until(lambda: session.received.count(b"PING") == 2)
            session.close()
            with pytest.raises(NatsUnavailableError):
                await asyncio.wait_for(barrier, 10)
            assert not connection.is_connected
            with pytest.raises(NatsUnavailableError):
                await connection.barrier()


@pytest.mark.asyncio
async def test_writes_while_down_are_dropped_and_never_replayed() -> None:
    """B236: a write without connection says False, and no later connection sees it."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        async with recorder as connection:
            (await server.session(0)).close()
            await recorder.until(lambda: not connection.is_connected)
            assert connection.write((b"PUB stale 0\r\n\r\n",)) is False
            assert not connection.is_writable
            await recorder.reconnected()
            assert connection.write((b"PUB ", b"fresh 0\r\n\r\n")) is True
            await connection.barrier()
            assert b"PUB fresh 0\r\n\r\n" in server.sessions[1].received
            assert b"stale" not in server.sessions[1].received


@pytest.mark.asyncio
async def test_server_that_does_not_read_makes_us_unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the high-water mark `is_writable` says so and `on_writable` tells the end; above the bound writes are dropped."""
    monkeypatch.setattr("server.nats.connection.WRITE_BUFFER_MAX", 32 << 20)
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        async with recorder as connection:
            await connection.barrier()
            session = server.sessions[0]
            session.reads.clear()
            chunk = b"x" * (4 << 20)
            written = 2
            for _ in range(written):  # not more than the high-water mark, wherever the bytes are
                connection.write((chunk,))
            assert connection.is_writable
            while connection.write((chunk,)):
                written += 1
            assert not connection.is_writable
            assert connection.is_connected
            assert written >= 8
            session.reads.set()
            await recorder.until(lambda: "writable" in recorder.events)
            assert connection.is_writable


@pytest.mark.asyncio
async def test_paused_reading_lasts_over_a_reconnect() -> None:
    """Nothing is received until `resume_reading`, whichever transport it is."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        async with recorder as connection:
            (await server.session(0)).close()
            await recorder.until(lambda: not connection.is_connected)
            connection.pause_reading()
            await recorder.reconnected()
            session = await server.session(1)
            session.send(b"MSG a 1 0\r\n\r\n")
            for number in range(3):  # time for the loop to read, if it did
                connection.write((b"PUB probe.%d 0\r\n\r\n" % number,))
                await server.changes.until(lambda number=number: b"probe.%d" % number in session.received)
            assert recorder.messages == []
            connection.resume_reading()
            await recorder.until(lambda: recorder.messages)
            connection.pause_reading()
            session.send(b"MSG b 1 0\r\n\r\n")
            connection.write((b"PUB probe.x 0\r\n\r\n",))
            await server.changes.until(lambda: b"probe.x" in session.received)
            assert len(recorder.messages) == 1


def test_pause_does_not_make_a_server_stale() -> None:
    """A server that we do not listen to is not silent by its own will; pings go on, to notice its end."""

    async def paused(loop: MovedLoop) -> None:
        async with FakeNats() as server:
            recorder = Recorder(server.url)
            async with recorder as connection:
                await connection.barrier()
                connection.pause_reading()
                session = server.sessions[0]
                loop.offset_s += FIRST_PONG_S
                for pings in range(3, 3 + 2 * SILENCES_MAX):
                    await server.changes.until(lambda pings=pings: session.received.count(b"PING") == pings)
                    loop.offset_s += PING_INTERVAL_S
                assert connection.is_connected
                assert recorder.events == ["connected"]

    run_moved(paused)


@pytest.mark.asyncio
async def test_any_server_of_the_list_is_used_and_announced_ones_too() -> None:
    """A reconnect goes to whichever server answers, configured or announced by INFO."""
    async with FakeNats() as announced:
        async with FakeNats() as first:
            first.info["connect_urls"] = [f"{HOST}:{announced.port}"]
            recorder = Recorder(f"nats://{HOST}:{free_port()}", first.url)
            connection = await recorder.__aenter__()
            assert connection.connected_url == first.url
        await recorder.reconnected()
        assert connection.connected_url == announced.url
        await connection.close()


@pytest.mark.asyncio
async def test_first_connection_must_succeed() -> None:
    """O241: nobody there is an error with the original's text, without a second try."""
    recorder = Recorder(f"nats://u:secret@{HOST}:{free_port()}", f"nats://{HOST}:{free_port()}")
    with pytest.raises(NatsUnavailableError) as caught:
        await recorder.connection.connect()
    assert str(caught.value) == NO_SERVERS == "nats: no servers available for connection"
    assert len(caught.value.reasons) == 2
    assert "secret" not in repr(caught.value.reasons)
    assert recorder.events == []
    await recorder.connection.close()


@pytest.mark.asyncio
async def test_first_connection_tells_why_a_server_refused() -> None:
    """A server that is there and does not want us is the text, as in the original's client."""
    async with FakeNats() as server:
        server.pong = b"-ERR 'Authorization Violation'\r\n"
        recorder = Recorder(f"nats://{HOST}:{free_port()}", server.url)
        with pytest.raises(NatsUnavailableError, match=r"^nats: Authorization Violation$"):
            await recorder.connection.connect()


@pytest.mark.asyncio
async def test_log_shows_no_login(caplog: pytest.LogCaptureFixture) -> None:
    """O243: the two lines of a loss, with `[REDACTED]` in place of the login."""
    caplog.set_level(logging.DEBUG, logger="server")
    async with FakeNats() as server:
        recorder = Recorder(
            f"nats://bob:secret@{HOST}:{server.port}", security=Security(login=Login(user="carl", password="hidden"))
        )
        expected = [
            'connection "_NSS-test-general" has been disconnected: EOF',
            f'connection "_NSS-test-general" reconnected to NATS Server at "nats://[REDACTED]@{HOST}:{server.port}"',
        ]
        async with recorder as connection:
            await connection.barrier()
            (await server.session(0)).close()
            await recorder.reconnected()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("server")]
    assert lines == expected
    assert not {"bob", "secret", "carl", "hidden"} & set(caplog.text.replace(":", " ").split())


def test_attempts_are_a_quarter_of_a_second_apart() -> None:
    """O243: a server that ends every connection is not hammered."""

    async def lost(loop: MovedLoop) -> None:
        async with FakeNats() as server:
            recorder = Recorder(server.url)
            async with recorder as connection:
                await connection.barrier()
                loop.stopped_at_s = loop.time()
                server.sessions[0].close()
                await recorder.until(lambda: not connection.is_connected)
                for _ in range(5):  # others get through meanwhile
                    reader, writer = await asyncio.open_connection(HOST, server.port)
                    await reader.readline()
                    writer.close()
                assert len(server.sessions) == 1
                loop.stopped_at_s += RECONNECT_WAIT_S
                await recorder.reconnected()
                assert len(server.sessions) == 2

    run_moved(lost)


def test_silent_server_is_given_up_after_missed_pings() -> None:
    """A server that does not speak for two ping intervals is stale; one that speaks is kept."""

    async def silence(loop: MovedLoop) -> None:
        async with FakeNats() as server:
            recorder = Recorder(server.url)
            async with recorder as connection:
                await connection.barrier()
                session = server.sessions[0]
                loop.offset_s += FIRST_PONG_S
                await server.changes.until(lambda: session.received.count(b"PING") == 3)
                await connection.barrier()
                session.answers_pings = False
                for pings in range(5, 5 + SILENCES_MAX):
                    assert connection.is_connected
                    loop.offset_s += PING_INTERVAL_S
                    await server.changes.until(lambda pings=pings: session.received.count(b"PING") == pings)
                loop.offset_s += PING_INTERVAL_S
                await recorder.until(lambda: "disconnected: nats: stale connection" in recorder.events)
                await recorder.reconnected()

    run_moved(silence)


def test_server_that_ended_during_the_handover_is_noticed() -> None:
    """The end may come before our protocol took the transport; then the first PONG is missed soon."""

    async def ended(loop: MovedLoop) -> None:
        async with FakeNats() as server:
            server.answers_pings = False
            recorder = Recorder(server.url)
            async with recorder:
                loop.offset_s += FIRST_PONG_S
                await recorder.reconnected()

    run_moved(ended)


@pytest.mark.asyncio
async def test_close_writes_what_waits_and_ends_everything() -> None:
    """What was written before `close` arrives; `on_closed` is the last event; a second call is harmless."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        connection = await recorder.__aenter__()
        payload = b"x" * (2 << 20)
        connection.write((b"PUB last %d\r\n" % len(payload), payload, b"\r\n"))
        await connection.close()
        await connection.close()
        session = await server.session(0)
        await server.changes.until(lambda: session.received.endswith(b"x\r\n"))
        assert recorder.events == ["connected", "closed: closed"]
        assert connection.write((b"x",)) is False
        assert tasks_of_connections() == 0


@pytest.mark.asyncio
async def test_reconnect_frees_the_connection_before() -> None:
    """What the library keeps per connection does not grow with the number of reconnects."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        async with recorder as connection:
            await connection.barrier()
            before = tasks_of_connections()
            for times in (1, 2):
                server.sessions[-1].close()
                await recorder.reconnected(times)
                await connection.barrier()
            assert tasks_of_connections() == before > 0


@pytest.mark.asyncio
async def test_close_while_reconnecting_ends_the_attempts() -> None:
    """A shutdown does not wait for a NATS server to come back."""
    async with FakeNats() as server:
        recorder = Recorder(server.url)
        connection = await recorder.__aenter__()
    await recorder.until(lambda: not connection.is_connected)
    await asyncio.wait_for(connection.close(), 10)
    assert recorder.events[-1] == "closed: closed"


@pytest.mark.asyncio
async def test_bug_in_a_callback_is_reported_as_closed(caplog: pytest.LogCaptureFixture) -> None:
    """The connection never ends in silence: who owns it is told that it is not kept any more."""
    async with FakeNats() as server:

        def fail_second_time(_: object) -> None:
            if recorder.events.count("connected") == 2:
                raise ZeroDivisionError("bug")

        recorder = Recorder(server.url, on_connected=fail_second_time)
        async with recorder:
            (await server.session(0)).close()
            await recorder.until(lambda: recorder.events[-1].startswith("closed"))
    assert recorder.events[-1] == "closed: ZeroDivisionError: bug"
    assert "cannot be kept" in caplog.text


@pytest.mark.asyncio
async def test_unknown_control_line_raises_to_the_parser() -> None:
    """The parser sees the error of the line it handed over."""
    async with FakeNats() as server, Recorder(server.url) as connection:
        with pytest.raises(ProtocolError):
            connection.on_control(b"HELLO")
