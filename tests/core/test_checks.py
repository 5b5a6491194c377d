"""One check of integers, one of folders, and one text table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from absence_plugins.core.checks import check_integer, check_integers
from absence_plugins.core.files import require_folder
from absence_plugins.core.table import align


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)])
def test_integers_of_every_kind_are_taken(value: Any) -> None:
    found = check_integer("k", value)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [True, 2.0, "3", None, torch.tensor(2.5), torch.tensor([1, 2])])
def test_other_types_are_a_type_error_and_a_value_error(value: Any) -> None:
    for error in (TypeError, ValueError):
        with pytest.raises(error, match="must be an integer, at least 0"):
            check_integer("k", value, least=0)


def test_small_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="size=0 must be at least 1") as caught:
        check_integers(k=1, size=0)
    assert not isinstance(caught.value, TypeError)
    with pytest.raises(ValueError, match="--steps -3 must be at least 1"):
        check_integer("--steps", -3)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    assert require_folder(str(tmp_path / "new")) == tmp_path / "new"
    assert not (tmp_path / "new").exists()
    assert require_folder(tmp_path / "a" / "b", make=True).is_dir()
    (tmp_path / "file").write_text("")
    for make in (False, True):
        with pytest.raises(ValueError, match="file is an existing file; name a folder, or remove the file"):
            require_folder(tmp_path / "file", make=make)


def test_columns_are_aligned() -> None:
    rows = [("", "AUC", "name"), ("unit 3", "0.9", "red"), ("unit 10", "0.95", "not blue")]
    assert align(rows, left=(0, 2)) == ["          AUC  name", "unit 3    0.9  red", "unit 10  0.95  not blue"]
