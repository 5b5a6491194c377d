"""Crops of photographs as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from absence_plugins.data.photographs import MEAN, PHOTOGRAPHS, STD, photograph_crops, save_crops
from absence_plugins.data.pictures import read_picture


@pytest.mark.needs("skimage")
def test_crops_as_files_are_the_crops(tmp_path: Path) -> None:
    import numpy as np

    save_crops(tmp_path / "crops", 2, side=32)
    assert sorted(path.name for path in (tmp_path / "crops").iterdir()) == sorted(PHOTOGRAPHS)
    read = np.asarray(read_picture(tmp_path / "crops" / "cat" / "001.png"))
    expected = photograph_crops("cat", 2, side=32)[1] * STD + MEAN
    assert torch.equal(torch.from_numpy(read.copy()).permute(2, 0, 1).float(), expected)
