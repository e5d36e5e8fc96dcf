"""The grammar of the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli.flags import Flag, FlagError, Kind, parse

FLAGS = (
    Flag(("D", "debug"), Kind.BOOL),
    Flag(("DV",), Kind.BOOL),
    Flag(("p", "port"), Kind.INTEGER),
    Flag(("st", "store"), Kind.STRING),
    Flag(("ma", "max_age"), Kind.DURATION),
    Flag(("mb", "max_bytes"), Kind.SIZE),
    Flag(("ns", "nats_server"), Kind.LIST),
)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], {}),
        (["-store", "file"], {"store": "file"}),
        (["--store", "file"], {"store": "file"}),
        (["-store=file"], {"store": "file"}),
        (["--store=file"], {"store": "file"}),
        (["--st=a=b"], {"st": "a=b"}),
        (["-st="], {"st": ""}),
        (["-st", ""], {"st": ""}),
        (["-st", "-p"], {"st": "-p"}),
        (["-st", "--"], {"st": "--"}),
        (["-p", "-1"], {"p": -1}),
        (["-p=0x10"], {"p": 16}),
        (["-ma", "1h30m"], {"ma": 5_400_000_000_000}),
        (["-mb", "1KB"], {"mb": "1KB"}),
        (["-ns", "a, b ,c"], {"ns": ("a", "b", "c")}),
        (["-ns", "a,"], {"ns": ("a",)}),
        (["-D"], {"D": True}),
        (["-DV", "-D"], {"DV": True, "D": True}),
    ],
)
def test_options_are_read(argv: list[str], expected: dict[str, object]) -> None:
    """One or two dashes, value behind a blank or `=`, lists split at commas (O1, O3-O6)."""
    line = parse(argv, FLAGS)
    assert (line.given, line.words) == (expected, ())


@pytest.mark.parametrize("word", ["1", "t", "T", "true", "TRUE", "True"])
def test_true_words(word: str) -> None:
    """These words switch a boolean on (O2)."""
    assert parse([f"-D={word}"], FLAGS).given == {"D": True}


@pytest.mark.parametrize("word", ["0", "f", "F", "false", "FALSE", "False"])
def test_false_words(word: str) -> None:
    """These words switch a boolean off (O2)."""
    assert parse([f"--debug={word}"], FLAGS).given == {"debug": False}


def test_booleans_never_take_the_next_word() -> None:
    """`-D true` leaves `true` as a stray word (O2)."""
    line = parse(["-D", "true", "-p", "1"], FLAGS)
    assert (line.given, line.words) == ({"D": True}, ("true", "-p", "1"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-D", "stray", "-p", "1"], ("stray", "-p", "1")),
        (["-D", "--", "-p", "1"], ("-p", "1")),
        (["-D", "--"], ()),
        (["-D", "-", "-p"], ("-", "-p")),
        (["-D", "", "-p"], ("", "-p")),
    ],
)
def test_parsing_stops_at_the_first_stray_word(argv: list[str], words: tuple[str, ...]) -> None:
    """Options behind a stray word or `--` are never seen (O8)."""
    line = parse(argv, FLAGS)
    assert (line.given, line.words) == ({"D": True}, words)


def test_the_last_occurrence_wins_and_gives_the_order() -> None:
    """Values are in the order of their last occurrence, so that aliases can be compared (O7)."""
    line = parse(["-p", "1", "-port", "2", "-p", "3"], FLAGS)
    assert list(line.given.items()) == [("port", 2), ("p", 3)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-xxx"], "flag provided but not defined: -xxx"),
        (["--xxx=1"], "flag provided but not defined: -xxx"),
        (["-dv"], "flag provided but not defined: -dv"),
        (["-Dp"], "flag provided but not defined: -Dp"),
        (["-sto", "file"], "flag provided but not defined: -sto"),
        (["-p"], "flag needs an argument: -p"),
        (["--port"], "flag needs an argument: -port"),
        (["---p"], "bad flag syntax: ---p"),
        (["-=1"], "bad flag syntax: -=1"),
        (["--=1"], "bad flag syntax: --=1"),
        (["-p", "abc"], 'invalid value "abc" for flag -p: parse error'),
        (["-p="], 'invalid value "" for flag -p: parse error'),
        (["--port=1k"], 'invalid value "1k" for flag -port: parse error'),
        (
            ["-p", "99999999999999999999"],
            'invalid value "99999999999999999999" for flag -p: value out of range',
        ),
        (["-ma", "10"], 'invalid value "10" for flag -ma: parse error'),
        (["-ma", "1d"], 'invalid value "1d" for flag -ma: parse error'),
        (["-D=maybe"], 'invalid boolean value "maybe" for -D: parse error'),
        (["-D="], 'invalid boolean value "" for -D: parse error'),
        (["-D=yes"], 'invalid boolean value "yes" for -D: parse error'),
        (["-p", "a\nb"], 'invalid value "a\\nb" for flag -p: parse error'),
    ],
)
def test_malformed_options_are_named(argv: list[str], message: str) -> None:
    """The messages are those of Go's flag package (O9)."""
    with pytest.raises(FlagError) as caught:
        parse(argv, FLAGS)
    assert str(caught.value) == message


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_command_line_is_answered(argv: list[str]) -> None:
    """Whatever the words are, they are read or refused as malformed."""
    try:
        words = list(parse(argv, FLAGS).words)
    except FlagError:
        return
    assert words == argv[len(argv) - len(words) :]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("cid cluster_id", ["-cid", "--cluster_id"]),
        ("P pid", ["-P", "--pid"]),
        ("SDV", ["-SDV"]),
        ("dir", ["--dir"]),
        ("t", ["-t"]),
    ],
)
def test_names_are_shown_as_documented(names: str, expected: list[str]) -> None:
    """Short forms have one dash, long ones two (O11)."""
    flag = Flag(tuple(names.split()), Kind.STRING)
    assert [flag.dashed(name) for name in flag.names] == expected
