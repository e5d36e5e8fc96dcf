"""Decides which limits a channel has: what its entry sets, then what wider entries set, then the global ones. Pure.

Sources: B332, B333, O505, O506. From wide to narrow, an earlier token decides: `>`, then `*`, then the literal. Each limit
comes from the narrowest entry that counts for the channel and sets it. Entries that count are those that match the
channel, and those that the former inherit from: an entry inherits from wider entries that match its name, where a
wildcard of that name is an ordinary token. So `foo.>` passes the limits of `*.*` on to `foo.a.b`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict, field_validator

from server.protocol import names

ONE: Final = "*"
"""Stands for one token of a name."""

REST: Final = ">"
"""Stands for one or more tokens, at the end of a name only."""

PATTERN_ALLOWED: Final = (
    "1 to 255 bytes without blanks and slashes; none of the parts between dots empty; "
    "wildcards only as whole parts, > only as the last one"
)
"""What `is_pattern` demands, for operators. Source: O176, O471, B61, B62."""

_WIDTHS: Final = {REST: 0, ONE: 1}
_LITERAL_WIDTH: Final = 2


class ChannelLimits(BaseModel):
    """What one entry sets. None = inherited, 0 = unlimited, whatever wider entries set (O177).

    Negative values mean unlimited, too: operators of the original write -1 (B336).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_subs: int | None = None
    max_msgs: int | None = None
    max_bytes: int | None = None
    max_age_ns: int | None = None
    max_inactivity_ns: int | None = None

    @field_validator("*", mode="after")
    @classmethod
    def _unlimited(cls, value: int | None) -> int | None:
        return None if value is None else max(value, 0)


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """Limits that count for a channel. 0 = unlimited."""

    max_subs: int
    max_msgs: int
    max_bytes: int
    max_age_ns: int
    max_inactivity_ns: int


class LimitRules:
    """Entries by name, and the limits of channels without any."""

    def __init__(self, everywhere: EffectiveLimits, entries: Mapping[str, ChannelLimits]) -> None:
        self._everywhere = everywhere
        self._literals = {name: limits for name, limits in entries.items() if is_literal(name)}
        wild = sorted((name.split(".") for name in entries if not is_literal(name)), key=_rank)
        self._wild = [entries[".".join(tokens)] for tokens in wild]  # from wide to narrow
        self._tree = _Node()
        for index, tokens in enumerate(wild):
            self._tree.add(tokens, index)
        self._wider = [{one for one in self._tree.matching(tokens) if one < index} for index, tokens in enumerate(wild)]

    def limits_of(self, channel_name: str) -> EffectiveLimits:
        """The limits of a channel. Costs grow with the entries that match, not with all: still, once per channel, please."""
        counting = set(self._tree.matching(channel_name.split(".")))
        # One step up is enough: an entry further up matches the channel itself, or is reached in one step, too.
        counting.update(*[self._wider[index] for index in counting])
        chain = [self._wild[index] for index in sorted(counting)]
        if channel_name in self._literals:
            chain.append(self._literals[channel_name])
        limits = self._everywhere
        for narrower in chain:
            limits = _narrowed(limits, narrower)
        return limits


@dataclass(slots=True)
class _Node:
    """Entries with wildcards whose names begin alike: by the next token, and the one that ends here."""

    below: "dict[str, _Node]" = field(default_factory=dict)
    entry: int | None = None

    def add(self, tokens: Sequence[str], entry: int) -> None:
        node = self
        for token in tokens:
            node = node.below.setdefault(token, _Node())
        node.entry = entry

    def matching(self, tokens: Sequence[str], start: int = 0) -> Iterator[int]:
        """Entries below that stand for the tokens from `start` on, of which none is special; some come twice."""
        if start == len(tokens):
            if self.entry is not None:
                yield self.entry
            return
        rest = self.below.get(REST)
        if rest is not None and rest.entry is not None:
            yield rest.entry
        for token in (ONE, tokens[start]):
            if token in self.below:
                yield from self.below[token].matching(tokens, start + 1)


def is_pattern(name: str) -> bool:
    """True for a channel name (B61, B62), also with wildcards as whole tokens (O471). Text that is not UTF-8 is none."""
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        return False
    tokens = name.split(".")
    if REST in tokens[:-1]:
        return False
    return names.is_channel(".".join("x" if token in _WIDTHS else token for token in tokens))


def is_literal(name: str) -> bool:
    """True when a valid entry's name holds no wildcard: it is a channel's own."""
    return ONE not in name and REST not in name


def _rank(tokens: Sequence[str]) -> list[tuple[int, str]]:
    """Sorts from wide to narrow."""
    return [(_WIDTHS.get(token, _LITERAL_WIDTH), token) for token in tokens]


def _narrowed(wider: EffectiveLimits, entry: ChannelLimits) -> EffectiveLimits:
    """What `entry` sets, and the rest of `wider`."""

    def pick(own: int | None, inherited: int) -> int:
        return inherited if own is None else own

    return EffectiveLimits(
        max_subs=pick(entry.max_subs, wider.max_subs),
        max_msgs=pick(entry.max_msgs, wider.max_msgs),
        max_bytes=pick(entry.max_bytes, wider.max_bytes),
        max_age_ns=pick(entry.max_age_ns, wider.max_age_ns),
        max_inactivity_ns=pick(entry.max_inactivity_ns, wider.max_inactivity_ns),
    )
