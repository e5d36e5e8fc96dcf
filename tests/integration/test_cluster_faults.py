"""Rounds of three nodes as real processes under faults keep every promise.

More of the same, with other seeds and all fault classes: tools/cluster_campaign.py.
"""

from pathlib import Path

import pytest

from tests.support.cluster.rounds import RoundSettings, run_round, unavailable

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["F1", "F4", "F9"])
def test_round_breaks_no_promise(name: str, tmp_path: Path) -> None:
    """R1 to R7, R9 to R20 hold over kills, partitions and power cuts, and the round did break something."""
    reason = unavailable([name])
    if reason:
        pytest.skip(reason)
    settings = RoundSettings(seed=1, classes=(name,), quiet_s=1.0, faults_s=3.0, hold_s=(0.3, 2.0))
    result = run_round(settings, tmp_path)
    assert result.violations == [], f"kept {result.folder}"
    assert result.faults >= 1
    assert result.acked > 0
