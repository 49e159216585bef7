"""Kills at seeded random moments, during steps and during the writing of checkpoints; nothing is lost but steps."""

import json
from pathlib import Path

import pytest

from tests.commands import ROOT, run_python


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("processes", "kills"), [(1, 40), (2, 20)])
def test_killed_runs_end_with_the_weights_of_the_straight_one(processes: int, kills: int, tmp_path: Path) -> None:
    words = ["-m", "tests.killing", str(tmp_path), str(processes), str(kills)]
    done = run_python(words, ROOT, {"OMP_NUM_THREADS": "1"}, seconds=850)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['killed']} kills of {processes} process(es) over {found['runs']} runs")
    assert found["killed"] >= kills and found["runs"] >= 2
    assert found["same"]
