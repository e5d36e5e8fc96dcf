"""Rules for Python modules that no linter checks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.checkout import PACKAGES, files, package_modules, relative, written_modules

MAX_LINES = 600

CLOCK_MODULE = "server/clock.py"
WALL_CLOCK = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}


def line_count(path: Path) -> int:
    """Lines of a file."""
    return path.read_text(encoding="utf-8").count("\n")


def parse(path: Path) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=relative(path))


def wall_clock_reads(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that read the time of day: `time.time`, `datetime.datetime.now` and their like, or import it."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
                if (owner, name) in WALL_CLOCK:
                    yield node.lineno
            case ast.ImportFrom(module="time", names=names):
                if any(alias.name in {"time", "time_ns"} for alias in names):
                    yield node.lineno


def test_no_module_is_too_long() -> None:
    """A module has at most 600 lines; the exempted ones have their own bound."""
    counts = {relative(path): line_count(path) for path in written_modules()}
    assert {name: n for name, n in counts.items() if n > MAX_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    """Each module of the packages, the tools and the tests starts with a docstring."""
    assert [relative(path) for path in written_modules() if not ast.get_docstring(parse(path))] == []


def test_packages_hold_no_logic() -> None:
    """`__init__.py` has a docstring, imports and `__all__`, and nothing else."""
    offending = []
    for path in package_modules():
        if path.name != "__init__.py":
            continue
        for node in parse(path).body[1:]:
            match node:
                case ast.Import() | ast.ImportFrom() | ast.Assign(targets=[ast.Name(id="__all__")]):
                    continue
            offending.append(f"{relative(path)}:{node.lineno}")
    assert offending == []


def test_every_folder_with_modules_is_a_package() -> None:
    """Import contracts and type checks see only folders with an `__init__.py`."""
    folders = {path.parent for path in files(*PACKAGES, suffix=".py")}
    assert [relative(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_only_the_clock_module_reads_the_time_of_day() -> None:
    """Everything else is handed the time, so that tests can move it and followers do not invent it."""
    readers = [
        f"{relative(path)}:{line}"
        for path in package_modules()
        if relative(path) != CLOCK_MODULE
        for line in wall_clock_reads(parse(path))
    ]
    assert readers == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\nx = time.time()",
        "import time\nx = time.time_ns",
        "from time import time_ns",
        "import datetime\nx = datetime.datetime.now()",
        "from datetime import datetime, UTC\nx = datetime.now(UTC)",
        "from datetime import date\nx = date.today()",
    ],
)
def test_the_clock_check_sees(source: str) -> None:
    """The check above finds each way to read the time of day."""
    assert list(wall_clock_reads(ast.parse(source)))


@pytest.mark.parametrize("source", ["import time\nx = time.monotonic_ns()", "from time import perf_counter"])
def test_the_clock_check_ignores(source: str) -> None:
    """A clock that only measures is no time of day."""
    assert not list(wall_clock_reads(ast.parse(source)))
