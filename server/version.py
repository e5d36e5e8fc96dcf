"""Names this build: its version and the commit it was made from."""

import os
import re
from collections.abc import Mapping
from typing import Final

VERSION: Final = "0.1.0"
"""Version of the server, the same as in pyproject.toml: a checkout has no installed metadata to read it from."""

COMMIT_VARIABLE: Final = "NATS_STREAMING_SERVER_COMMIT"
"""Environment variable that an image build sets to the commit hash it was built from."""

_COMMIT_SHORT_LENGTH: Final = 7


def short_commit(environ: Mapping[str, str]) -> str:
    """Short hash of the commit this build was made from, `not set` when the build did not say (O203)."""
    commit = environ.get(COMMIT_VARIABLE, "")
    return commit[:_COMMIT_SHORT_LENGTH] if re.fullmatch(r"[0-9a-f]{7,64}", commit) else "not set"


COMMIT: Final = short_commit(os.environ)
"""Short hash of this build's commit, or `not set`."""
