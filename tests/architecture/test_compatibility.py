"""The list of behaviours: complete, in step with the tests, and checked by a tool that can see each fault."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.checkout import ROOT

PROGRAM = ROOT / "tools" / "compatibility.py"
PAGE = "docs/compatibility.md"
DATA = """\
[[section]]
title = "First"

[section.behaviours]
B1 = { title = "one" }
B2 = { title = "two", ours = true, note = "the other half" }

[[section]]
title = "Second"

[section.behaviours]
B4 = { title = "four" }
B7 = { title = "seven", reason = "seven follows" }
"""
UNTESTED = """\
[[section]]
title = "Only"

[section.behaviours]
B1 = { title = "one", reason = "none" }
B2 = { title = "two", reason = "none" }
B4 = { title = "four", reason = "none" }
"""
TESTS = {
    "tests/unit/test_a.py": '''
def test_one() -> None:
    """B1: shown here."""

async def test_part() -> None:
    """Also a part of a number is the number (B2.3, O7)."""

class TestMore:
    def test_range(self) -> None:
        """B2-B4: numbers that do not exist may lie inside."""

def helper() -> None:
    """B7: no test."""

def test_without_docstring() -> None:
    pass  # B7
''',
    "tests/unit/support/test_helper.py": '''
def test_helper() -> None:
    """B7: a test of what tests use shows nothing of the server."""
''',
}
EXPECTED_ROWS = [
    "| B1 | one | [`tests/unit/test_a.py::test_one`](../tests/unit/test_a.py) |",
    (
        "| B2 | **Ours:** two | [`tests/unit/test_a.py::test_part`](../tests/unit/test_a.py)"
        "<br>[`tests/unit/test_a.py::TestMore::test_range`](../tests/unit/test_a.py)<br>not shown: the other half |"
    ),
    "| B4 | four | [`tests/unit/test_a.py::TestMore::test_range`](../tests/unit/test_a.py) |",
    "| B7 | seven | seven follows |",
]


def run(root: Path, *words: str) -> tuple[int, str]:
    """The tool of a checkout at `root`; status and complaints."""
    command = [sys.executable, str(root / "tools" / PROGRAM.name), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def checkout(root: Path, data: str = DATA, **tests: str) -> Path:
    """A small checkout with this data file; `tests` replace the text of tests/unit/test_a.py."""
    files = {**TESTS, "docs/compatibility.toml": data, f"tools/{PROGRAM.name}": PROGRAM.read_text(encoding="utf-8")}
    if tests:
        files["tests/unit/test_a.py"] = tests["text"]
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_page_is_fresh_and_without_contradictions() -> None:
    """Each behaviour has its tests or a reason why it has none, and the committed page says which."""
    assert run(ROOT, "--check") == (0, "")


def test_page_names_number_title_and_tests(tmp_path: Path) -> None:
    """Numbers come with links to their tests, deliberate differences with a mark, the rest with its reason."""
    checkout(tmp_path)
    assert run(tmp_path) == (0, "")
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| B")] == EXPECTED_ROWS
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## First", "## Second"]
    assert "4 behaviours: 3 shown by tests, 1 of them in part; 1 without a test:" in page
    assert run(tmp_path, "--check") == (0, "")


def test_stale_page_is_found_and_not_written(tmp_path: Path) -> None:
    """A missing or old page fails the check, which leaves the files alone."""
    checkout(tmp_path)
    stale = (1, f"{PAGE} is out of date: run tools/compatibility.py\n")
    assert run(tmp_path, "--check") == stale
    assert not (tmp_path / PAGE).exists()
    run(tmp_path)
    (tmp_path / PAGE).write_text("old", encoding="utf-8")
    assert run(tmp_path, "--check") == stale


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("seven follows", " ", "B7: reason must be one line of text without |, not ' '"),
        (', reason = "seven follows"', "", "B7 has neither a test nor a reason"),
        (', reason = "seven follows"', ', reason = "x", note = "y"', "B7 has a note on its tests, but no test"),
        ('"one"', '"one", reason = "later"', "B1 has the reason 'later', but tests/unit/test_a.py::test_one shows it"),
        (
            'B1 = { title = "one" }\n',
            "",
            "tests/unit/test_a.py::test_one names B1, which docs/compatibility.toml lacks",
        ),
        ("B7", "B3", "compatibility.toml: B3 stands behind B4: numbers must ascend"),
        ("B7", "O7", "'O7' is no number: B1, B2, …"),
        ("seven", "a b c d e f g h i j k", "B7: a title has 1 to 10 words, not 'a b c d e f g h i j k'"),
        ("ours = true", 'ours = "yes"', "B2: ours must be true or false, not 'yes'"),
        ("ours = true", "owrs = true", "B2: unknown owrs; allowed are ['note', 'ours', 'reason', 'title']"),
        ("B1 =", "B1", "compatibility.toml: Expected '=' after a key in a key/value pair (at line 5, column 4)"),
        ('title = "First"\n', "", "section None: a section has a title and behaviours, and nothing else"),
    ],
)
def test_contradictions_are_found(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """Each fault of the data file has its own complaint, with and without `--check`, and nothing is written."""
    checkout(tmp_path, DATA.replace(old, new, 1))
    assert run(tmp_path) == (1, f"{complaint}\n")
    assert run(tmp_path, "--check") == (1, f"{complaint}\n")
    assert not (tmp_path / PAGE).exists()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("B1-B4", ["B1", "B2", "B4"]),
        ("B1 \N{EN DASH} B2", ["B1", "B2"]),
        ("B1 to B4", ["B1", "B2", "B4"]),
        ("B1\N{HORIZONTAL ELLIPSIS}B2", ["B1", "B2"]),
        ("(B1, B4)", ["B1", "B4"]),
        ("B1.2-3", ["B1"]),
        ("AB1, b1, B1x", []),
    ],
)
def test_ways_to_name_numbers(tmp_path: Path, text: str, numbers: list[str]) -> None:
    """Single numbers, parts and ranges are understood in any punctuation."""
    checkout(tmp_path, UNTESTED, text=f'def test_x():\n    """{text}"""\n')
    complaints = run(tmp_path)[1].splitlines()
    assert [line.partition(" ")[0] for line in complaints] == numbers


def test_range_backwards_is_a_mistake(tmp_path: Path) -> None:
    """A range that does not ascend names nothing, and says where it stands."""
    checkout(tmp_path, text='def test_x():\n    """B4-B1."""\n')
    assert run(tmp_path) == (1, "tests/unit/test_a.py::test_x: 'B4-B1': the numbers of a range must ascend\n")
