"""Where a clustered node's data lies, by which id it goes, and what is refused instead of guessed."""

import asyncio
import logging
import os
import secrets
import shutil
from pathlib import Path

import pytest

import raft.errors
from raft.engine import CONFIGURATION, NO_OP
from raft.journal.files import open_journal
from raft.membership import Configuration, Member
from server.cluster_record import RECORD_FILE, ClusterRecord, read_record
from server.config.cluster import ClusterOptions
from server.config.model import Options
from server.data import open_data
from server.data_place import JOURNAL_DIRECTORY, NOT_CLUSTERED_TEXT, NOT_STANDALONE_TEXT
from server.errors import DataError
from store.directory import STORE_DIRECTORY
from store.errors import IdentityError
from tests.unit.store.builders import configuration, no_op

GENESIS = bytes(16)
OTHER = Member("other", "f" * 32)


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def opened(loop, tmp_path, monkeypatch):
    """Opens data below a working directory of its own."""
    monkeypatch.chdir(tmp_path)

    def opened(directory="data", *, cluster_id="c", clustered=True, **fields):
        cluster = ClusterOptions.model_validate(fields) if clustered else None
        options = Options(cluster_id=cluster_id, store="FILE", dir=directory, cluster=cluster)
        return open_data(options, loop=loop, on_durable=lambda index: None, on_fatal=lambda error: None)

    return opened


@pytest.fixture
def refusal(opened, tmp_path):
    """Text of the refusal of a start, which changes no file, twice: nothing is left locked."""

    def refusal(*args, error=DataError, **fields):
        before = files(tmp_path)
        texts = []
        for _ in range(2):
            with pytest.raises(error) as caught:
                opened(*args, **fields)
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
        assert files(tmp_path) == before
        return texts[0]

    return refusal


def files(directory):
    """Every file with its content, but the zeros that a journal has ahead; locks come and go."""
    names = (path for path in directory.rglob("*") if path.is_file() and "lock" not in path.name)
    return {str(path): path.read_bytes().rstrip(b"\0") for path in names}


def commit(data, *configurations, applied=None):
    """The log has a no-op and these configurations, each a sequence of members; `applied` of them are in the store."""
    encoded = [Configuration.of(GENESIS, members).encode() for members in configurations]
    data.log.add(NO_OP, 1, 1)
    for index, content in enumerate(encoded, 2):
        data.log.add(CONFIGURATION + content, index, 1)
    data.writer.submit(data.log.take(), lambda group: None, may_block=True)
    entries = [no_op(1), *(configuration(index, content) for index, content in enumerate(encoded, 2))]
    data.store.apply(entries[: None if applied is None else 1 + applied])


def me(data):
    return Member(data.node_id, data.incarnation)


def test_first_start(opened, tmp_path):
    """O416: the log is below the log path, in a directory of the cluster's name; the data directory tells where."""
    data = opened(node_id="a", log_path="logs/a")
    assert (data.node_id, data.directory, data.journal_directory) == (
        "a",
        tmp_path.joinpath("data").relative_to(tmp_path),
        tmp_path.joinpath("logs/a/c").relative_to(tmp_path),
    )
    assert data.recovered_channels is None
    data.close()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [RECORD_FILE, STORE_DIRECTORY, "store.lock"]
    assert read_record(tmp_path / "data") == ClusterRecord(
        cluster_id="c", node_id="a", log_path=tmp_path / "logs" / "a", has_joined=False
    )


@pytest.mark.parametrize("clustered", [True, False])
def test_new_directories_survive_a_power_failure(opened, tmp_path, monkeypatch, clustered):
    """Whatever a start creates has its name on disk: the directory above it is synced after that."""
    synced = {}
    real = os.fsync

    def spy(descriptor):
        directory = Path(f"/proc/self/fd/{descriptor}").readlink()
        if directory.is_dir():
            synced[directory] = {path.name for path in directory.iterdir()}
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    opened("deep/data", clustered=clustered, log_path="far/logs" if clustered else "").close()
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(made) == (6 if clustered else 4)
    assert [str(path) for path in made if path.name not in synced.get(path.parent, ())] == []


def test_second_start(opened, tmp_path):
    """O405: everything is as it was; the id need not be given again."""
    first = opened(node_id="a", log_path="logs")
    first.close()
    second = opened(log_path="logs")
    assert (second.node_id, second.incarnation) == (first.node_id, first.incarnation)
    assert second.recovered_channels == 0
    second.close()


def test_default_log_path(opened, tmp_path):
    """O44, O405, O416: below the working directory, by cluster and node; without an id, 22 random characters."""
    data = opened()
    assert len(data.node_id) == 22
    assert str(data.journal_directory) == f"c/{data.node_id}/c"
    assert (tmp_path / data.journal_directory).is_dir()
    data.close()
    again = opened()
    assert again.node_id == data.node_id
    again.close()


def test_other_node_id_is_ignored_with_a_warning(opened, caplog):
    """O405: the stored id counts; ours says so."""
    opened(node_id="a", log_path="logs").close()
    with caplog.at_level(logging.WARNING):
        opened(node_id="a", log_path="logs").close()
        assert caplog.messages == []
        data = opened(node_id="b", log_path="logs")
    assert data.node_id == "a"
    assert caplog.messages == ['node ID "a" is stored, --cluster_node_id "b" is ignored']
    data.close()


def test_other_cluster_id_is_refused(opened, refusal):
    """O20: in the known words, for the store as for a record without one."""
    opened(node_id="a", log_path="logs").close()
    text = 'cluster ID "d" does not match recovered value of "c"'
    assert refusal(cluster_id="d", log_path="logs", error=IdentityError) == text
    shutil.rmtree("data/store")
    Path("data/store").mkdir()
    assert refusal(cluster_id="d", log_path="logs", error=IdentityError) == text
    opened(log_path="logs").close()


@pytest.mark.parametrize("log_path", ["", "logs"])
def test_store_without_its_log_is_refused(opened, refusal, log_path):
    """O409: the exact text, every time, with the path as it was given or made up."""
    opened(node_id="a", log_path=log_path).close()
    shown = log_path or "c/a"
    shutil.move(shown, "away")
    assert refusal(log_path=log_path) == f'streaming state was recovered but cluster log path "{shown}" is empty'
    shutil.move("away", shown)
    opened(log_path=log_path).close()


def test_start_from_another_directory_is_refused(opened, refusal, tmp_path, monkeypatch, caplog):
    """O416: the default log path is relative, so this is O409; a warning tells where the log was."""
    opened(node_id="a").close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = 'streaming state was recovered but cluster log path "c/a" is empty'
    assert refusal(str(tmp_path / "data")) == text
    assert caplog.messages[0] == f'the cluster log path was "{tmp_path / "c/a"}" at the last start'
    opened(str(tmp_path / "data"), log_path=str(tmp_path / "c" / "a")).close()


def test_log_without_store_gets_a_new_one(opened):
    """O410: the log's identity is kept; the next start finds both."""
    first = opened(log_path="logs")
    first.close()
    shutil.rmtree("data")
    second = opened(log_path="logs")
    assert (second.node_id, second.incarnation) == (first.node_id, first.incarnation)
    assert second.recovered_channels == 0
    assert Path("data/store").is_dir()
    second.close()
    third = opened(log_path="logs")
    assert (third.node_id, third.incarnation) == (first.node_id, first.incarnation)
    third.close()


def test_record_finds_the_log_of_a_lost_store(opened):
    """O410: with the default log path, which has the random id in its name."""
    first = opened()
    first.close()
    shutil.rmtree("data/store")
    second = opened()
    assert (second.node_id, second.incarnation) == (first.node_id, first.incarnation)
    second.close()


def test_log_of_another_node_is_refused(opened, refusal):
    """A log path that another node uses, or has used, is not taken over; the data directory stays unused."""
    first = opened(node_id="a", log_path="logs")
    refusal("data2", log_path="logs", error=raft.errors.JournalInUseError)
    first.close()
    text = refusal("data2", node_id="b", log_path="logs", error=raft.errors.IdentityError)
    assert "'a'" in text
    assert "'b'" in text
    assert not Path("data2", RECORD_FILE).exists()


def test_moved_log_is_taken_where_it_is_given(opened, tmp_path):
    """The option counts, and the record follows it."""
    first = opened(node_id="a", log_path="logs")
    first.close()
    shutil.move("logs", "moved")
    second = opened(log_path="moved")
    assert second.incarnation == first.incarnation
    second.close()
    assert read_record(tmp_path / "data").log_path == tmp_path / "moved"


@pytest.mark.parametrize(
    ("node_id", "field"), [("b", "node ID"), ("a", "incarnation")], ids=["another node", "another journal"]
)
def test_log_that_is_not_the_stores_is_refused(opened, refusal, node_id, field):
    """One identity in both; the record stays as it was, and the right log is still taken."""
    opened(node_id="a", log_path="logs").close()
    opened("data2", node_id=node_id, log_path="logs2").close()
    assert refusal(log_path="logs2", error=IdentityError).startswith(f'{field} of the journal in logs2/c "')
    opened(log_path="logs").close()


def test_empty_log_path_is_refused_while_the_log_is_elsewhere(opened, refusal, tmp_path):
    """A lost store and a mistyped log path must not make a member that has forgotten everything."""
    opened(node_id="a", log_path="logs").close()
    shutil.rmtree("data/store")
    Path("data/store").mkdir()
    text = refusal(log_path="mistyped")
    assert text.startswith('cluster log path "mistyped" is empty, but the node\'s replication log is in ')
    assert str(tmp_path / "logs") in text
    shutil.rmtree("logs")
    data = opened(log_path="mistyped")
    assert (data.node_id, data.recovered_channels) == ("a", None)
    data.close()


def test_standalone_data_is_refused_by_a_clustered_server(opened, refusal):
    """O257, O411: the exact text, also when only its journal, or only its store is left; standalone it goes on."""
    opened(clustered=False).close()
    assert refusal(log_path="logs") == NOT_CLUSTERED_TEXT
    shutil.move(f"data/{JOURNAL_DIRECTORY}", "journal")
    assert refusal() == NOT_CLUSTERED_TEXT
    shutil.move("journal", f"data/{JOURNAL_DIRECTORY}")
    opened(clustered=False).close()
    shutil.rmtree("data/store")
    Path("data/store").mkdir()
    assert refusal() == NOT_CLUSTERED_TEXT
    assert NOT_CLUSTERED_TEXT == "stan: cannot restart server in clustered mode if it was not previously clustered"


def test_cluster_of_one_node_goes_on_standalone(opened, monkeypatch, tmp_path):
    """O257: with the log where it is, from any working directory, and clustered again afterwards."""
    first = opened(node_id="a", log_path="logs")
    commit(first, [me(first), OTHER], [me(first)])
    first.close()
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir("elsewhere")
        second = opened(str(tmp_path / "data"), clustered=False)
        assert (second.node_id, second.incarnation) == ("a", first.incarnation)
        assert second.journal_directory == tmp_path / "logs" / "c"
        assert len(second.log) == 3
        second.close()
    third = opened(log_path="logs")
    assert (third.node_id, third.incarnation) == ("a", first.incarnation)
    third.close()


@pytest.mark.parametrize(
    ("members", "applied"),
    [
        ([], 0),
        (["me other"], 1),
        (["me", "me other"], 1),
        (["me", "me other"], 2),
        (["me other", "other"], 2),
        (["my predecessor"], 1),
    ],
    ids=["never formed", "two nodes", "second one in the log only", "second one", "this one removed", "journal lost"],
)
def test_cluster_of_other_nodes_is_refused_standalone(opened, refusal, members, applied):
    """O257: what the others have acknowledged may be missing here; the newest configuration of the log counts."""
    data = opened(node_id="a", log_path="logs")
    known = {"me": me(data), "other": OTHER, "my predecessor": Member("a", "e" * 32)}
    groups = [[known[names]] if names in known else [known[name] for name in names.split()] for names in members]
    commit(data, *groups, applied=applied)
    data.close()
    assert refusal(clustered=False) == NOT_STANDALONE_TEXT
    opened(log_path="logs").close()
    assert NOT_STANDALONE_TEXT == "stan: cannot restart server in standalone mode if it was previously clustered"


def test_standalone_start_without_log_or_store_of_the_cluster(opened, refusal, tmp_path):
    """O257, O409: nothing is begun anew in silence."""
    first = opened(node_id="a", log_path="logs")
    commit(first, [me(first)])
    first.close()
    shutil.move("logs", "away")
    path = tmp_path / "logs"
    assert refusal(clustered=False) == f'streaming state was recovered but cluster log path "{path}" is empty'
    shutil.move("away", "logs")
    shutil.move("data/store", "store")
    Path("data/store").mkdir()
    assert refusal(clustered=False) == NOT_STANDALONE_TEXT
    shutil.rmtree("data/store")
    shutil.move("store", "data/store")
    opened(clustered=False).close()


def test_start_that_crashed_before_the_record_is_completed(opened, tmp_path):
    """The journal is made first: it goes on with the id it has, and a standalone start would still be free."""
    open_journal(
        tmp_path / "logs" / "c", cluster_id="c", node_id="a", new_incarnation=secrets.token_hex(16)
    ).files.close()
    opened("standalone", clustered=False).close()
    data = opened(log_path="logs")
    assert (data.node_id, data.recovered_channels) == ("a", 0)
    data.close()
    assert read_record(tmp_path / "data") is not None


@pytest.mark.parametrize("sync", [True, False])
def test_journal_is_synced_unless_the_operator_does_not_want_it(opened, monkeypatch, sync):
    """O418: the journal's file is opened for writing with or without O_DSYNC."""
    flags = []
    real = os.open

    def spy(path, mode, *args, **kwargs):
        if str(path).endswith(".segment"):
            flags.append(bool(mode & os.O_DSYNC))
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr(os, "open", spy)
    opened(log_path="logs", sync=sync).close()
    assert any(flags) is sync
