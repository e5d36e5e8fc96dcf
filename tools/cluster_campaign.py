"""Breaks three-node clusters, round after round, and checks every promise after each: one line per round.

    python tools/cluster_campaign.py --rounds 16 --seed 1
    python tools/cluster_campaign.py --rounds 10 --seed 7 --classes F4,F1+F11 --ledger docs/fault-record.md

Round k has the seed S + k - 1 and takes the fault classes in turn; `F3+F9` is two classes at the same time. The first
failed round leaves a folder (seed, timeline, history, deliveries, logs, stores) and prints the command that repeats
it; the rounds go on. A class that this machine does not allow is reported with the reason and counted as not run. Exit
status 1 on violations. Run as root; docs/fault-record.md says how to run without, and what is missed then.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.cluster import artefacts, capabilities
from tests.support.cluster.faults import FAULTS
from tests.support.cluster.node import REPOSITORY
from tests.support.cluster.rounds import RoundResult, RoundSettings, run_round


@dataclass(slots=True)
class Campaign:
    """What came of all rounds so far."""

    results: list[RoundResult] = field(default_factory=list)

    @property
    def run(self) -> list[RoundResult]:
        """The rounds that were run."""
        return [result for result in self.results if not result.unavailable]

    @property
    def violations(self) -> Counter[str]:
        """How many, by invariant."""
        return Counter(violation.invariant for result in self.run for violation in result.violations)

    @property
    def acked(self) -> int:
        """Publishes acked and checked."""
        return sum(result.acked for result in self.run)

    @property
    def kills(self) -> int:
        """Servers killed without warning."""
        return sum(result.kills for result in self.run)

    def classes(self, *, run: bool) -> str:
        """The classes that were run, or could not be, in the order of the fault table."""
        labels = {result.settings.label for result in self.results if (not result.unavailable) is run}
        order = list(FAULTS)
        return " ".join(sorted(labels, key=lambda label: [order.index(name) for name in label.split("+")]))


def line_of(result: RoundResult) -> str:
    """One round."""
    settings = result.settings
    if result.unavailable:
        return f"seed {settings.seed} {settings.label}: not run: {result.unavailable}"
    return (
        f"seed {settings.seed} {settings.label}: {result.faults} faults, {result.acked} acked, {result.unknown} not, "
        f"{result.kills} kills, {result.terms} terms, {result.seconds:.0f} s, {len(result.violations)} violations"
    )


def row_of(campaign: Campaign, commit: str, moment: datetime) -> str:
    """The ledger's row."""
    broken = " ".join(f"{invariant}:{times}" for invariant, times in sorted(campaign.violations.items()))
    cells = (
        f"{moment:%Y-%m-%d}",
        commit,
        str(len(campaign.run)),
        campaign.classes(run=True) or "-",
        campaign.classes(run=False) or "-",
        str(campaign.acked),
        str(campaign.kills),
        broken or "none",
    )
    return f"| {' | '.join(cells)} |\n"


def commit_of(repository: Path) -> str:
    """The commit that was tested, with `+` when files were changed; `unknown` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def parse_classes(text: str) -> list[tuple[str, ...]]:
    """`F1,F3+F9` as [(F1,), (F3, F9)]; raises ValueError naming an unknown one."""
    found = [tuple(label.split("+")) for label in text.split(",")]
    unknown = [name for label in found for name in label if name not in FAULTS]
    if unknown:
        raise ValueError(f"fault class {unknown[0]!r}; allowed: {', '.join(FAULTS)}, joined by + or ,")
    return found


def run_rounds(options: argparse.Namespace, classes: Sequence[tuple[str, ...]]) -> Campaign:
    """All rounds; prints as they end."""
    campaign = Campaign()
    has_kept = False
    for number in range(options.rounds):
        settings = RoundSettings(
            seed=options.seed + number, classes=classes[number % len(classes)], faults_s=options.seconds
        )
        result = run_round(settings, keep=None if has_kept else options.keep_on_failure)
        campaign.results.append(result)
        print(line_of(result), flush=True)
        for violation in result.violations:
            print(f"  {str(violation).splitlines()[0]}", flush=True)  # with logs, if any, in the folder
        if result.folder is not None:
            has_kept = True
            print(f"  kept {result.folder}; again: {artefacts.repeat_command(settings)}", flush=True)
    return campaign


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=len(FAULTS))
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each next one has the next seed")
    parser.add_argument("--classes", default=",".join(FAULTS), help="in turn, e.g. F1,F4,F3+F9 (default: each class)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long new faults begin in a round")
    parser.add_argument("--keep-on-failure", type=Path, default=Path(tempfile.gettempdir()), metavar="DIR")
    parser.add_argument("--ledger", type=Path, help="file that gets a row at the end, e.g. docs/fault-record.md")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds: at least 1, not {options.rounds}")
    try:
        classes = parse_classes(options.classes)
    except ValueError as error:
        parser.error(f"--classes: {error}")
    for capability, reason in capabilities.missing().items():
        print(f"{capability} not available: {reason}", flush=True)
    campaign = run_rounds(options, classes)
    broken = sum(campaign.violations.values())
    print(f"{len(campaign.run)} rounds, {campaign.acked} acked, {campaign.kills} kills, {broken} violations")
    if options.ledger is not None:
        with options.ledger.open("a") as ledger:
            ledger.write(row_of(campaign, commit_of(REPOSITORY), datetime.now(UTC)))
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
