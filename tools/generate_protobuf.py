"""Regenerates the protobuf modules (_pb2.py, _pb2.pyi) beside every .proto of our packages.

usage: python tools/generate_protobuf.py [--check]

--check changes nothing and fails, naming them, when generated files are missing or stale.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("store", "raft", "server")

STUB_HEAD = '# mypy: disable-error-code="type-arg"\n'
"""protoc writes `Mapping` without its arguments, which strict checking refuses."""


def sources() -> list[Path]:
    """Every .proto of our packages, relative to the repository."""
    found = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.proto")]
    return sorted(path.relative_to(REPOSITORY) for path in found)


def generate(proto: Path, target: Path) -> None:
    """Write the modules of `proto` below `target`."""
    arguments = [
        "protoc",
        f"-I{REPOSITORY}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        str(REPOSITORY / proto),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc failed for {proto}")
    stub = target / outputs(proto)[1]
    stub.write_text(STUB_HEAD + stub.read_text())


def outputs(proto: Path) -> list[Path]:
    """The files made from `proto`."""
    return [proto.with_name(f"{proto.stem}_pb2{suffix}") for suffix in (".py", ".pyi")]


def stale() -> list[Path]:
    """Generated files that are missing or differ from what their .proto gives."""
    differing: list[Path] = []
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        for proto in sources():
            generate(proto, fresh)
            for output in outputs(proto):
                committed = REPOSITORY / output
                if not committed.exists() or committed.read_bytes() != (fresh / output).read_bytes():
                    differing.append(output)
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    if parser.parse_args().check:
        differing = stale()
        for path in differing:
            print(f"stale: {path}; run: python tools/generate_protobuf.py", file=sys.stderr)
        return 1 if differing else 0
    for proto in sources():
        generate(proto, REPOSITORY)
        print(*outputs(proto))
    return 0


if __name__ == "__main__":
    sys.exit(main())
