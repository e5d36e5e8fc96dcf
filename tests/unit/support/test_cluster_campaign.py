"""The campaign's classes, lines and ledger rows say what was run, what could not be, and what broke."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.cluster.artefacts import repeat_command
from tests.support.cluster.faults import FAULTS
from tests.support.cluster.rounds import RoundResult, RoundSettings
from tests.support.history import Violation
from tools.cluster_campaign import Campaign, line_of, main, parse_classes, row_of

LEDGER = Path(__file__).resolve().parents[3] / "docs" / "fault-record.md"


def result_of(*classes: str, unavailable: str = "", violations: tuple[str, ...] = ()) -> RoundResult:
    """A round of seed 5 with 100 acked publishes."""
    found = [Violation(invariant, "orders", "text") for invariant in violations]
    return RoundResult(RoundSettings(5, classes), unavailable=unavailable, acked=100, kills=2, violations=found)


def test_all_sixteen_classes_are_there() -> None:
    """F1 to F16, in the order of the fault table."""
    assert list(FAULTS) == [f"F{number}" for number in range(1, 17)]


def test_classes_are_read_alone_and_together() -> None:
    """A plus joins, a comma separates; an unknown one is refused with what is allowed."""
    assert parse_classes("F1,F3+F9") == [("F1",), ("F3", "F9")]
    with pytest.raises(ValueError, match="'F17'; allowed: F1, F2"):
        parse_classes("F1,F17")


def test_bad_arguments_end_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names option and value."""
    with pytest.raises(SystemExit):
        main(["--classes", "F99"])
    assert "--classes: fault class 'F99'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    assert "--rounds: at least 1" in capsys.readouterr().err


def test_row_tells_what_was_run_and_what_was_not() -> None:
    """A class that is not available here is in the row, and counts for nothing else."""
    campaign = Campaign(
        [result_of("F3", "F9", violations=("R1", "R1", "R6")), result_of("F1"), result_of("F4", unavailable="why")]
    )
    row = row_of(campaign, "abc123", datetime(2026, 11, 24, tzinfo=UTC))
    assert row == "| 2026-11-24 | abc123 | 2 | F1 F3+F9 | F4 | 200 | 4 | R1:2 R6:1 |\n"


def test_row_without_violations_says_so() -> None:
    """Nothing broken is `none`, not an empty cell."""
    row = row_of(Campaign([result_of("F1")]), "abc123", datetime(2026, 11, 24, tzinfo=UTC))
    assert row.endswith("| none |\n")


def test_row_fits_the_ledger() -> None:
    """The ledger ends with its table, which has as many columns as a row."""
    table = LEDGER.read_text().rpartition("\n\n")[2].splitlines()
    row = row_of(Campaign([result_of("F1")]), "abc123", datetime(2026, 11, 24, tzinfo=UTC))
    assert {line.count("|") for line in [*table, row]} == {row.count("|")}
    assert LEDGER.read_text().endswith("|\n")


def test_line_of_a_round_that_was_not_run_has_the_reason() -> None:
    """Nothing is left out silently."""
    assert line_of(result_of("F4", unavailable="no `nft`")) == "seed 5 F4: not run: no `nft`"


def test_repeat_command_has_all_that_draws_the_faults() -> None:
    """Seed, classes and length."""
    command = repeat_command(RoundSettings(5, ("F3", "F9"), faults_s=8.0))
    assert command == "python tools/cluster_campaign.py --rounds 1 --seed 5 --classes F3+F9 --seconds 8"
