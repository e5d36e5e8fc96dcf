"""Decides which names clients may use: client ids, channels, inboxes. Pure.

Rules: B60 (client id), B61 and B62 (channel), B41 and B85 (inboxes must be publishable NATS subjects), B66 (lengths).
"""

import re
from typing import Final

NAME_MAX_BYTES: Final = 255
"""Longest channel, durable or queue group name, bytes of UTF-8. Source: B62, B66."""

SUBJECT_MAX_BYTES: Final = 1024
"""Longest inbox, bytes. A NATS control line holds 4096 bytes and carries at most two subjects and two numbers."""

_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_CHANNEL_REFUSED = re.compile(r"[/*>\x00-\x20\x7f-\x9f]|\s")
_INBOX = re.compile(r"[^\s.*>\x00-\x20\x7f]+(?:\.[^\s.*>\x00-\x20\x7f]+)*")


def is_client_id(name: str) -> bool:
    """True for one or more of `a-z A-Z 0-9 _ -` (B60). `$` would accept a trailing newline; `fullmatch` does not."""
    return _CLIENT_ID.fullmatch(name) is not None


def is_channel(name: str) -> bool:
    """True for a literal channel name (B61), without blanks and control characters, at most 255 bytes (B62)."""
    if not name or name[0] == "." or name[-1] == "." or ".." in name:
        return False
    if _CHANNEL_REFUSED.search(name) is not None:
        return False
    return len(name.encode()) <= NAME_MAX_BYTES


def is_inbox(subject: str) -> bool:
    """True when a message can be published to `subject`: no blanks, wildcards or empty tokens (B41, B85)."""
    return len(subject.encode()) <= SUBJECT_MAX_BYTES and _INBOX.fullmatch(subject) is not None


def fits(name: str) -> bool:
    """True when a durable or queue group name is short enough to be stored (B66)."""
    return len(name.encode()) <= NAME_MAX_BYTES
