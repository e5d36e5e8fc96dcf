"""Covers server/errors.py."""

import inspect
import re

import pytest

from server import errors


def test_tree_in_the_docstring_is_the_tree() -> None:
    """Every class is drawn, below its parent, and nothing else is."""
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"[\s│├└─]*(\w+Error)\b", line)
        if found:
            drawn.append((found.start(1), found[1]))
    parents = {}
    for position, (depth, name) in enumerate(drawn):
        above = [other for other_depth, other in drawn[:position] if other_depth < depth]
        nearest = [other for other_depth, other in drawn[:position] if other_depth == depth - 4]
        parents[name] = nearest[-1] if nearest and above else "Exception"
    actual = {
        name: cls.__bases__[0].__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    }
    assert parents == actual


def test_request_error_carries_the_wire_text_and_the_facts() -> None:
    """B120: the text is sent as it is; what was refused is only for the log."""
    error = errors.RequestError("stan: invalid publish request", field="guid", value="x")
    assert error.wire_text == "stan: invalid publish request"
    assert str(error) == "stan: invalid publish request (guid='x')"
    assert (error.field, error.value) == ("guid", "x")


def test_config_error_names_option_value_and_what_is_allowed() -> None:
    """The operator learns everything needed to correct it."""
    error = errors.ConfigError(option="--port", value=0, allowed="1 to 65535")
    assert str(error) == "option --port cannot be 0, allowed: 1 to 65535"


@pytest.mark.parametrize("size", [0, errors.LINE_SHOWN_MAX, errors.LINE_SHOWN_MAX + 1])
def test_protocol_error_keeps_the_beginning_of_the_line(size: int) -> None:
    """A line from outside may be as long as a read."""
    error = errors.ProtocolError("unknown line", line=b"x" * size)
    assert error.line == b"x" * min(size, errors.LINE_SHOWN_MAX)
    assert str(error).endswith("...") is (size > errors.LINE_SHOWN_MAX)
