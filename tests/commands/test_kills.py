"""A hundred kills (SIGKILL) at random moments: what was killed is resumed to the same bits, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("kill_worker.py")
# A hundred in all; of work that takes seconds fewer.
KILLS = {"scan": 26, "insertion": 20, "label": 25, "directions": 10, "report": 9, "debias": 6, "planted": 4}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All of them in one process, which loads torch once."""
    words = [f"{work}={kills}" for work, kills in KILLS.items()]
    command = [sys.executable, str(WORKER), str(tmp_path_factory.mktemp("kills")), "0", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {one["work"]: one for one in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("work", KILLS)
def test_what_was_killed_at_random_is_resumed_to_the_same_bits(work: str, campaigns: dict[str, dict[str, Any]]) -> None:
    found = campaigns[work]
    assert found["kills"] == KILLS[work]
    assert (found["other bits"], found["wrong"], found["left"]) == (0, [], 0)
