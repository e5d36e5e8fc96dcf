"""The same entries give the same state and results, in whatever groups and over whatever restarts they come."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from store.machine.state import Block
from tests.support.store_digest import digest
from tests.unit.store.builders import Host, opened
from tests.unit.store.random_log import RandomLog


def comparable(results):
    return [
        [(one.first_seq, bytes(one.data), one.index) if isinstance(one, Block) else one for one in entry]
        for entry in results
    ]


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 30), st.sampled_from([0, 2000, 1 << 20]))
def test_groups_and_restarts_do_not_matter(random, count, tail_max_bytes):
    """One by one, in groups, and closed and opened in between, with and without a tail to read from."""
    entries = RandomLog(random).extend(count)
    with opened(None) as (store, _):
        expected_results = comparable(store.apply([entry])[0] for entry in entries)
        expected = digest(store)
        expected_applied = store.last_applied()
    with TemporaryDirectory() as directory:
        host = Host()
        store = host.open(Path(directory), tail_max_bytes=tail_max_bytes)
        found_results = []
        position = 0
        while position < count + 1:
            group = entries[position : position + random.randint(1, 5)]
            found_results += comparable(store.apply(group))
            position += len(group)
            what = random.choice(["nothing", "turn", "flush", "reopen"])
            if what == "turn":
                host.run_ready()
            elif what == "flush":
                store.flush()
            elif what == "reopen":
                store.close()
                store = host.open(Path(directory), tail_max_bytes=tail_max_bytes)
                assert store.last_applied() == (entries[position - 1].index, entries[position - 1].term)
                assert store.durable_index() == position
        assert found_results == expected_results
        assert digest(store) == expected
        assert store.last_applied() == expected_applied
        store.close()
        store = host.open(Path(directory))
        assert digest(store) == expected
        store.close()
    assert host.fatal == []
