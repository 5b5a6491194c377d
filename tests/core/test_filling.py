"""Filled regions on images whose right filling is known on paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from absence_plugins.core.filling import FILLINGS, Filling, blur, fill

HOLE = torch.zeros(12, 10, dtype=torch.bool)
HOLE[3:8, 2:7] = True
HOLE[8, 5] = True
RAMP = (
    0.3 * torch.arange(12.0).double()[:, None]
    - 0.7 * torch.arange(10.0).double()
    + torch.tensor([0.0, 5.0, -2.0])[:, None, None]
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", FILLINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_constant_stays_that_constant_and_nothing_outside_changes(kind: Filling, dtype: torch.dtype) -> None:
    constant = torch.tensor([0.3, -1.7, 2.1]).to(dtype)[:, None, None].expand(3, 12, 10)
    assert torch.equal(fill(constant, HOLE, kind), constant)
    x = noise(2, 3, 12, 10).to(dtype)
    before = x.clone()
    filled = fill(x, HOLE, kind)
    assert filled.dtype == dtype
    assert torch.equal(x, before)
    assert torch.equal(filled[..., ~HOLE], x[..., ~HOLE])
    assert not torch.equal(filled[..., HOLE], x[..., HOLE])
    assert bool(filled.isfinite().all())


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_inpainting_continues_a_linear_ramp_whatever_stood_in_the_hole(dtype: torch.dtype, error: float) -> None:
    x = RAMP.to(dtype)
    for content in (100.0, math.nan):
        filled = fill(x.masked_fill(HOLE, content), HOLE)
        assert float((filled - x).abs().max()) < error


def test_inpainting_is_the_dense_solution_of_the_harmonic_equations_at_edges_and_corners_too() -> None:
    x, where = noise(9, 7).double(), torch.rand(9, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    where[0, :3] = where[-1, -1] = True
    where[4, 4] = False
    equations, right = torch.eye(63, dtype=torch.float64), torch.where(where, 0.0, x).flatten()
    for row, column in where.nonzero().tolist():
        near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        near = [(r, c) for r, c in near if 0 <= r < 9 and 0 <= c < 7]
        for r, c in near:
            equations[row * 7 + column, r * 7 + c] = -1 / len(near)
    expected = torch.linalg.solve(equations, right).reshape(9, 7)
    torch.testing.assert_close(fill(x[None], where)[0], expected, rtol=0, atol=1e-8)


def test_a_batch_with_other_regions_is_filled_as_its_images_one_by_one() -> None:
    x, where = noise(4, 3, 12, 10).double(), torch.zeros(4, 1, 12, 10, dtype=torch.bool)
    where[0, 0, :3, :3] = where[1, 0, 4:11, 9] = where[2] = True  # and nothing of the last
    where[2, 0, 5, 5] = False
    for kind in FILLINGS:
        filled = fill(x, where, kind)  # type: ignore[arg-type]
        for row in range(4):
            torch.testing.assert_close(filled[row], fill(x[row], where[row], kind), rtol=0, atol=1e-8)  # type: ignore[arg-type]
        assert torch.equal(filled[3], x[3])
    single = fill(x[2], where[2])
    torch.testing.assert_close(single, x[2, :, 5, 5][:, None, None].expand(3, 12, 10), rtol=0, atol=1e-8)


def test_grey_is_the_mean_of_every_channel_or_the_color_asked_for() -> None:
    x = noise(3, 12, 10).double()
    torch.testing.assert_close(fill(x, HOLE, "grey")[:, HOLE][:, 0], x.mean((1, 2)))
    color = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    assert torch.equal(fill(x, HOLE, "grey", color=color)[:, 4, 4], color.double().flatten())
    assert float(fill(x, HOLE, "grey", color=-0.5)[1, 4, 4]) == -0.5


def test_blur_is_the_normalized_gaussian_sum_and_commutes_with_the_scaling_of_inputs() -> None:
    x = noise(1, 12, 10).double()
    deviation = 12 / 16
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    near = ((rows - 3).abs() <= 2) & ((columns - 9).abs() <= 2)  # three standard deviations
    weights = torch.exp(-((rows - 3) ** 2 + (columns - 9) ** 2).double() / (2 * deviation**2)) * near
    assert float(blur(x)[0, 3, 9]) == pytest.approx(float((weights * x[0]).sum() / weights.sum()), abs=1e-12)
    mean, std = torch.tensor([0.485]).double(), torch.tensor([0.229]).double()
    for kind in FILLINGS:
        scaled = fill((x - mean) / std, HOLE, kind)  # type: ignore[arg-type]
        torch.testing.assert_close(scaled, (fill(x, HOLE, kind) - mean) / std, rtol=0, atol=1e-8)  # type: ignore[arg-type]


def test_the_same_bits_twice_and_gradients_only_outside() -> None:
    x = noise(3, 12, 10).requires_grad_()
    assert torch.equal(fill(x, HOLE), fill(x, HOLE))
    fill(x, HOLE).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, (~HOLE).float().expand(3, 12, 10))


@pytest.mark.parametrize(
    ("x", "where", "kind", "more", "error", "words"),
    [
        (RAMP, HOLE, "black", {}, ValueError, "'black' must be one of grey, blurred, inpainted"),
        (RAMP, torch.ones(12, 10, dtype=torch.bool), "inpainted", {}, ValueError, "nothing of the image is left"),
        (RAMP, HOLE.int(), "grey", {}, TypeError, "must be boolean"),
        (RAMP, HOLE[:4], "grey", {}, ValueError, "does not broadcast"),
        (RAMP.long(), HOLE, "grey", {}, TypeError, "floating dtype"),
        (RAMP[0], HOLE, "grey", {}, TypeError, r"\[\.\.\., C, H, W\]"),
        (RAMP, HOLE, "blurred", {"color": 0.0}, ValueError, "color goes with kind 'grey'"),
    ],
)
def test_what_cannot_be_filled_is_rejected_with_the_remedy(
    x: Tensor, where: Tensor, kind: Filling, more: dict[str, float], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fill(x, where, kind, **more)
