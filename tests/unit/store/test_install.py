"""Covers the snapshots of store/store.py: copies beside everything else, and another node's state in place of one's own."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from store.errors import IdentityError, InvariantError, StoreError, WriteError
from store.store import open_store
from tests.support.store_digest import digest
from tests.unit.store.builders import SETUP, Host, configuration, fill, log_entry, messages, no_op, opened, subscribe
from tests.unit.store.random_log import RandomLog

FOLLOWER = {"node_id": "b", "incarnation": "ff00"}
DEADLINE_S = 30.0

kinds = pytest.mark.parametrize("kind", ["FILE", "MEMORY"])


def directory_for(kind, tmp_path):
    return tmp_path / "follower" if kind == "FILE" else None


def copied(store, directory):
    """A copy in a new directory."""
    directory.mkdir(parents=True)
    return store.copy(directory)


def leader_copy(tmp_path, *, entries=()):
    """A copy of a leader's state after some messages, its digest and last applied entry; `entries` come first."""
    with opened(tmp_path / "leader") as (leader, _):
        leader.apply(list(entries) or [log_entry(1, [*SETUP, subscribe(1, durable="d")])])
        leader.apply([configuration(leader.last_applied()[0] + 1, b"members", term=3)])
        if not entries:
            fill(leader, 300, size=500)
        leader.flush()
        target = tmp_path / "follower" / "incoming"
        assert copied(leader, target) == leader.last_applied()
        return target, digest(leader), leader.last_applied()


def held():
    """Threads and descriptors of this process."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@kinds
def test_copy_contains_what_is_durable(kind, tmp_path):
    """Not what waits: it could be lost here, while the copy has it."""
    with opened(directory_for(kind, tmp_path)) as (store, _):
        store.apply([log_entry(1, SETUP)])
        store.flush()
        store.apply([log_entry(2, [subscribe(1)])])
        store.flush()
        store.apply([no_op(3, term=4)])  # waits for the pause behind the last transaction
        index, term = copied(store, tmp_path / "copy")
        assert (index, term) in {(2, 1), (3, 4)}
        assert store.durable_index() <= index


def test_copies_are_consistent_while_the_store_is_written(tmp_path):
    """Each is what a replay up to its index gives."""
    entries = RandomLog(Random(11), message_max_bytes=3000).extend(239)
    window = 20
    copies = []
    with opened(tmp_path / "leader") as (store, _), ThreadPoolExecutor() as pool:
        for begin in range(0, len(entries), window):
            store.apply(entries[begin : begin + 1])
            store.flush()
            copy = pool.submit(copied, store, tmp_path / f"copy{begin}" / "store")
            for entry in entries[begin + 1 : begin + window]:
                store.apply([entry])
                store.flush()
            index, term = copy.result(DEADLINE_S)
            assert begin < index <= begin + window
            copies.append((tmp_path / f"copy{begin}", index, term))
    with opened(None) as (model, _):
        for directory, index, term in copies:
            model.apply(entries[model.last_applied()[0] : index])
            with opened(directory) as (found, _):
                assert found.last_applied() == (index, term) == model.last_applied()
                assert digest(found) == digest(model)


@kinds
def test_installed_state_is_the_copys(kind, tmp_path):
    """Whatever was there; messages are read, entries go on, and a restart finds it all."""
    with opened(directory_for(kind, tmp_path), tail_max_bytes=10_000, **FOLLOWER) as (store, host):
        store.apply([log_entry(1, SETUP), configuration(2, b"old")])
        fill(store, 50, size=100)
        store.read_messages(store.state.channels["foo"], 1, 50, 1 << 20)
        host.run_until(lambda: store.durable_index() == store.last_applied()[0])
        target, expected, applied = leader_copy(tmp_path)
        old_state, told = store.state, list(host.durable)
        prepared = store.prepare(target)
        fill(store, 3)  # meanwhile
        assert (prepared.index, prepared.term, prepared.configuration) == (*applied, b"members")
        store.install(prepared)
        assert (store.last_applied(), store.durable_index(), store.pending_bytes) == (applied, applied[0], 0)
        assert store.configuration() == b"members"
        assert store.state is not old_state
        assert digest(store) == expected
        assert store.state.tail.max_bytes == 10_000
        assert host.durable == told
        host.run_until(lambda: len(host.durable) > len(told))
        assert host.durable == [*told, applied[0]]
        assert not target.exists()
        fill(store, 30, size=100)
        assert store.read_messages(store.state.channels["foo"], 295, 10, 1 << 20)[1] == [
            *messages(295, 6, size=500),
            *messages(301, 4, size=100),
        ]
        store.flush()
        expected, applied = digest(store), store.last_applied()
        assert host.fatal == []
    if kind == "FILE":
        for _ in range(2):
            with opened(tmp_path / "follower", **FOLLOWER) as (store, _):
                assert (digest(store), store.last_applied(), store.configuration()) == (expected, applied, b"members")
        with pytest.raises(IdentityError), opened(tmp_path / "follower"):
            pass


def test_store_closed_right_after_the_installation(tmp_path):
    """Nothing is left to write."""
    target, expected, applied = leader_copy(tmp_path)
    host = Host()
    store = host.open(tmp_path / "follower", **FOLLOWER)
    store.install(store.prepare(target))
    store.close()
    host.run_ready()
    assert (host.durable, host.fatal) == ([], [])
    with opened(tmp_path / "follower", **FOLLOWER) as (store, _):
        assert (digest(store), store.last_applied(), store.durable_index()) == (expected, applied, applied[0])


@kinds
def test_idle_store_tells_of_the_installation(kind, tmp_path):
    """Nobody else wakes it up: its writer never had anything to do."""
    target, _, applied = leader_copy(tmp_path)
    with opened(directory_for(kind, tmp_path), **FOLLOWER) as (store, host):
        store.install(store.prepare(target))
        assert host.durable == []
        host.run_until(lambda: bool(host.durable))
        assert (host.durable, host.posted.empty()) == ([applied[0]], True)


def test_what_was_not_written_is_dropped(tmp_path):
    """What the old writer says afterwards is not told: it speaks of another state."""
    target, expected, applied = leader_copy(tmp_path)
    with opened(tmp_path / "follower", **FOLLOWER) as (store, host):
        store.apply([log_entry(1, SETUP)])
        fill(store, 200, per_block=100, size=1000)  # the first entry is being written, the rest waits
        store.install(store.prepare(target))
        assert store.pending_bytes == 0
        host.run_until(lambda: bool(host.durable))
        host.run_ready()
        assert (host.durable, host.fatal) == ([applied[0]], [])
        assert digest(store) == expected


@kinds
def test_one_installation_after_another(kind, tmp_path):
    """Of random states, with random entries between; nothing is held on to."""
    before = held()
    random = Random(5)
    log = RandomLog(random, message_max_bytes=300)
    with opened(tmp_path / "leader") as (leader, _), opened(directory_for(kind, tmp_path), **FOLLOWER) as (store, host):
        while_open = held()
        for number in range(6):
            entries = log.extend(25)
            leader.apply(entries[leader.last_applied()[0] :])
            behind = store.last_applied()[0]
            store.apply(entries[behind : behind + random.randint(0, 30)])
            leader.flush()
            target = tmp_path / "follower" / f"incoming{number}"
            assert copied(leader, target) == leader.last_applied()
            store.install(store.prepare(target))
            assert (digest(store), store.last_applied()) == (digest(leader), leader.last_applied())
            assert held() == while_open
        assert host.fatal == []
    assert held() == before


def test_prepared_copy_that_is_not_installed(tmp_path):
    """The store never knew of it."""
    target, _, _ = leader_copy(tmp_path)
    with opened(tmp_path / "follower", **FOLLOWER) as (store, _):
        store.apply([log_entry(1, SETUP)])
        expected = digest(store)
        before = held()
        store.prepare(target).discard()
        assert (digest(store), held(), target.exists()) == (expected, before, False)


def test_older_copy_is_not_installed(tmp_path):
    """What is applied cannot be taken back; one up to the same entry says the same."""
    target, expected, applied = leader_copy(tmp_path)
    with opened(tmp_path / "follower", **FOLLOWER) as (store, host):
        store.apply([no_op(index, term=3) for index in range(1, applied[0] + 1)])
        prepared = store.prepare(target)
        store.install(prepared)
        assert digest(store) == expected
        host.run_until(lambda: host.durable[-1:] == [applied[0]])
        target = tmp_path / "follower" / "second"
        copied(store, target)
        store.apply([no_op(applied[0] + 1, term=3)])
        prepared = store.prepare(target)
        with pytest.raises(InvariantError, match=rf"a copy up to entry {applied[0]} is to replace the state after"):
            store.install(prepared)
        store.apply([no_op(applied[0] + 2, term=3)])
        prepared.discard()


def test_failed_installation_breaks_the_store(tmp_path):
    """Nothing more is applied; the next start finds the old state, since the copy never got there."""
    target, _, _ = leader_copy(tmp_path)
    host = Host()
    store = host.open(tmp_path / "follower", **FOLLOWER)
    store.apply([log_entry(1, SETUP)])
    store.flush()
    expected = digest(store)
    prepared = store.prepare(target)
    (tmp_path / "follower" / "incoming" / "data.mdb").unlink()
    with pytest.raises(WriteError, match=r"store/data\.mdb failed"):
        store.install(prepared)
    with pytest.raises(StoreError, match="the store is broken"):
        store.apply([no_op(2)])
    store.close()
    host.run_ready()
    with opened(tmp_path / "follower", **FOLLOWER) as (store, _):
        assert (digest(store), store.last_applied()) == (expected, (1, 1))


@pytest.mark.parametrize("ending", ["install", "close"])
def test_environment_outlives_a_copy_that_is_being_made(tmp_path, monkeypatch, ending):
    """An installation does not wait for it, closing does; the copy is whole, of the state it began with."""
    target, _, applied = leader_copy(tmp_path)
    begun, may_go_on, events = threading.Event(), threading.Event(), []

    def waiting(environment, directory):
        begun.set()
        assert may_go_on.wait(DEADLINE_S)
        events.append(real(environment, directory))
        return events[-1]

    from store import store as module  # noqa: PLC0415 - to hold up what it calls

    real = module.copy_environment
    monkeypatch.setattr(module, "copy_environment", waiting)
    host = Host()
    store = host.open(tmp_path / "follower", **FOLLOWER)
    store.apply([log_entry(1, SETUP)])
    store.flush()
    thread = threading.Thread(target=copied, args=[store, tmp_path / "copy"])
    thread.start()
    assert begun.wait(DEADLINE_S)
    if ending == "install":
        store.install(store.prepare(target))
        assert store.last_applied() == applied
        may_go_on.set()
        thread.join(DEADLINE_S)
        store.close()
        assert events == [(1, 1)]
    else:

        def close():
            store.close()
            events.append("closed")

        def copy_until_refused():
            while True:
                copied(store, tmp_path / "other")
                shutil.rmtree(tmp_path / "other")

        closing = threading.Thread(target=close)
        store._thread_id = None  # it is closed by another thread here
        closing.start()
        monkeypatch.setattr(module, "copy_environment", real)
        with pytest.raises(StoreError, match="the store is closed"):
            copy_until_refused()
        may_go_on.set()
        closing.join(DEADLINE_S)
        thread.join(DEADLINE_S)
        assert events == [(1, 1), "closed"]
    with pytest.raises(StoreError, match="the store is closed"):
        store.copy(tmp_path)


def test_owner_whose_loop_is_closed_can_still_install(tmp_path):
    """Posting then fails."""
    target, _, applied = leader_copy(tmp_path)

    def post(_function):
        raise RuntimeError("Event loop is closed")

    store = open_store(
        None, cluster_id="test-cluster", node_id="n", incarnation="i", post=post, on_durable=print, on_fatal=print
    )
    store.install(store.prepare(target))
    assert store.last_applied() == applied
    store.close()
