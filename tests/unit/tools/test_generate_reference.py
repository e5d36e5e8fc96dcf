"""The generated reference pages."""

import subprocess
import sys
from pathlib import Path

from server.cli.flag_table import FLAGS

ROOT = Path(__file__).parents[3]
OPTIONS_FILE = ROOT / "docs" / "reference" / "options.md"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The generator with these arguments."""
    command = [sys.executable, str(ROOT / "tools" / "generate_reference.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_reference_is_up_to_date() -> None:
    """The committed page is what the table of options gives."""
    done = run("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_arguments_are_refused() -> None:
    """A mistyped `--check` must not write."""
    done = run("--chekc")
    assert (done.returncode, done.stderr) == (2, "usage: generate_reference.py [--check]\n")


def test_every_option_is_in_the_reference() -> None:
    """Each name of each option is on the page."""
    text = OPTIONS_FILE.read_text(encoding="utf-8")
    assert [name for flag in FLAGS for name in flag.names if f"`{flag.dashed(name)}`" not in text] == []
