"""Payloads of the load prove their content by their id."""

import pytest

from tests.support.load import id_of, payload_of


@pytest.mark.parametrize("unique_id", ["pub0-0", "pub1-99999", "marker-1"])
def test_id_comes_back(unique_id: str) -> None:
    """A payload that is byte-equal to what was published gives its id."""
    assert id_of(payload_of(unique_id)) == unique_id


@pytest.mark.parametrize(
    "damage", [lambda p: p[:-1], lambda p: p + b"x", lambda p: p.replace(b"|", b"-"), lambda _: b""]
)
def test_damaged_payload_has_an_id_nobody_published(damage: object) -> None:
    """R2: a payload with one changed byte is not taken for the published one."""
    assert callable(damage)
    assert id_of(damage(payload_of("pub0-1"))).startswith("damaged payload")
