"""What is generated, locked and shipped is in step with what is written."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.checkout import PACKAGES, ROOT, files, relative

PIN = re.compile(r"^([a-z0-9-]+)==(\S+?)(?: ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
LOCKS = ("requirements-build.lock", "requirements.lock", "requirements-dev.lock")


def project() -> dict[str, Any]:
    """Contents of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def locked(name: str) -> dict[str, tuple[str, str]]:
    """Read a lock file: version and hashes by name of the distribution."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {match[1]: (match[2], match[3]) for match in PIN.finditer(text)}


def run(*arguments: str) -> None:
    """Run Python with these arguments at the top of the checkout; what it says is the message of a failure."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("tool", ["tools/generate_protobuf.py", "tools/generate_reference.py"])
def test_generated_files_are_fresh(tool: str) -> None:
    """Generating again changes nothing."""
    run(tool, "--check")


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_only_pins_with_hashes(name: str) -> None:
    """A lock file is a comment and pins with hashes: no addresses, no loose versions."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert PIN.search(text)
    assert re.sub(r"^#.*\n", "", PIN.sub("", text), flags=re.MULTILINE).strip() == ""


@pytest.mark.parametrize(
    ("name", "needs_tools"), [("requirements.lock", False), ("requirements-dev.lock", True)], ids=["runtime", "dev"]
)
def test_lock_satisfies_the_project(name: str, needs_tools: bool) -> None:
    """Each requirement of pyproject.toml is locked at a version that it allows; `tools/lock` writes the files anew."""
    required = list(project()["project"]["dependencies"])
    if needs_tools:
        required += project()["dependency-groups"]["dev"]
    pins = locked(name)
    unmet = [
        line
        for line in required
        if (pin := pins.get(canonicalize_name(Requirement(line).name))) is None
        or not Requirement(line).specifier.contains(pin[0], prereleases=True)
    ]
    assert unmet == []


def test_locks_agree_with_each_other() -> None:
    """The tools run with exactly what the server runs with, and installing one lock never replaces what another did."""
    build, runtime, dev = (locked(name) for name in LOCKS)
    assert runtime.items() <= dev.items()
    assert {name: dev[name] for name in build.keys() & dev.keys()} == {
        name: build[name] for name in build.keys() & dev.keys()
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this checkout, built without a download."""
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    """The folders are the packages: the wheel has these three at its top, and every file of them."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {relative(path) for path in files(*PACKAGES, suffix="") if path.is_file()}
    assert {name.split("/")[0] for name in names} == set(PACKAGES)
    assert names == expected


def test_wheel_holds_the_protobuf_files(wheel: Path) -> None:
    """Each `.proto` is shipped with the code generated from it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = [relative(path) for path in files(*PACKAGES, suffix=".proto")]
    generated = {source.removesuffix(".proto") + suffix for source in sources for suffix in ("_pb2.py", "_pb2.pyi")}
    assert sources
    assert {*sources, *generated} <= names


def test_wheel_installs_the_command_and_the_licence(wheel: Path) -> None:
    """The distribution brings the console command `nats-streaming-server` and its licence text."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split("/", 1)[1]: name for name in archive.namelist() if ".dist-info/" in name}
        assert b"nats-streaming-server = server.cli.main:main" in archive.read(names["entry_points.txt"])
        assert b"Apache License" in archive.read(names["licenses/LICENSE"])


def test_wheel_passes_the_content_checks(wheel: Path) -> None:
    """check-wheel-contents, with the top-level names of pyproject.toml, has no complaint."""
    run("-m", "check_wheel_contents", str(wheel))
