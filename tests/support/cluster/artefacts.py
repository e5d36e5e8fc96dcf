"""Keeps what is needed to understand a failed round: settings, timeline, history, deliveries, logs and stores."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.cluster.cluster import Cluster
from tests.support.cluster.load import Load

if TYPE_CHECKING:
    from tests.support.cluster.rounds import RoundResult, RoundSettings


def repeat_command(settings: "RoundSettings") -> str:
    """The one command that runs a round with the same faults again."""
    return (
        f"python tools/cluster_campaign.py --rounds 1 --seed {settings.seed} --classes {settings.label} "
        f"--seconds {settings.faults_s:g}"
    )


def keep(
    parent: Path, cluster: Cluster, load: Load, result: "RoundResult", timeline: Sequence[tuple[int, str]]
) -> Path:
    """Makes a folder for the round and returns it. Times in it are monotonic seconds. The servers are ended."""
    settings = result.settings
    folder = parent / f"{settings.label}-{settings.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "repeat.txt").write_text(repeat_command(settings) + "\n")
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=1) + "\n")
    (folder / "violations.txt").write_text("".join(f"{violation}\n" for violation in result.violations))
    (folder / "timeline.txt").write_text("".join(f"{_seconds(at_ns)} {text}\n" for at_ns, text in timeline))
    _write_lines(folder / "history.jsonl", (asdict(publish) for publish in load.history.publishes.values()))
    for recording in load.recordings:
        events = ({"event": type(event).__name__} | asdict(event) for event in recording.events)
        _write_lines(folder / f"deliveries-{recording.name.replace(' ', '-')}.jsonl", events)
    for node in cluster.nodes.values():
        node.server.kill()
        for process in (node.server, node.nats):
            lines = "".join(f"{_seconds(line.at_ns)} {line.text}\n" for line in process.lines)
            (folder / f"{process.name}.log").write_text(lines)
        for directory in node.directories:
            if directory.exists():
                shutil.copytree(directory, folder / node.name / directory.name)
    return folder


def _write_lines(file: Path, items: Iterable[dict[str, object]]) -> None:
    with file.open("w") as output:
        for item in items:
            output.write(json.dumps(item) + "\n")


def _seconds(at_ns: int) -> str:
    return f"{at_ns / 1e9:.6f}"
