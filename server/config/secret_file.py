"""Reads the secret of a cluster from its file. Its content is in no text."""

import os
import stat
from typing import Final

from pydantic import SecretStr

from .cluster import SECRET_MAX_BYTES
from .option_error import OptionError
from .units import quote

_OPTION: Final = "--cluster_secret_file"
_ALLOWED: Final = f"a file with 1 to {SECRET_MAX_BYTES} bytes of UTF-8, a newline at the end not counted"


def read_secret(path: str) -> tuple[SecretStr, tuple[str, ...]]:
    """The content of the file less one newline at its end, and what the operator should be warned about.

    Raises OptionError, which names the file.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  a Path would make "" the working directory
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(SECRET_MAX_BYTES + 2)
    except OSError as error:
        reason = error.strerror or str(error)
        raise _refusal(path, f"cannot be read: {reason[:1].lower()}{reason[1:]}") from error
    content = content.removesuffix(b"\n")
    if not 0 < len(content) <= SECRET_MAX_BYTES:
        raise _refusal(path, f"must hold 1 to {SECRET_MAX_BYTES} bytes")
    try:
        secret = content.decode()
    except UnicodeDecodeError:
        # Not chained: the cause would show the content.
        raise _refusal(path, "must hold valid UTF-8") from None
    is_readable = bool(mode & (stat.S_IRGRP | stat.S_IROTH))
    return SecretStr(secret), ((f"cluster secret file {quote(path)} can be read by others",) if is_readable else ())


def _refusal(path: str, reason: str) -> OptionError:
    return OptionError(f"cluster secret file {quote(path)} {reason}", option=_OPTION, value=path, allowed=_ALLOWED)
