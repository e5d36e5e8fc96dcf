"""Which limits a channel has, by tables and against a slow reference."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config.channel_limits import ChannelLimits, EffectiveLimits, LimitRules, is_pattern
from server.config.model import Limits

MINUTE_NS = 60 * 10**9
GLOBAL = EffectiveLimits(max_subs=1, max_msgs=2, max_bytes=3, max_age_ns=4, max_inactivity_ns=5)
NAMES = tuple(ChannelLimits.model_fields)


def msgs(entries, channel):
    """The max_msgs of `channel`, where each entry sets this limit or nothing."""
    limits = {name: ChannelLimits(max_msgs=value) for name, value in entries.items()}
    return LimitRules(GLOBAL, limits).limits_of(channel).max_msgs


# ---- tables


def test_example_of_the_specification():
    """O505: own zero is unlimited; what an entry does not set comes from the next wider one, finally the global ones."""
    limits = Limits(
        max_msgs=100,
        max_age_ns=60 * MINUTE_NS,
        channels={
            "a.>": ChannelLimits(max_msgs=10),
            "a.*": ChannelLimits(max_age_ns=5 * MINUTE_NS),
            "a.b": ChannelLimits(max_msgs=0),
            "c": ChannelLimits(),
        },
    )
    found = {name: limits.rules().limits_of(name) for name in ("a.x.y", "a.x", "a.b", "c", "z", "a")}
    assert {name: (one.max_msgs, one.max_age_ns // MINUTE_NS) for name, one in found.items()} == {
        "a.x.y": (10, 60),
        "a.x": (10, 5),
        "a.b": (0, 5),
        "c": (100, 60),
        "z": (100, 60),
        "a": (100, 60),
    }
    assert {(one.max_subs, one.max_bytes, one.max_inactivity_ns) for one in found.values()} == {
        (1000, 1_024_000_000, 0)
    }


WIDE_TO_NARROW = (">", "*.>", "*.*", "*.bar", "foo.>", "foo.*", "foo.bar")


@pytest.mark.parametrize("count", range(1, len(WIDE_TO_NARROW) + 1))
def test_narrowest_entry_wins(count):
    """B333: for foo.bar from wide to narrow; an earlier token decides first, in any order of the entries."""
    entries = {name: 100 + index for index, name in enumerate(WIDE_TO_NARROW[:count])}
    assert msgs(entries, "foo.bar") == 99 + count
    assert msgs(dict(reversed(entries.items())), "foo.bar") == 99 + count


@pytest.mark.parametrize("count", range(20))
def test_other_entries_change_nothing(count):
    """B333: entries of other channels, however many, leave the order of those that match as it is."""
    others = {f"a{number:02}.*": 1 for number in range(count)}
    assert msgs(others | {"foo.>": 7, "foo.*": 8}, "foo.bar") == 8


def test_each_limit_comes_from_the_narrowest_entry_that_sets_it():
    """B333: then from the next wider one, then from the global ones."""
    rules = LimitRules(
        GLOBAL,
        {
            ">": ChannelLimits(max_subs=10, max_msgs=10, max_bytes=10, max_age_ns=10),
            "*.bar": ChannelLimits(max_subs=20, max_msgs=20, max_bytes=20),
            "foo.>": ChannelLimits(max_subs=30, max_msgs=30),
            "foo.*": ChannelLimits(max_subs=40),
            "foo.bar": ChannelLimits(),
        },
    )
    assert rules.limits_of("foo.bar") == EffectiveLimits(40, 30, 20, 10, 5)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (">", ("a", "a.b"), ()),
        ("*", ("a", "$x"), ("a.b",)),
        ("foo.*", ("foo.a",), ("foo", "foo.a.b", "bar.a", "fo.a")),
        ("foo.>", ("foo.a", "foo.a.b"), ("foo", "bar.a", "foox.a")),
        ("*.>", ("a.b", "a.b.c"), ("a",)),
        ("a.*.c.>", ("a.b.c.d", "a.x.c.d.e"), ("a.b.c", "a.b.x.d", "a.b.b.c.d")),
        ("foo", ("foo",), ("Foo", "foo.bar", "fo")),
    ],
)
def test_patterns(pattern, matching, others):
    """B333: `*` stands for one token, `>` for one or more at the end; channels that match nothing have global limits."""
    assert [msgs({pattern: 7}, name) for name in matching] == [7] * len(matching)
    assert [msgs({pattern: 7}, name) for name in others] == [GLOBAL.max_msgs] * len(others)


@pytest.mark.parametrize(
    ("entries", "channel", "expected"),
    [
        ({"*.*": 7, "foo.>": None}, "foo.a.b", 7),
        ({">": 5, "*.*": 7, "foo.>": None}, "foo.a.b", 7),
        ({">": 5, "*.*": 7, "foo.>": 8}, "foo.a.b", 8),
        ({">": 5, "*.*": 7}, "foo.a.b", 5),
        ({"*.*": 7, "foo.>": None, "foo.a.>": None}, "foo.a.b.c", 7),
        ({"foo.*": 7, "foo.>": None}, "foo.a.b", GLOBAL.max_msgs),
        ({"*.*": 0, "foo.>": None}, "foo.a.b", 0),
    ],
)
def test_entry_with_wildcards_inherits_as_if_it_were_a_channel(entries, channel, expected):
    """O505: `foo.>` inherits from `*.*`, since a wildcard counts as an ordinary token; never from narrower `foo.*`."""
    assert msgs(entries, channel) == expected


@pytest.mark.parametrize("value", [1, 2, 50, 0])
def test_entry_may_be_higher_lower_or_unlimited(value):
    """O506, B332, O177: whatever the global limit is; the other limits of the channel still apply."""
    assert LimitRules(GLOBAL, {"foo": ChannelLimits(max_msgs=value)}).limits_of("foo") == EffectiveLimits(
        1, value, 3, 4, 5
    )


def test_negative_is_unlimited():
    """B336: an operator of the original writes -1 for no limit."""
    entry = ChannelLimits(**dict.fromkeys(NAMES, -1))
    assert LimitRules(GLOBAL, {"foo": entry}).limits_of("foo") == EffectiveLimits(0, 0, 0, 0, 0)


@pytest.mark.parametrize("name", ["foo", "foo.bar", ">", "*", "foo.*", "*.foo", "foo.>", "*.*.>", "$x.é", "x" * 255])
def test_usable_names(name):
    """O176: channel names, and such with wildcards as whole tokens."""
    assert is_pattern(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "foo.", ".foo", "foo..bar", "foo*", "f>o", "foo.>.bar", ">.>", "a b", "a/b", "a\n", "é" * 128, "\udcff"],
)
def test_unusable_names(name):
    """O176, O471: no channel could match, or no client could use it."""
    assert not is_pattern(name)


# ---- reference


def stands_for(pattern, name):
    """By a regular expression."""
    parts = {"*": "[^.]+", ">": r"[^.]+(?:\.[^.]+)*"}
    return (
        re.fullmatch(r"\.".join(parts.get(token, re.escape(token)) for token in pattern.split(".")), name) is not None
    )


def width(name):
    """The wider, the smaller."""
    return name.translate({ord(">"): "\x01", ord("*"): "\x02"}).split(".")


def reference(entries, channel):
    """All entries that match, those that match these, and so on; then each limit from the narrowest that sets it."""
    found = {name for name in entries if stands_for(name, channel)}
    while True:
        above = {
            name for one in found for name in entries if stands_for(name, one) and width(name) < width(one)
        } - found
        if not above:
            break
        found |= above
    limits = {name: getattr(GLOBAL, name) for name in NAMES}
    for entry in sorted(found, key=width):
        for name in NAMES:
            if getattr(entries[entry], name) is not None:
                limits[name] = getattr(entries[entry], name)
    return EffectiveLimits(**limits)


tokens = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)
patterns = st.builds(
    lambda head, tail: ".".join(head + tail),
    st.lists(st.sampled_from("ab*"), min_size=1, max_size=4),
    st.sampled_from([[], [], [">"]]),
) | st.just(">")
values = st.none() | st.integers(0, 9)
limits = st.builds(ChannelLimits, **dict.fromkeys(NAMES, values))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(patterns, limits, max_size=12), tokens.map(".".join))
def test_is_the_reference(entries, channel):
    """B333, O505: for any entries and channel."""
    assert LimitRules(GLOBAL, entries).limits_of(channel) == reference(entries, channel)
