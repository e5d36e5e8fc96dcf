"""Kills the server under load, round after round, and checks that nothing acked is lost: R1 to R5, and R10 for durables.

    python tools/kill_rounds.py --rounds 20 [--seed N] [--external-nats]

A round: publishers (with windows and one by one) load a few channels while a durable subscriber and a durable queue group,
whose members belong to two clients, receive and ack; at a moment drawn from the seed the server gets kill -9; it is started again on the same directory and port; a fresh reader
reads what is new and the checker compares it with the history. After the last round: an orderly stop, a start, and
everything is read again from the first message. One line per round, then `N passed, M failed`. The first failure ends
the run with exit status 1 and keeps the directory.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from server.protocol import stan_pb2 as pb
from tests.support.history import History, Outcome, Violation, check, compare_readers
from tests.support.load import Worker, id_of, read_channel
from tests.support.nats_process import NatsProcess
from tests.support.raw_client import RawClient, RawSubscription
from tests.support.server_process import SIGTERM_STATUS, ServerProcess

CHANNELS = ("kill.a", "kill.b", "kill.c")
WINDOWS = (1024, 256, 32, 1)
"""Outstanding publishes of each publisher."""

LOAD_MIN_S, LOAD_MAX_S = 0.02, 0.8
"""Bounds of the load's length before the kill."""

OVERLAP = 16
"""Sequences read again in the next round, to see that they still hold the same messages (R4)."""

DURABLE = "kill-durable"
DURABLE_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Receiver:
    """A durable, or a durable queue group with a member for each item of `clients`, and what came over all rounds."""

    channel: str
    group: str
    clients: tuple[str, ...]
    sequences: set[int] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    subscriptions: list[RawSubscription] = field(default_factory=list)
    """Of this round."""

    async def subscribe(self, clients: dict[str, RawClient]) -> None:
        """Resume; raises RuntimeError with the text when it is refused."""
        self.subscriptions = [
            await clients[name].subscribe(self.channel, start=pb.First, durable_name=DURABLE, queue_group=self.group)
            for name in self.clients
        ]
        for subscription in self.subscriptions:
            if subscription.error:
                raise RuntimeError(f"{self}: refused: {subscription.error}")

    def received_ids(self) -> set[str]:
        """Of this round."""
        return {id_of(message.data) for one in self.subscriptions for message in one.received}

    def note(self) -> list[Violation]:
        """Adds what came in this round; what came before and comes again without the flag is a violation (B420)."""
        self.ids |= self.received_ids()
        unflagged = [m.sequence for one in self.subscriptions for m in one.received if not m.redelivered]
        doubled = [seq for seq, times in Counter(unflagged).items() if times > 1 or seq in self.sequences]
        self.sequences.update(m.sequence for one in self.subscriptions for m in one.received)
        if not doubled:
            return []
        return [
            Violation("R16", self.channel, f"{len(doubled)} duplicates without the redelivered flag: {doubled[:5]}")
        ]


@dataclass(slots=True)
class Run:
    """What survives the rounds: the server, the publishers' history, and what readers saw."""

    server: ServerProcess
    random: random.Random
    history: History = field(default_factory=History)
    workers: list[Worker] = field(default_factory=list)
    read: dict[str, dict[int, str]] = field(default_factory=lambda: {channel: {} for channel in CHANNELS})
    receivers: list[Receiver] = field(
        default_factory=lambda: [
            Receiver(CHANNELS[0], "", ("durable",)),
            Receiver(CHANNELS[1], "workers", ("durable", "other", "other")),
        ]
    )
    markers: int = 0

    def marker(self) -> str:
        """An id for the next marker message."""
        self.markers += 1
        return f"marker-{self.markers}"


async def load_until_kill(run: Run) -> tuple[float, list[Violation]]:
    """One load phase that ends with kill -9; its length in seconds and what the durable saw wrong."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(await RawClient.connect(run.server.url, worker.name))
            for worker in run.workers
        ]
        receiving = await connect_receivers(run, stack)
        tasks = [asyncio.create_task(w.run(c)) for w, c in zip(run.workers, clients, strict=True)]
        load_s = run.random.uniform(LOAD_MIN_S, LOAD_MAX_S)
        await asyncio.to_thread(kill_after, run.server, load_s)
        for worker in run.workers:
            worker.stop()
        await asyncio.gather(*tasks)
        for client in [*clients, *receiving]:
            await drain(client, external=run.server.nats_url is not None)
            await client.nats.close()
        return load_s, [violation for receiver in run.receivers for violation in receiver.note()]


async def connect_receivers(run: Run, stack: AsyncExitStack) -> list[RawClient]:
    """Their clients, subscribed."""
    names = {name for receiver in run.receivers for name in receiver.clients}
    clients = {
        name: await stack.enter_async_context(await RawClient.connect(run.server.url, name)) for name in sorted(names)
    }
    for receiver in run.receivers:
        await receiver.subscribe(clients)
    return list(clients.values())


def kill_after(server: ServerProcess, seconds: float) -> None:
    """Kill -9 from a thread: in the loop it would always hit the moment when the publishers have nothing outstanding."""
    time.sleep(seconds)
    server.kill()


async def drain(client: RawClient, *, external: bool) -> None:
    """Returns when every answer that reached the NATS server, or this connection's socket, was read."""
    if external:
        await client.nats.flush()
    else:
        await client.nats.wait_lost()


async def verify(run: Run, client_id: str, *, from_start: bool) -> list[Violation]:
    """Reads the channels with a fresh client and compares with the history and with what was read before."""
    violations = []
    async with await RawClient.connect(run.server.url, client_id) as reader:
        for channel, known in run.read.items():
            start = 1 if from_start else max(1, len(known) - OVERLAP)
            pairs = await read_channel(reader, channel, run.history, run.marker(), start)
            violations += compare_readers(channel, [known.items(), pairs])
            if from_start:
                known.clear()
            known.update(pairs)
    return violations + check(run.history, {channel: list(known.items()) for channel, known in run.read.items()})


async def one_round(run: Run, number: int) -> list[Violation]:
    """Load, kill, restart, verification; prints the round's line."""
    acked_before, all_before = run.history.count(Outcome.OK), len(run.history.publishes)
    load_s, violations = await load_until_kill(run)
    acked = run.history.count(Outcome.OK) - acked_before
    unknown = len(run.history.publishes) - all_before - acked
    started = time.monotonic()
    run.server.start()
    restart_s = time.monotonic() - started
    violations += await verify(run, f"reader-{number}", from_start=False)
    stored = sum(len(known) for known in run.read.values())
    print(
        f"round {number}: killed after {load_s * 1000:.0f} ms, {acked} acked, {unknown} unknown, "
        f"restart {restart_s * 1000:.0f} ms, {stored} stored, {len(violations)} violations",
        flush=True,
    )
    return violations


async def final_check(run: Run) -> list[Violation]:
    """Orderly stop, start, everything again; the durable must get every acked message it has not had (R10)."""
    status = run.server.stop()
    violations = (
        [] if status == SIGTERM_STATUS else [Violation("stop", "server", f"exit status {status} after SIGTERM")]
    )
    run.server.start()
    violations += await verify(run, "reader-final", from_start=True)
    async with AsyncExitStack() as stack:
        await connect_receivers(run, stack)
        for receiver in run.receivers:
            violations += await await_missing(run, receiver)
            violations += receiver.note()
    print(f"final: {run.history.count(Outcome.OK)} acked in total, {len(violations)} violations", flush=True)
    return violations


async def await_missing(run: Run, receiver: Receiver) -> list[Violation]:
    """Every acked message that did not come in any round comes now."""
    acked = {
        p.unique_id for p in run.history.publishes.values() if p.outcome is Outcome.OK and p.channel == receiver.channel
    }
    missing = acked - receiver.ids
    taken = [0] * len(receiver.subscriptions)

    def is_complete() -> bool:
        for index, one in enumerate(receiver.subscriptions):
            missing.difference_update(id_of(message.data) for message in one.received[taken[index] :])
            taken[index] = len(one.received)
        return not missing

    waiting = [
        asyncio.ensure_future(one.wait_until(is_complete, timeout_s=DURABLE_TIMEOUT_S))
        for one in receiver.subscriptions
    ]
    done, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in late:
        task.cancel()
    if all(task.exception() for task in done):
        text = f"{receiver.group or 'the durable'} never got {len(missing)}: {sorted(missing)[:5]}"
        return [Violation("R10", receiver.channel, text)]
    return []


async def all_rounds(run: Run, rounds: int) -> tuple[int, bool]:
    """Runs the rounds and the final check up to the first failure: how many passed, and whether one failed."""
    passed = 0
    for number in range(1, rounds + 2):
        violations = await (one_round(run, number) if number <= rounds else final_check(run))
        for violation in violations:
            print(f"  {violation}", flush=True)
        if violations:
            break
        passed += 1
    refusals = sorted({text for worker in run.workers for text in worker.refusals})
    if refusals:
        print(f"refused publishes: {refusals}", flush=True)
    return passed, passed <= rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="draws the moments of the kills")
    parser.add_argument("--external-nats", action="store_true", help="the NATS server is not the server's child")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds: at least 1, not {options.rounds}")
    directory = Path(tempfile.mkdtemp(prefix="kill-rounds-"))
    with ExitStack() as stack:
        nats = stack.enter_context(NatsProcess()) if options.external_nats else None
        server = ServerProcess(store="FILE", directory=directory, nats_url=nats.url if nats else None)
        stack.callback(server.stop)
        server.start()
        run = Run(server, random.Random(options.seed))
        run.workers = [Worker(f"pub{i}", CHANNELS, window, run.history) for i, window in enumerate(WINDOWS)]
        passed, failed = asyncio.run(all_rounds(run, options.rounds))
        if failed:
            (directory / "server.log").write_text(server.log)
            print(f"kept {directory}; again: --rounds {options.rounds} --seed {options.seed}")
    if not failed:
        shutil.rmtree(directory)
    print(f"{passed} passed, {int(failed)} failed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
