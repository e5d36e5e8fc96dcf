"""A process of its own that appends to a journal and says what it was told is durable.

Arguments: directory, number of entries, largest file in bytes (0: no limit). Lines on standard output:
`acked INDEX TERM FIRST` after each group, `failed CLASS ERRNO` when the writer failed, `closed` at the end.
"""

import asyncio
import resource
import sys
from pathlib import Path

from raft.errors import SyncFailedError
from raft.journal.files import OpenJournal
from raft.journal.writer import FileWriter
from tests.unit.raft.journal.journals import command, open_small


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def run(journal: OpenJournal, count: int) -> None:
    loop = asyncio.get_running_loop()
    failure: asyncio.Future[BaseException] = loop.create_future()
    writer = FileWriter(
        journal.files, post=loop.call_soon_threadsafe, post_here=loop.call_soon, on_failure=failure.set_result
    )
    log = journal.log
    first = log[-1][1] + 1 if len(log) else 1
    for index in range(first, first + count):
        term = index // 4
        log.setCurrentTerm(term, "n1")
        log.add(command(index, term), index, term)
        log.trim(index - 10)
        done: asyncio.Future[object] = loop.create_future()
        group = log.take()
        assert group is not None
        writer.submit(group, done.set_result, may_block=True)
        await asyncio.wait([done, failure], return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            break
        log.done(group)
        say("acked", index, term, log[0][1])
    if failure.done():
        error = failure.result()
        assert isinstance(error, SyncFailedError)
        assert isinstance(error.__cause__, OSError)
        log.add(b"late", log[-1][1] + 1, log[-1][2])
        late = log.take() if log.synced == log.lsn else group
        assert late is not None
        writer.submit(late, lambda _: say("acked after a failure"), may_block=True)
        say("failed", type(error).__name__, error.__cause__.errno)
    writer.close()
    say("closed")


def main() -> None:
    journal = open_small(Path(sys.argv[1]))
    limit = int(sys.argv[3])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    asyncio.run(run(journal, int(sys.argv[2])))


if __name__ == "__main__":
    main()
