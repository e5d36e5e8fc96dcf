"""Names the files of this checkout that the architecture tests look at."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("server", "raft", "store")

_WRITTEN_FOLDERS: Final = (*PACKAGES, "tools", "tests", "benchmarks", "examples", "deploy", "docs", ".ci")
_NOT_OURS: Final = frozenset({"node_modules", "__pycache__", "out", "build", "dist"})


def relative(path: Path) -> str:
    """Return the name of a file as it stands in reports and exemption tables: relative to the checkout, with slashes."""
    return path.relative_to(ROOT).as_posix()


def files(*folders: str, suffix: str) -> Iterator[Path]:
    """Yield the files with that suffix below these folders, what tools left there excepted."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob(f"*{suffix}")):
            if _NOT_OURS.isdisjoint(path.relative_to(ROOT).parts):
                yield path


def package_modules() -> list[Path]:
    """Return the modules of the three packages that are written by hand."""
    return [path for path in files(*PACKAGES, suffix=".py") if not path.name.endswith("_pb2.py")]


def written_modules() -> list[Path]:
    """Return all Python files that are written by hand, tests and tools among them."""
    return [path for path in files(*_WRITTEN_FOLDERS, suffix=".py") if not path.name.endswith("_pb2.py")]


def documents() -> list[Path]:
    """Return the Markdown files, those at the top first."""
    return [*sorted(ROOT.glob("*.md")), *files(*_WRITTEN_FOLDERS, suffix=".md")]


def tracked_files() -> list[Path]:
    """Return the files that are in git or would be with `git add .`; skips the test outside a git checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, or git is not installed")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]
