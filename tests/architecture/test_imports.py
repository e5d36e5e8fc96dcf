"""Who may import whom, and that nothing lies about unused."""

import importlib.metadata
import subprocess
import sys

import grimp

from tests.architecture.checkout import PACKAGES, ROOT

ENTRY_POINTS = {"server.__main__", "server.cli.main"}


def test_import_contracts_hold() -> None:
    """The layers and bans that pyproject.toml states for import-linter hold."""
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_is_imported_by_another() -> None:
    """A module that no other module of the packages imports is dead: tests alone keep nothing alive."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    leaves = {module for module in graph.modules if not graph.find_children(module)}
    unused = {module for module in leaves - set(PACKAGES) if not graph.find_modules_that_directly_import(module)}
    assert unused - ENTRY_POINTS == set()


def test_no_dependency_provides_our_top_level_names() -> None:
    """The packages have generic names: an installed distribution with one of them would shadow ours or be shadowed."""
    owners = importlib.metadata.packages_distributions()
    taken = {name: owners[name] for name in PACKAGES if set(owners.get(name, ())) - {"nats-streaming-server"}}
    assert taken == {}


def test_one_distribution_owns_the_name_nats() -> None:
    """asyncio-nats-client and its successor both install `nats`; the one installed last would win."""
    assert set(importlib.metadata.packages_distributions()["nats"]) == {"asyncio-nats-client"}
