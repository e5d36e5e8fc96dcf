"""Decides which limits a channel has: what its entry sets, then what wider entries set, then the global ones. Pure.

Sources: B332, B333, O505, O506. From wide to narrow, an earlier token decides: `>`, then `*`, then the literal. Each limit
comes from the narrowest entry that counts for the channel and sets it. Entries that count are those that match the
channel, and those that the former inherit from: an entry inherits from wider entries that match its name, where a
wildcard of that name is an ordinary token. So `foo.>` passes the limits of `*.*` on to `foo.a.b`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        wild = [(name.split("."), limits) for name, limits in entries.items() if not is_literal(name)]
        wild.sort(key=lambda entry: _rank(entry[0]))
        self._wild: list[tuple[list[str], ChannelLimits]] = wild

    def limits_of(self, channel_name: str) -> EffectiveLimits:
        """The limits of a channel. Compares its name with all entries that hold wildcards: once per channel, please."""
        tokens = channel_name.split(".")
        wild = self._wild
        matching = [index for index, (pattern, _) in enumerate(wild) if _matches(pattern, tokens)]
        # One step up is enough: an entry further up matches the channel itself, or is reached in one step, too.
        chain = [
            limits
            for index, (pattern, limits) in enumerate(wild)
            if index in matching or any(index < one and _matches(pattern, wild[one][0]) for one in matching)
        ]
        if channel_name in self._literals:
            chain.append(self._literals[channel_name])
        limits = self._everywhere
        for narrower in chain:
            limits = _narrowed(limits, narrower)
        return limits


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


def _matches(pattern: Sequence[str], tokens: Sequence[str]) -> bool:
    """True when `pattern` stands for `tokens`, of which none is special."""
    is_open = pattern[-1] == REST
    fixed = len(pattern) - is_open
    if len(tokens) <= fixed if is_open else len(tokens) != fixed:
        return False
    return all(part in (ONE, token) for part, token in zip(pattern[:fixed], tokens, strict=False))


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
