"""Covers raft/errors.py."""

import inspect
import re
from pathlib import Path

import raft
from raft import errors

CLASSES = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__}


def test_tree_in_the_docstring_is_the_tree() -> None:
    """Every class is drawn, all but the root below the root, and nothing else is."""
    drawn = re.findall(r"^\s*[├└│─\s]*(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(CLASSES)
    assert {cls.__bases__[0] for name, cls in CLASSES.items() if name != "RaftError"} == {errors.RaftError}


def test_every_class_is_raised() -> None:
    """A class that nobody raises makes callers handle what cannot happen."""
    folder = Path(inspect.getfile(raft)).parent
    sources = [path.read_text() for path in folder.rglob("*.py") if path != folder / "errors.py"]
    raised = {name for source in sources for name in re.findall(r"\b(\w+Error)\(", source)}
    assert set(CLASSES) - raised == {"RaftError"}
