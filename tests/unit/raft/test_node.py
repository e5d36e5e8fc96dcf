"""Covers raft/node.py: one member on its own, driven by a loop and a disk that the test moves."""

import asyncio
import random

import pytest

from raft.engine import NO_OP, REGULAR, Role
from raft.errors import NotLeaderError, RecoveryError
from raft.journal.writer import MemoryWriter
from raft.membership import Configuration
from raft.node import NodeEvents, RaftNode
from raft.proposals import Applied, Unknown
from tests.unit.raft.cores import GENESIS, Store, config_entry, founded, member
from tests.unit.raft.nodes import Harness


@pytest.fixture
def harness(loop, new_log):
    """A new cluster of one."""
    return Harness(loop, new_log())


def test_lone_member_leads_once_its_noop_is_durable(harness):
    """A cluster of one elects itself at once, without a timer, and serves when its own no-op is synced and applied."""
    harness.node.start()
    assert harness.node.role is Role.LEADER
    harness.loop.move_to(harness.loop.now + 3600)
    assert not harness.node.is_serving
    assert harness.told == []
    harness.sync()
    assert harness.told == [("leading", 1)]
    assert harness.node.is_serving
    assert (harness.node.term, harness.node.last_applied) == (1, 3)
    assert harness.loop.made == 0


def test_leader_that_does_not_serve_yet_takes_no_proposals(harness):
    """Before its own no-op is applied a leader has committed entries it has not applied: nothing is decided on them."""
    harness.node.start()
    with pytest.raises(NotLeaderError):
        harness.propose(b"early")
    harness.sync()
    assert harness.told == [("leading", 1)]
    assert harness.store.applied == []


def test_outcome_comes_after_the_sync_and_not_before(harness):
    """A proposal is written at once and applied only when the writer has reported its sync."""
    harness.started()
    index = harness.propose(b"x")
    assert index == 4
    assert len(harness.writer.groups) == 1
    harness.loop.move_to(harness.loop.now + 3600)
    assert (harness.told, harness.store.applied) == ([], [])
    harness.writer.complete()
    assert harness.told == [(b"x", Applied(b"x"))]
    assert harness.store.applied == [(4, b"x")]


def test_node_alone_may_wait_for_its_disk(harness):
    """Nobody takes over from it while it does."""
    harness.started()
    harness.propose(b"first")
    assert harness.writer.may_block


def test_parts_are_joined_into_one_entry(harness):
    """Bytes and views make one entry, in order."""
    harness.started()
    harness.node.propose([b"ab", memoryview(b"cd"), b""], harness.told.append)
    harness.sync()
    assert harness.told == [Applied(b"abcd")]


def test_proposals_during_a_write_share_the_next(harness):
    """While one write is under way the next group collects; outcomes come in order of proposing."""
    harness.started()
    writes = harness.node.statistics().writes
    for number in range(10):
        harness.propose(b"%d" % number)
    assert harness.node.statistics().writes == writes + 1
    harness.writer.complete()
    assert harness.told == [(b"0", Applied(b"0"))]
    harness.writer.complete()
    assert [data for data, _ in harness.told] == [b"%d" % number for number in range(10)]
    assert harness.node.statistics().writes == writes + 2


def test_next_write_starts_before_the_last_one_is_applied(harness):
    """The disk works on the next group while the outcomes of the last one are told."""
    harness.started()
    busy = []
    harness.node.propose([b"x"], lambda outcome: busy.append(len(harness.writer.groups)))
    harness.propose(b"y")
    harness.writer.complete()
    assert busy == [1]


def test_propose_inside_done_starts_its_write_at_once(harness):
    """The next entry can be sealed first thing in `done`: its write is under way before `done` returns."""
    harness.started()
    seen = []

    def done(outcome):
        index = harness.propose(b"second")
        seen.append((outcome, index, len(harness.writer.groups)))

    harness.node.propose([b"first"], done)
    harness.writer.complete()
    assert seen == [(Applied(b"first"), 5, 1)]
    assert harness.told == []
    harness.writer.complete()
    assert harness.told == [(b"second", Applied(b"second"))]


def test_propose_inside_leading_is_legal(loop, new_log):
    """The first entry of a leadership may be proposed as soon as it is told."""
    harness = Harness(loop, new_log())
    harness.on_leading = lambda: harness.propose(b"first")
    harness.node.start()
    harness.sync()
    assert harness.told == [("leading", 1), (b"first", Applied(b"first"))]


def test_long_chain_of_proposals_stays_in_order(harness):
    """A thousand entries, each proposed by the outcome of one before, eight under way: none is lost or reordered."""
    harness.started()
    total = 1000

    def submit():
        number = len(submitted)
        submitted.append(number)

        def done(outcome):
            told.append((number, outcome))
            if len(submitted) < total:
                submit()

        harness.node.propose([b"%d" % number], done)

    submitted, told = [], []
    for _ in range(8):
        submit()
    harness.sync()
    assert told == [(number, Applied(b"%d" % number)) for number in range(total)]


def test_idle_leader_never_wakes_up(harness):
    """Without peers there is no heartbeat: no timer is made and no tick happens while nothing is proposed."""
    harness.started()
    before = harness.node.statistics()
    harness.loop.move_to(harness.loop.now + 3600)
    assert harness.node.statistics() == before
    assert (harness.loop.made, harness.loop.timers) == (0, [])


def test_one_proposal_costs_one_tick(harness):
    """The tick follows the sync; nothing else makes one."""
    harness.started()
    before = harness.node.statistics().ticks
    harness.propose(b"x")
    harness.sync()
    assert harness.node.statistics().ticks == before + 1


def test_statistics_show_where_the_log_stands(harness):
    """Indexes of the log's end, its durable part, commit and apply are shown apart."""
    harness.started()
    harness.propose(b"x")
    statistics = harness.node.statistics()
    assert (statistics.role, statistics.term, statistics.leader_id, statistics.is_serving) == (
        Role.LEADER,
        1,
        "a",
        True,
    )
    assert (statistics.last_index, statistics.durable_index) == (4, 3)
    assert (statistics.commit_index, statistics.last_applied, statistics.waiting_proposals) == (3, 3, 1)
    assert statistics.journal_bytes_in_memory > 0
    assert (statistics.members, statistics.peers, statistics.is_held) == (("a",), (), False)


@pytest.mark.parametrize("applied", [(0, 0), (1, 0), (2, 0), (3, 1), (5, 1), (6, 1)])
def test_restart_applies_each_entry_behind_the_store_once(loop, new_log, applied):
    """The journal is replayed from the store's last applied entry + 1, by the new leader's commit (Raft 5.4.2)."""
    entries = [*founded("a"), (NO_OP, 3, 1), *((REGULAR + b"%d" % index, index, 1) for index in (4, 5, 6))]
    harness = Harness(loop, new_log(entries), Store(*applied, names="a" if applied[0] > 1 else None))
    harness.node.start()
    assert harness.store.applied == []
    harness.sync()
    assert harness.store.applied == [(index, b"%d" % index) for index in (4, 5, 6) if index > applied[0]]
    assert harness.told == [("leading", harness.node.term)]
    assert harness.store.at == (7, 2)


def test_leading_is_told_after_a_long_replay(loop, new_log):
    """A replay longer than one tick's share goes on by itself, and the node serves only at its end."""
    count = 5000
    entries = [*founded("a"), *((REGULAR + b"x", index, 1) for index in range(3, count))]
    harness = Harness(loop, new_log(entries))
    harness.node.start()
    harness.writer.complete()
    assert harness.told == []
    harness.sync()
    harness.loop.run()
    assert harness.told == [("leading", 2)]
    assert harness.store.at == (count, 2)


def test_failure_during_a_replay_ends_it(loop, new_log):
    """What is left to apply when the member fails stays unapplied."""
    entries = [*founded("a"), *((REGULAR + b"x", index, 1) for index in range(3, 5000))]
    harness = Harness(loop, new_log(entries))
    harness.node.start()
    harness.writer.complete()
    applied = len(harness.store.applied)
    assert 0 < applied < 4000
    harness.node.fail(OSError("gone"))
    loop.run()
    assert len(harness.store.applied) == applied


@pytest.mark.parametrize("applied", [(9, 3), (5, 2)])
def test_store_ahead_of_the_journal_is_continued(loop, new_log, applied):
    """A store newer than the journal, or with another term at its end, is the base of a new journal."""
    entries = [*founded("a"), *((REGULAR + b"%d" % index, index, 1) for index in range(3, 7))]
    harness = Harness(loop, new_log(entries), Store(*applied, names="a")).started()
    assert harness.store.applied == []
    assert harness.propose(b"next") == applied[0] + 2
    harness.sync()
    assert harness.store.applied == [(applied[0] + 2, b"next")]
    assert harness.node.term > applied[1]


def test_gap_between_store_and_journal_refuses_to_start(loop, new_log):
    """A journal that begins behind the next entry to apply cannot be continued."""
    entries = [(REGULAR + b"x", index, 1) for index in range(5, 9)]
    with pytest.raises(RecoveryError, match="begins with entry 5, the store ends with entry 2"):
        Harness(loop, new_log(entries), Store(2, 1, names="a"))


def test_apply_error_is_fatal_and_nothing_more_is_applied(harness):
    """An entry is never skipped: the node stops, says why once, and every waiting proposal ends as `Unknown`."""
    harness.started()
    harness.propose(b"x")
    harness.propose(b"y")
    harness.store.error = OSError("map is full")
    harness.writer.complete()
    assert harness.told == ["lost", (b"x", Unknown()), (b"y", Unknown()), ("fatal", "map is full")]
    harness.store.error = None
    harness.sync()
    assert len(harness.told) == 4
    assert harness.store.applied == []
    assert not harness.node.is_serving
    with pytest.raises(NotLeaderError):
        harness.propose(b"z")


def test_error_of_a_done_is_fatal(harness):
    """Whoever waits for an outcome must not fail: the entry is applied, the node stops and says why."""
    harness.started()

    def broken(outcome):
        raise RuntimeError("bug in done")

    harness.node.propose([b"x"], broken)
    harness.propose(b"y")
    harness.writer.complete()
    assert harness.told == ["lost", (b"y", Unknown()), ("fatal", "bug in done")]


def test_failed_write_is_fatal(harness):
    """A failed sync is never retried: all proposals end as `Unknown` and nothing is written any more."""
    harness.started()
    harness.propose(b"x")
    harness.propose(b"y")
    writes = harness.node.statistics().writes
    harness.node.fail(OSError("no space left on device"))
    assert harness.told == ["lost", (b"x", Unknown()), (b"y", Unknown()), ("fatal", "no space left on device")]
    harness.node.fail(OSError("again"))
    harness.sync()
    assert len(harness.told) == 4
    assert (harness.store.applied, harness.node.statistics().writes) == ([], writes)
    with pytest.raises(NotLeaderError):
        harness.propose(b"z")


def test_failed_write_before_leading_is_fatal(harness):
    """A member that never led has no leadership to lose."""
    harness.node.start()
    harness.node.fail(OSError("read-only file system"))
    assert harness.told == [("fatal", "read-only file system")]


def test_close_finishes_what_is_under_way(harness):
    """A proposal in flight at the end is still written, committed and told; then leadership ends."""

    async def scenario():
        harness.started()
        harness.propose(b"x")
        harness.propose(b"y")
        closing = asyncio.create_task(harness.node.close())
        await asyncio.sleep(0)
        assert not closing.done()
        with pytest.raises(NotLeaderError):
            harness.propose(b"late")
        harness.writer.complete()
        await asyncio.sleep(0)
        assert not closing.done()
        harness.writer.complete()
        await asyncio.wait_for(closing, 5)
        assert harness.told == [(b"x", Applied(b"x")), (b"y", Applied(b"y")), "lost"]
        assert harness.writer.groups == []

    asyncio.run(scenario())


def test_close_during_a_replay_finishes_it(loop, new_log):
    """What is committed is applied before the member ends; it does not begin to lead any more."""
    entries = [*founded("a"), *((REGULAR + b"x", index, 1) for index in range(3, 5000))]

    async def scenario():
        harness = Harness(loop, new_log(entries))
        harness.node.start()
        harness.writer.complete()
        closing = asyncio.create_task(harness.node.close())
        await asyncio.sleep(0)
        assert not closing.done()
        loop.run()
        await asyncio.wait_for(closing, 5)
        assert harness.store.at == (5000, 2)
        assert harness.told == []

    asyncio.run(scenario())


def test_close_of_an_idle_or_failed_member_returns(loop, new_log):
    """There is nothing to wait for when nothing is being written, or nothing ever will be."""

    async def scenario():
        idle = Harness(loop, new_log()).started()
        await asyncio.wait_for(idle.node.close(), 5)
        await asyncio.wait_for(idle.node.close(), 5)
        assert idle.told == ["lost"]
        never_started = Harness(loop, new_log(), is_formed=False)
        await asyncio.wait_for(never_started.node.close(), 5)
        assert never_started.told == []
        failed = Harness(loop, new_log()).started()
        failed.propose(b"x")
        failed.node.fail(OSError("gone"))
        await asyncio.wait_for(failed.node.close(), 5)
        assert failed.told == ["lost", (b"x", Unknown()), ("fatal", "gone")]

    asyncio.run(scenario())


def test_failure_while_closing_ends_the_closing(harness):
    """A write that fails during close is told like any other and does not leave close waiting."""

    async def scenario():
        harness.started()
        harness.propose(b"x")
        closing = asyncio.create_task(harness.node.close())
        await asyncio.sleep(0)
        harness.node.fail(OSError("gone"))
        await asyncio.wait_for(closing, 5)
        assert harness.told == ["lost", (b"x", Unknown()), ("fatal", "gone")]

    asyncio.run(scenario())


def test_trim_keeps_what_the_store_lacks(harness):
    """The journal forgets what the store holds durably; a cluster of one keeps no more than that."""
    harness.started()
    for number in range(20):
        harness.propose(b"%d" % number)
        harness.sync()
    harness.node.trim(10)
    assert (harness.log[0][1], harness.log[-1][1]) == (10, 23)
    harness.node.trim(23)
    assert [index for _, index, _ in harness.log[:]] == [22, 23]
    harness.propose(b"after")
    harness.sync()
    assert harness.told[-1] == (b"after", Applied(b"after"))


def test_founding_needs_a_journal_that_never_belonged_to_a_cluster(loop, new_log):
    """A second founding would be another cluster with the same name."""
    harness = Harness(loop, new_log())
    assert not harness.node.is_new
    with pytest.raises(AssertionError):
        harness.node.form(Configuration.of(GENESIS, [harness.me]))
    with pytest.raises(AssertionError):
        Harness(loop, new_log(founded("a")), is_formed=True)


def test_foundation_survives_a_crash_right_behind_it(loop, new_log):
    """What the founding node has synced is all it takes: after a restart it is a cluster of one, and leads."""
    first = Harness(loop, new_log())
    first.sync()
    assert first.log[:2] == founded("a")
    again = Harness(loop, new_log(first.log[:2])).started()
    assert (again.node.configuration.node_ids, again.store.config) == (("a",), config_entry(2, "a")[0][1:])


def test_new_node_waits_for_its_cluster(loop, new_log):
    """Without a configuration a node elects nobody, however long it takes."""
    harness = Harness(loop, new_log(), is_formed=False)
    harness.node.start()
    harness.sync()
    loop.move_to(loop.now + 3600)
    assert (harness.node.role, harness.node.term, harness.node.is_new, harness.told) == (Role.FOLLOWER, 0, True, [])


@pytest.mark.parametrize("seed", range(25))
def test_crashes_lose_nothing_acked_and_apply_nothing_twice(loop, new_log, seed):
    """However much of the unsynced journal and of the unsynced store a crash takes: what was acked is applied, once."""
    chance = random.Random(seed)
    acked, sent = [], 0
    log, store = new_log(), Store()
    for _ in range(8):
        harness = Harness(loop, log, store)
        harness.node.start()
        for _ in range(chance.randrange(30)):
            if chance.random() < 0.5 and harness.writer.groups:
                harness.writer.complete()
            if harness.node.is_serving:
                harness.propose(b"%d" % sent)
                sent += 1
            if chance.random() < 0.1:
                harness.node.trim(chance.randint(0, store.at[0]))
        outcomes = [told for told in harness.told if told[0] != "leading"]
        assert all(outcome == Applied(data) for data, outcome in outcomes)
        acked += [data for data, _ in outcomes]

        end = chance.randint(log.durable_index, log[-1][1])
        survived = [entry for entry in log[:] if entry[1] <= end]
        oldest = max(0, survived[0][1] - 1 if survived else 0)
        kept = chance.randint(min(oldest, store.at[0]), store.at[0])
        terms = {index: term for _, index, term in log[:]}
        log, store = new_log(survived), store.restored(kept, terms.get(kept, 0))
    final = Harness(loop, log, store).started()
    data = [value for _, value in final.store.applied]
    assert len(data) == len(set(data))
    assert [value for value in data if value in set(acked)] == acked


def test_runs_on_an_asyncio_loop_with_a_journal_in_memory(new_log):
    """The running loop and a memory writer are all a node needs."""

    async def scenario():
        leading, done = asyncio.Event(), asyncio.Event()
        told = []

        def applied(outcome):
            told.append(outcome)
            if len(told) == 3:
                done.set()

        node = RaftNode(
            member=member("a"),
            log=new_log(),
            writer=MemoryWriter(asyncio.get_running_loop().call_soon),
            state_machine=Store(),
            events=NodeEvents(leading=lambda term: leading.set(), lost=leading.clear, fatal=told.append),
        )
        node.form(Configuration.of(GENESIS, [member("a")]))
        node.start()
        await asyncio.wait_for(leading.wait(), 5)
        for data in (b"x", b"y", b"z"):
            node.propose([data], applied)
        assert told == []
        await asyncio.wait_for(done.wait(), 5)
        assert told == [Applied(b"x"), Applied(b"y"), Applied(b"z")]
        await asyncio.wait_for(node.close(), 5)
        assert not leading.is_set()

    asyncio.run(scenario())
