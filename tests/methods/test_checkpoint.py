"""The saver of long work: what is due, rows in order, and records that belong to their work only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from absence_plugins.methods.checkpoint import Checkpoint, read_record, write_record
from absence_plugins.methods.kept_rows import KeptRows


def test_a_save_is_due_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("absence_plugins.methods.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "state", {}, "work", save_every=10.0)
    packed: list[float] = []

    def pack() -> dict[str, torch.Tensor]:
        packed.append(now[0])
        return {"values": torch.ones(1)}

    for second in (0.0, 9.0, 10.0, 15.0, 20.0):
        now[0] = second
        checkpoint.save_if_due("state", pack)
    assert packed == [10.0, 20.0]


@pytest.mark.parametrize("save_every", [0.0, 1e9])
def test_rows_are_kept_also_when_the_work_is_stopped(tmp_path: Path, save_every: float) -> None:
    def checkpoint() -> Checkpoint:
        return Checkpoint(tmp_path / "state", {"seed": 0}, "values", save_every=save_every)

    def stopped() -> None:
        with KeptRows(checkpoint(), 4) as kept:
            kept.put(range(2), torch.zeros(2, 3))
            kept.put(range(2, 3), torch.ones(1, 3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with KeptRows(checkpoint(), 4) as kept:
        assert len(kept) == 3
        with pytest.raises(RuntimeError, match="1 of 4 rows are missing"):
            kept.joined()
        kept.put(range(3, 4), torch.full((1, 3), 2.0))
    with KeptRows(checkpoint(), 4) as kept:
        assert kept.joined()[:, 0].tolist() == [0.0, 0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="another values: seed is 0 there and 1 here"):
        Checkpoint(tmp_path / "state", {"seed": 1}, "values")


def test_without_a_checkpoint_rows_stay_in_memory() -> None:
    with KeptRows() as kept:  # of a number that is not known
        for first in range(0, 10, 2):
            kept.put(range(first, first + 2), torch.full((2, 3), first))
        assert kept.joined()[:, 0].tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]


def test_a_record_is_that_of_its_work(tmp_path: Path) -> None:
    path = tmp_path / "unit.json"
    assert read_record(path, "a") is None
    write_record(path, "a", {"name": "ü"})
    assert read_record(path, "a") == {"name": "ü", "fingerprint": "a"}
    assert read_record(path, "b") is None
    for damaged in ("{", "[1]"):
        path.write_text(damaged)
        assert read_record(path, "a") is None
