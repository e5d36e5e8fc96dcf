"""Writes `docs/compatibility.md`: each behaviour that clients of the original can see, and the tests that show it.

Behaviours come from `docs/compatibility.toml`, tests from the numbers in their docstrings: `B98`, `B90.3` (a part of
B90), `B40-B48`. Nothing is written, and the exit status is 1, when numbers and tests contradict each other; with
`--check` also when the page is not what would be written.
"""

import argparse
import ast
import itertools
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DATA_NAME: Final = "docs/compatibility.toml"
PAGE_NAME: Final = "docs/compatibility.md"

TITLE_MAX_WORDS: Final = 10
"""A title names a behaviour, it does not explain it."""

_NUMBER: Final = re.compile(r"B([1-9]\d*)")
_NAMED: Final = re.compile(r"\bB(\d+)\b(?:\.\d+)?(?:(?:\s?[-\u2013\u2026]\s?|\sto\s)B(\d+)\b)?")
"""One number, or the first and the last of a range; between them a hyphen, a dash, an ellipsis or `to`."""

_NOT_OF_THE_SERVER: Final = frozenset({"architecture", "support", "tools"})
"""Folders of tests that test the project and the helpers of other tests."""

_KEYS: Final = frozenset({"title", "ours", "reason", "note"})

INTRODUCTION: Final = """\
# Compatibility

<!-- Written by tools/compatibility.py from docs/compatibility.toml and the docstrings of the tests. Do not edit. -->

What clients of the original server, NATS Streaming 0.25.6, can see of it, by number, with the tests that show it here.
Run one with `.venv/bin/pytest` and its name. **Ours** marks a deliberate difference from the original. Where no test
is named, the reason is; where tests show only a part, the rest is named. Numbers not listed are not in use.
"""


class DataError(Exception):
    """`docs/compatibility.toml` or a docstring cannot be used: what, where, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One number. `reason` says why no test shows it, `note` which part the tests do not show; empty: nothing."""

    number: int
    title: str
    is_ours: bool
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class Section:
    """Behaviours under one heading, numbers ascending."""

    title: str
    behaviours: tuple[Behaviour, ...]


def read_sections(path: Path) -> list[Section]:
    """Sections of the data file in its order.

    Raises:
        DataError: no TOML, unknown keys, a title that is missing or too long, numbers that do not ascend.

    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path.name}: {error}") from None
    sections = [_section(table) for table in data.get("section", ())]
    numbers = [behaviour.number for section in sections for behaviour in section.behaviours]
    for earlier, later in itertools.pairwise(numbers):
        if later <= earlier:
            raise DataError(f"{path.name}: B{later} stands behind B{earlier}: numbers must ascend")
    return sections


def named_numbers(text: str) -> list[tuple[int, int]]:
    """The numbers and ranges in a docstring, as first and last number.

    Raises:
        DataError: a range that does not ascend.

    """
    found = []
    for match in _NAMED.finditer(text):
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise DataError(f"{match[0]!r}: the numbers of a range must ascend")
        found.append((first, last))
    return found


def numbers_by_test(tests: Path) -> dict[str, list[tuple[int, int]]]:
    """For each test below `tests` whose docstring names numbers: its pytest name, and the ranges."""
    named = {}
    for path in sorted(tests.rglob("test_*.py")):
        if not _NOT_OF_THE_SERVER.isdisjoint(path.relative_to(tests).parts):
            continue
        name = path.relative_to(tests.parent).as_posix()
        for test, docstring in _docstrings(ast.parse(path.read_text(encoding="utf-8"), filename=name)):
            try:
                ranges = named_numbers(docstring)
            except DataError as error:
                raise DataError(f"{name}::{test}: {error}") from None
            if ranges:
                named[f"{name}::{test}"] = ranges
    return named


def tests_by_number(known: frozenset[int], named: Mapping[str, list[tuple[int, int]]]) -> dict[int, list[str]]:
    """For each known number the tests that show it. In the middle of a range unknown numbers are gaps."""
    shown: dict[int, list[str]] = {number: [] for number in known}
    for test, ranges in named.items():
        for number in sorted({number for first, last in ranges for number in range(first, last + 1)} & known):
            shown[number].append(test)
    return shown


def contradictions(
    sections: list[Section], named: Mapping[str, list[tuple[int, int]]], shown: Mapping[int, list[str]]
) -> Iterator[str]:
    """Yield what data file and tests do not agree on, a line each."""
    for test, ranges in named.items():
        for number in sorted({number for pair in ranges for number in pair} - shown.keys()):
            yield f"{test} names B{number}, which {DATA_NAME} lacks"
    for behaviour in (behaviour for section in sections for behaviour in section.behaviours):
        tests = shown[behaviour.number]
        if not tests and not behaviour.reason:
            yield f"B{behaviour.number} has neither a test nor a reason"
        if not tests and behaviour.note:
            yield f"B{behaviour.number} has a note on its tests, but no test"
        if tests and behaviour.reason:
            yield f"B{behaviour.number} has the reason {behaviour.reason!r}, but {tests[0]} shows it"


def page(sections: list[Section], shown: Mapping[int, list[str]]) -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, _summary(sections, shown), *(_table(section, shown) for section in sections)])


def main(argv: list[str], root: Path = ROOT) -> int:
    """Write the page below `root`, or compare it."""
    parser = argparse.ArgumentParser(prog="compatibility.py", description="Writes docs/compatibility.md.")
    parser.add_argument("--check", action="store_true", help="only compare")
    is_check = parser.parse_args(argv).check
    try:
        sections = read_sections(root / DATA_NAME)
        named = numbers_by_test(root / "tests")
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    known = frozenset(behaviour.number for section in sections for behaviour in section.behaviours)
    shown = tests_by_number(known, named)
    problems = list(contradictions(sections, named, shown))
    text = page(sections, shown)
    target = root / PAGE_NAME
    if is_check and not problems and not (target.exists() and target.read_text(encoding="utf-8") == text):
        problems.append(f"{PAGE_NAME} is out of date: run tools/compatibility.py")
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems and not is_check:
        target.write_text(text, encoding="utf-8")
    return 1 if problems else 0


def _section(table: Mapping[str, object]) -> Section:
    title, behaviours = table.get("title"), table.get("behaviours")
    if table.keys() != {"title", "behaviours"} or not isinstance(title, str) or not isinstance(behaviours, dict):
        raise DataError(f"section {title!r}: a section has a title and behaviours, and nothing else")
    return Section(title, tuple(_behaviour(name, row) for name, row in behaviours.items()))


def _behaviour(name: str, row: Mapping[str, object]) -> Behaviour:
    match = _NUMBER.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} is no number: B1, B2, …")
    if not row.keys() <= _KEYS:
        raise DataError(f"{name}: unknown {', '.join(sorted(row.keys() - _KEYS))}; allowed are {sorted(_KEYS)}")
    texts = {key: row.get(key, "") for key in ("title", "reason", "note")}
    for key, text in texts.items():
        if not isinstance(text, str) or (key in row and not text.strip()) or "|" in text or "\n" in text:
            raise DataError(f"{name}: {key} must be one line of text without |, not {text!r}")
    title, reason, note = (str(text) for text in texts.values())
    if not 1 <= len(title.split()) <= TITLE_MAX_WORDS:
        raise DataError(f"{name}: a title has 1 to {TITLE_MAX_WORDS} words, not {title!r}")
    is_ours = row.get("ours", False)
    if not isinstance(is_ours, bool):
        raise DataError(f"{name}: ours must be true or false, not {is_ours!r}")
    return Behaviour(int(match[1]), title, is_ours, reason, note)


def _docstrings(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the tests of a module with their docstrings: `test_x`, or `TestY::test_x` in a class."""
    for node in module.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name.startswith("test_"):
                yield node.name, ast.get_docstring(node) or ""
            case ast.ClassDef() if node.name.startswith("Test"):
                for name, docstring in _docstrings(ast.Module(node.body, [])):
                    yield f"{node.name}::{name}", docstring


def _summary(sections: list[Section], shown: Mapping[int, list[str]]) -> str:
    behaviours = [behaviour for section in sections for behaviour in section.behaviours]
    with_tests = sum(1 for behaviour in behaviours if shown[behaviour.number])
    parts = sum(1 for behaviour in behaviours if behaviour.note)
    reasons = Counter(behaviour.reason for behaviour in behaviours if behaviour.reason)
    rows = "\n".join(f"| {reason} | {count} |" for reason, count in reasons.most_common() if count > 1)
    single = sum(1 for count in reasons.values() if count == 1)
    return (
        f"{len(behaviours)} behaviours: {with_tests} shown by tests, {parts} of them in part; "
        f"{len(behaviours) - with_tests} without a test:\n\n"
        f"| reason | behaviours |\n|---|---|\n{rows}\n| others | {single} |\n"
    )


def _table(section: Section, shown: Mapping[int, list[str]]) -> str:
    rows = "\n".join(_row(behaviour, shown[behaviour.number]) for behaviour in section.behaviours)
    return f"## {section.title}\n\n| number | behaviour | shown by |\n|---|---|---|\n{rows}\n"


def _row(behaviour: Behaviour, tests: list[str]) -> str:
    title = f"**Ours:** {behaviour.title}" if behaviour.is_ours else behaviour.title
    cells = [f"[`{test}`](../{test.partition('::')[0]})" for test in tests]
    if behaviour.note:
        cells.append(f"not shown: {behaviour.note}")
    if behaviour.reason:
        cells.append(behaviour.reason)
    return f"| B{behaviour.number} | {title} | {'<br>'.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
