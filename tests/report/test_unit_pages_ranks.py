"""The reports of a layer's units, shared out: the same files for any number of ranks, also after one was killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import run_ranks
from unit_subjects import SMALL, images, linear_maps, net, plain_pictures

from absence_plugins.methods.ranks import ranks
from absence_plugins.report.unit.explain import report_of, study_of
from absence_plugins.report.unit.many import Texts, write_reports

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")]
UNITS = [2, 0, 1]


def write(out: Path, few: int, kill: tuple[int, int] | None = None) -> list[int]:
    """Returns the units that this rank has made."""
    pixels, block = images()
    study = study_of(
        net(), "conv", UNITS, pixels, labels=block.long(), concepts=(block[:, None], ["block"]), maps=linear_maps,
        pictures=plain_pictures, directions=2, **SMALL,
    )  # fmt: skip
    made: list[int] = []

    def make(study: Any, unit: int, **options: Any) -> Any:
        if kill == (ranks_before, unit):
            os.kill(os.getpid(), signal.SIGKILL)
        made.append(unit)
        return report_of(study, unit, **options)

    ranks_before, _ = ranks()
    write_reports(study, UNITS, out, Texts("Units"), few=few, make=make)
    return made


def files(folder: Path) -> dict[str, bytes]:
    """Their contents; a study's own folder has nothing that differs from run to run."""
    return {path.name: re.sub(rb"made (on|at) [^<]*", b"", path.read_bytes()) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    torch.set_num_threads(1)
    found = {}
    for few in (1, 8):
        out = tmp_path_factory.mktemp("one")
        assert write(out, few) == UNITS
        found[few] = files(out)
    return found


@pytest.mark.parametrize("few", [1, 8])
def test_any_number_of_ranks_writes_the_same_files(
    few: int, expected: dict[int, dict[str, bytes]], tmp_path: Path
) -> None:
    assert run_ranks(2, write, tmp_path, few) == [[2, 1], [0]]
    assert files(tmp_path) == expected[few]


def test_a_killed_rank_is_resumed(expected: dict[int, dict[str, bytes]], tmp_path: Path) -> None:
    found = run_ranks(2, write, tmp_path, 1, (0, 1))  # at its second unit
    assert found[0] == -signal.SIGKILL
    assert found[1].startswith("RankLost")
    assert run_ranks(3, write, tmp_path, 1) == [[1], [], []]
    assert files(tmp_path) == expected[1]
    assert run_ranks(2, write, tmp_path, 1) == [[], []]
