"""Covers server/tokens.py."""

import re

from server.tokens import new_token


def test_token_is_legal_and_new_every_time() -> None:
    """B16, B17: 22 letters and digits, so one token of a NATS subject; never the same again."""
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9]{22}", token) for token in tokens)
    assert len(set("".join(tokens))) == 62
