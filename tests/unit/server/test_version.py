"""What this build calls itself."""

import tomllib
from pathlib import Path

import pytest

from server.version import COMMIT_VARIABLE, VERSION, short_commit

ROOT = Path(__file__).parents[3]


def test_version_is_that_of_the_distribution() -> None:
    """The constant and the distribution's metadata never differ."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == VERSION


@pytest.mark.parametrize(
    ("commit", "shown"),
    [
        ("0123456789abcdef0123456789abcdef01234567", "0123456"),
        ("0123456", "0123456"),
        ("", "not set"),
        ("HEAD", "not set"),
        ("0123456\n", "not set"),
    ],
)
def test_commit_is_shown_short(commit: str, shown: str) -> None:
    """A commit hash is shortened; anything else counts as not set (O203)."""
    assert short_commit({COMMIT_VARIABLE: commit}) == shown


def test_commit_unknown_to_the_build() -> None:
    """Without the variable the commit is not set (O203)."""
    assert short_commit({}) == "not set"
