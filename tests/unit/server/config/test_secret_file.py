"""The file with the secret of a cluster."""

from pathlib import Path

import pytest

from server.config.option_error import OptionError
from server.config.secret_file import read_secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A private file with a secret."""
    path = tmp_path / "secret"
    path.write_bytes(b"hidden")
    path.chmod(0o600)
    return path


def refusal(path: str) -> OptionError:
    """The refusal of that file."""
    with pytest.raises(OptionError) as caught:
        read_secret(path)
    return caught.value


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s", "s"),
        (b"s\n", "s"),
        (b"s\n\n", "s\n"),
        (b" s ", " s "),
        (b"\n\n", "\n"),
        ("\u00e9".encode(), "\u00e9"),
        (b"x" * 1024, "x" * 1024),
        (b"x" * 1024 + b"\n", "x" * 1024),
    ],
)
def test_content_less_one_newline_is_the_secret(path: Path, content: bytes, secret: str) -> None:
    """One newline, which editors add, does not count; everything else does. Up to 1024 bytes."""
    path.write_bytes(content)
    read, warnings = read_secret(str(path))
    assert (read.get_secret_value(), warnings) == (secret, ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must hold 1 to 1024 bytes"),
        (b"\n", "must hold 1 to 1024 bytes"),
        (b"x" * 1025, "must hold 1 to 1024 bytes"),
        (b"x" * 1025 + b"\n", "must hold 1 to 1024 bytes"),
        (b"x" * 5000, "must hold 1 to 1024 bytes"),
        (b"hidden\xff", "must hold valid UTF-8"),
    ],
)
def test_unusable_content_is_refused_and_not_shown(path: Path, content: bytes, reason: str) -> None:
    """The text names the file, never what is in it."""
    path.write_bytes(content)
    error = refusal(str(path))
    assert error.text == f'cluster secret file "{path}" {reason}'
    assert (error.option, error.value, error.__cause__) == ("--cluster_secret_file", str(path), None)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """The reason is the system's; an empty name, as of a variable that is not set, is no file either."""
    missing = tmp_path / "missing"
    assert refusal(str(missing)).text == f'cluster secret file "{missing}" cannot be read: no such file or directory'
    assert refusal(str(tmp_path)).text == f'cluster secret file "{tmp_path}" cannot be read: is a directory'
    assert refusal("").text == 'cluster secret file "" cannot be read: no such file or directory'


@pytest.mark.parametrize(("mode", "is_readable"), [(0o600, False), (0o640, True), (0o604, True), (0o733, False)])
def test_file_that_others_can_read_is_warned_about(path: Path, mode: int, is_readable: bool) -> None:
    """The server starts nevertheless: mounted secrets are often readable for all."""
    path.chmod(mode)
    _, warnings = read_secret(str(path))
    assert warnings == ((f'cluster secret file "{path}" can be read by others',) if is_readable else ())
