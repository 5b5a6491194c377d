"""The bench of reading: both sides read the same numbers, by number and in threads."""

from __future__ import annotations

import os
import warnings

import pytest
import torch

from absence_plugins.bench import reading
from absence_plugins.bench.reading import LIMIT, build_reading_works, make_photographs
from absence_plugins.data.whole_files import is_surely_whole


def test_both_sides_read_the_same_numbers(recwarn: pytest.WarningsRecorder) -> None:
    works = build_reading_works("folder", True, torch.device("cpu"))
    assert list(works) == ["no workers", "2 workers", "threads"]
    for name, work in works.items():
        assert work.limit == LIMIT
        assert work.growth is not None
        assert work.growth.memory == (name != "2 workers")
        if name != "2 workers" or hasattr(os, "fork"):
            ours, plain = work.growth.at(4)
            assert torch.equal(work.ours(), work.plain())
            assert torch.equal(ours(), plain())
            assert ours().shape == (4,)


def test_the_photographs_are_all_others_and_need_no_decoding() -> None:
    folder = make_photographs(6, 2)
    contents = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    assert len(set(contents)) == 6
    assert all(map(is_surely_whole, contents))


@pytest.mark.slow
def test_the_bench_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = reading.run_reading_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert [one.name for one in made.measurements] == [
        f"folder {name}: time" for name in ("no workers", "2 workers", "threads")
    ]
    assert all(one.ok is None and one.growth is not None for one in made.measurements)
