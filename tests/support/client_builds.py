"""Installs or builds the client programs of tests/integration/clients once, into a cache outside the repository.

The cache folder is named by a hash of everything that goes in, so a changed source gets a new one. A missing tool raises
ToolMissingError, for the test to skip; a tool that is there and fails is an error.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CLIENTS = Path(__file__).resolve().parents[1] / "integration" / "clients"
PYTHON_LIBRARY = "asyncio-nats-streaming==0.4.0"
C_HEADERS = Path("/usr/include/nats")
BUILD_TIMEOUT_S = 300
CACHE_VARIABLE = "STREAMING_TEST_CACHE"
"""Environment variable with the cache folder; default: a folder of this user in the system's temporary one."""


class ToolMissingError(Exception):
    """A program or library the build needs is not installed; `tool` names it."""

    def __init__(self, tool: str) -> None:
        super().__init__(f"{tool} is not installed")
        self.tool = tool


@dataclass(frozen=True, slots=True)
class ClientProgram:
    """How to run one client program: the command line and what the environment needs beyond ours."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def python_client() -> ClientProgram:
    """asyncio-nats-streaming, installed beside nothing else: its dependency asyncio-nats-client is ours already."""
    if importlib.util.find_spec("pip") is None:
        raise ToolMissingError("pip")

    def build(target: Path) -> None:
        _run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), PYTHON_LIBRARY])

    library = _cached("python", PYTHON_LIBRARY.encode() + sys.version.encode(), build)
    return ClientProgram(
        (sys.executable, str(CLIENTS / "python_client.py")),
        {"PYTHONPATH": str(library), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
    )


def node_client() -> ClientProgram:
    """node-nats-streaming, by npm and its lock file."""
    node, npm = _tool("node"), _tool("npm")
    names = ("package.json", "package-lock.json", "client.js")

    def build(target: Path) -> None:
        for name in names:
            shutil.copy(CLIENTS / "node" / name, target / name)
        _run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(target)])

    folder = _cached("node", b"".join((CLIENTS / "node" / name).read_bytes() for name in names), build)
    return ClientProgram((node, str(folder / "client.js")))


def c_client() -> ClientProgram:
    """Debian's libnats, which has streaming compiled in."""
    compiler = _tool("gcc")
    if not (C_HEADERS / "nats.h").exists():
        raise ToolMissingError("libnats-dev")
    source = CLIENTS / "c" / "client.c"

    def build(target: Path) -> None:
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-DNATS_HAS_STREAMING", f"-I{C_HEADERS}"]
        _run([compiler, *flags, str(source), "-o", str(target / "client"), "-lnats", "-lpthread"])

    return ClientProgram((str(_cached("c", source.read_bytes(), build) / "client"),))


PROGRAMS: dict[str, Callable[[], ClientProgram]] = {"python": python_client, "node": node_client, "c": c_client}
"""Every client library by its short name."""


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ToolMissingError(name)
    return path


def _cached(name: str, content: bytes, build: Callable[[Path], None]) -> Path:
    """The folder built from `content`; built once, also when several test processes ask at the same time."""
    default = Path(tempfile.gettempdir()) / f"streaming-test-clients-{os.getuid()}"
    cache = Path(os.environ.get(CACHE_VARIABLE, default))
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(dir=cache, prefix=f"{name}-unfinished-"))
            try:
                build(unfinished)
                unfinished.rename(folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
