"""What is made faster in the patch search gives the bits that the plain way of it does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.methods.patches.rescoring import may_miss
from absence_plugins.methods.patches.scoring import Scorer
from absence_plugins.methods.patches.windows import (
    NOWHERE,
    RunningExtremes,
    corners,
    find_best,
    keys_of,
    ranked,
    split_windows,
    windows_of,
)

QUIET: dict[str, Any] = {"progress": False}


def sorted_whole(scores: Tensor, keys: Tensor, values: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """All there is, sorted twice: the rule by which the best are chosen."""
    found = ranked(torch.cat([scores, values], 1), torch.cat([keys, others], 1))
    return found[0][:, : scores.shape[1]], found[1][:, : scores.shape[1]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 5), st.booleans(), st.integers(0, 10_000))
def test_the_best_so_far_are_those_of_two_sorts(k: int, n: int, units: int, is_even: bool, seed: int) -> None:
    """Ties, zeros of both signs, infinities and windows that come again."""
    generator = torch.Generator().manual_seed(seed)
    cpu, device = RunningExtremes(units, k), RunningExtremes(units, k)
    plain = (cpu.scores.clone(), cpu.keys.clone())
    values = keys = torch.zeros(0)
    for step in range(5):
        if step != 3:  # where the windows of before come again
            values = torch.randn(units, n, generator=generator)
            values = values.round() if is_even else values
            values = torch.where(torch.rand(units, n, generator=generator) < 0.2, -0.0, values)
            keys = torch.arange(n) + n * ((7 * step) % 5)  # not in rising order from step to step
        cpu.update(values, keys)
        device.scores, device.keys = device._merge(device.scores, device.keys, values, keys.expand(units, -1))
        plain = sorted_whole(*plain, values, keys.expand(units, -1))
        for found in (cpu, device):
            assert torch.equal(found.scores, plain[0])
            known = plain[0] > -torch.inf
            assert torch.equal(found.keys[known], plain[1][known])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([-torch.inf, -1.5, -0.0, 0.0, 1e-40, 2.0, 3.4e38]), min_size=1, max_size=20), st.data())
def test_one_selection_is_a_stable_sort(row: list[float], data: Any) -> None:
    values = torch.tensor([row])
    k = data.draw(st.integers(1, len(row)))
    assert find_best(values, k).tolist() == values.sort(dim=1, descending=True, stable=True).indices[:, :k].tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 7))
def test_windows_are_split_as_one_tensor_would_be(counts: list[int], batch_size: int) -> None:
    every = [(image, window) for image, count in enumerate(counts) for window in range(count)]
    expected = [every[at : at + batch_size] for at in range(0, len(every), batch_size)]
    found = [
        [(image, window) for image, first, end in batch for window in range(first, end)]
        for batch in split_windows(counts, batch_size)
    ]
    assert found == expected


def plain_scan(run: Any, images: Tensor, k: int, size: int, stride: int, mode: str, batch_size: int) -> list[Tensor]:
    """All windows of a block of images in one tensor, split into batches; all their values sorted."""
    places = corners(*images.shape[2:], size, stride)
    per_block = max(1, batch_size // len(places))
    values, keys = [], []
    for start in range(0, len(images), per_block):
        block = images[start : start + per_block]
        windows = torch.cat([windows_of(image, places, size, mode) for image in block])
        parts = (part.contiguous(memory_format=torch.channels_last) for part in torch.split(windows, batch_size))
        values.append(torch.cat([run(part) for part in parts]))
        keys += [keys_of(start + number, places) for number in range(len(block))]
    table, every = torch.cat(values).T, torch.cat(keys).expand(values[0].shape[1], -1)
    return [sign * ranked(sign * table, every)[0][:, :k] for sign in (1, -1)]


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize(
    ("mode", "batch_size", "stride"), [("crop", 128, 2), ("crop", 7, 1), ("mask", 20, 3), ("crop", 9, 4)]
)
def test_a_scan_has_the_bits_of_the_plain_way(
    mode: str, batch_size: int, stride: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, too, where results are kept while the next block runs."""
    monkeypatch.setattr(Scorer, "ahead", ahead)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 2))
    images = torch.randn(7, 3, 12, 13, generator=torch.Generator().manual_seed(1))
    found = find_extreme_patches(
        model, "2", images, k=5, size=6, stride=stride, mode=mode, batch_size=batch_size, **QUIET
    )
    with torch.inference_mode():
        expected = plain_scan(lambda x: model(x).mean((2, 3)), images, 5, 6, stride, mode, batch_size)
    assert torch.equal(found.highest.scores, expected[0])
    assert torch.equal(found.lowest.scores, expected[1])


def test_what_waits_is_kept_before_the_end_and_a_bad_block_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scorer, "ahead", 1)
    images = torch.ones(4, 1, 3, 3)
    images[2] *= 1e38
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    model[0].weight.data.fill_(1e10)
    with pytest.raises(ValueError, match="output for image 2 is NaN or infinite"):
        find_extreme_patches(model, "0", images, k=1, size=3, stride=1, batch_size=1, **QUIET)


# -- bf16 --------------------------------------------------------------------------------------------------------------


def noise(count: int = 12) -> Tensor:
    return torch.randn(count, 3, 30, 30, generator=torch.Generator().manual_seed(1))


def test_bf16_gives_the_scores_of_full_precision_and_warns_of_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 12, 3))
    options: dict[str, Any] = {"k": 4, "size": 12, "stride": 2, **QUIET}
    exact = find_extreme_patches(model, "2", noise(), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = find_extreme_patches(model, "2", noise(), precision="bf16", **options)
    for side in ("highest", "lowest"):
        assert torch.equal(getattr(fast, side).positions, getattr(exact, side).positions)
        assert torch.allclose(getattr(fast, side).scores, getattr(exact, side).scores, atol=1e-6)


def test_bf16_names_the_units_whose_best_it_may_miss() -> None:
    """Unit 0 has values that bf16 cannot tell apart; those of unit 1 lie far apart."""
    images = torch.ones(200, 1, 1, 1)
    images[:, 0, 0, 0] += torch.arange(200.0) * 1e-5
    images = torch.cat([images, torch.arange(200.0).reshape(-1, 1, 1, 1)], 1)  # bf16 has these numbers
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False))
    model[0].weight.data = torch.eye(2)[:, :, None, None]
    with pytest.warns(AbsenceWarning, match=r"of 1 of 2 units \(0\) a patch that was not scored again may belong"):
        find_extreme_patches(model, "0", images, k=3, size=1, stride=1, precision="bf16", **QUIET)
    with warnings.catch_warnings():  # so few that all are scored again
        warnings.simplefilter("error")
        few = find_extreme_patches(model, "0", images[:60], k=3, size=1, stride=1, precision="bf16", **QUIET)
    assert few.highest.positions[0, :, 0].tolist() == [59, 58, 57]
    assert few.highest.scores[0].tolist() == images[[59, 58, 57], 0, 0, 0].tolist()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(0, 6), st.integers(2, 40), st.sampled_from([0.0, 1e-3, 0.3]), st.integers(0, 999))
def test_units_that_are_not_named_miss_nothing(k: int, more: int, n: int, rounding: float, seed: int) -> None:
    """Whatever the rounding is, as long as no window that was left out is rounded further than the candidates are."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.randn(3, n, generator=generator)
    error = rounding * (2 * torch.rand(3, n, generator=generator) - 1)
    rough, exact = RunningExtremes(3, k + more + 1), RunningExtremes(3, k + more)
    rough.update(true + error, torch.arange(n))
    candidates = rough.take(k + more).keys
    is_candidate = (torch.arange(n)[None, :, None] == candidates[:, None]).any(2)
    exact.update(
        true.masked_fill(~is_candidate, -torch.inf), torch.where(is_candidate, torch.arange(n).expand(3, -1), NOWHERE)
    )
    off, seen = may_miss(rough, exact, k)
    best, places = true.topk(min(k, n), 1)
    for unit in range(3):
        if not off[unit] and bool((error[unit].abs() <= seen[unit]).all()):
            assert torch.equal(exact.scores[unit, : best.shape[1]], best[unit])
            assert torch.equal(exact.keys[unit, : best.shape[1]], places[unit])
        if rounding == 0.0 and n > k + more:
            assert not off[unit]
