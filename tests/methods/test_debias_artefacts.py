"""Artefacts: the mask is where the image changed, classes get theirs, the same seed gives the same bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.methods.debias import Artefact, dilate, ellipse, patch, tag

PAINTS: dict[str, Any] = {"ellipse": ellipse, "patch": patch, "tag": tag}


def images(n: int = 6, channels: int = 3, height: int = 24, width: int = 32) -> Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(9)) * 0.98 + 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PAINTS)
def test_the_mask_is_exactly_where_the_image_changed(name: str, channels: int) -> None:
    plain = images(20, channels)
    kept = plain.clone()
    painted, mask = PAINTS[name](plain, 4)
    assert mask.dtype == torch.bool
    assert mask.shape == (20, 1, 24, 32)
    assert torch.equal((painted != plain).any(1, keepdim=True), mask)
    assert torch.equal(plain, kept)
    assert bool(mask.flatten(1).any(1).all())
    assert 0 <= float(painted.min()) <= float(painted.max()) <= 1
    assert painted.dtype == plain.dtype


@pytest.mark.parametrize("name", ["ellipse", "patch"])
def test_one_color_per_image_and_another_one_in_the_next(name: str) -> None:
    painted, mask = PAINTS[name](images(8), 0)
    colors = [image[:, inside[0]] for image, inside in zip(painted, mask, strict=True)]
    assert all(torch.equal(color, color[:, :1].expand_as(color)) for color in colors)
    assert len({tuple(color[:, 0].tolist()) for color in colors}) == 8


def test_ellipses_enter_from_every_side_and_have_the_published_size() -> None:
    _, mask = ellipse(images(400, 1, 224, 224), 1)
    touched = torch.stack(
        [mask[:, 0, 0].any(1), mask[:, 0, -1].any(1), mask[:, 0, :, 0].any(1), mask[:, 0, :, -1].any(1)]
    )
    assert bool((touched.sum(0) >= 1).all())
    assert bool((touched.float().mean(1) > 0.2).all())
    # half an ellipse at most, where its center is far from the corners: pi/4 * across * along / 2
    area = mask.flatten(1).sum(1)
    assert float(area.max()) < 3.1416 / 8 * 60 * 224 * 1.35  # tilted, a little more than half lies inside
    assert 3.1416 / 8 * 50 * 120 < float(area.median()) < 3.1416 / 8 * 60 * 224
    straight = ellipse(images(50, 1, 224, 224), 1, tilt=0.0)[1][:, 0]
    inwards = torch.maximum(straight.any(1).sum(1), straight.any(2).sum(1))
    assert 60 <= int(inwards.min()) <= int(inwards.max()) <= 113


def test_a_tag_is_the_same_everywhere() -> None:
    painted, mask = tag(images(3, 1, 16, 16), size=0.5, corner="top left")
    board = painted[0, 0, :8, :8]
    assert torch.equal(painted[:, 0, :8, :8], board.expand(3, 8, 8))
    assert board[0].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert board[:, 2].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert int(mask.sum()) == 3 * 64


@pytest.mark.parametrize("name", PAINTS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    artefact, labels = Artefact(PAINTS[name], (0.5, 0.5)), torch.arange(40) % 2
    random = torch.get_rng_state()
    first, again, other = (artefact(images(40), labels, seed=seed) for seed in (7, 7, 8))
    by_generator = artefact(images(40), labels, seed=torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, again, by_generator, strict=True))
    assert not torch.equal(first[1], other[1])


def test_classes_get_the_artefact_with_their_probability() -> None:
    n = 6000
    labels = torch.arange(n) % 3
    plain = images(n, 1, 8, 8)
    painted, masks = Artefact(partial(patch, size=0.5), (0.0, 0.3, 1.0))(plain, labels, seed=0)
    carries = masks.flatten(1).any(1)
    assert torch.equal((painted != plain).any(1, keepdim=True), masks)
    assert not carries[labels == 0].any()
    assert carries[labels == 2].all()
    assert float(carries[labels == 1].float().mean()) == pytest.approx(0.3, abs=0.04)


def test_what_is_painted_does_not_hang_on_the_labels() -> None:
    first = Artefact(patch, (1.0, 0.0))(images(6), torch.tensor([0, 0, 0, 1, 1, 1]), seed=2)
    second = Artefact(patch, (1.0, 0.0))(images(6), torch.tensor([0, 1, 0, 1, 1, 1]), seed=2)
    assert torch.equal(first[0][0], second[0][0])
    assert torch.equal(first[0][2], second[0][2])


@pytest.mark.parametrize("pixels", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64])
def test_dilation_is_the_largest_in_a_square(dtype: torch.dtype, pixels: int) -> None:
    mask = (images(2, 1, 9, 12) > 0.9).to(dtype)
    grown = dilate(mask, pixels)
    padded = F.pad(mask.double(), [pixels] * 4)
    size = 2 * pixels + 1
    slow = torch.stack([padded[..., i : i + 9, j : j + 12] for i in range(size) for j in range(size)]).amax(0)
    assert grown.dtype == dtype
    assert torch.equal(grown.double(), slow)
    assert torch.equal(dilate(mask[:, 0], pixels), grown[:, 0])


def test_bad_input_says_what_would_be_right() -> None:
    plain, labels = images(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"class 1 must lie in \[0, 1\], got 1.5"):
        Artefact(tag, (0.0, 1.5))
    with pytest.raises(ValueError, match="give one per class"):
        Artefact(tag, (1.0,))(plain, labels, seed=0)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        Artefact(tag, (1.0, 0.0))(plain, torch.zeros(3).long(), seed=0)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], got \(3, 24, 32\)"):
        patch(plain[0], 0)
    with pytest.raises(TypeError, match="floating-point"):
        ellipse(plain.long(), 0)
    with pytest.raises(ValueError, match="size=2"):
        patch(plain, 0, size=2)
    with pytest.raises(ValueError, match="corner='middle'"):
        tag(plain, corner="middle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="across"):
        ellipse(plain, 0, across=(0.5, 0.2))
    with pytest.raises(ValueError, match="tilt=-1"):
        ellipse(plain, 0, tilt=-1)
    with pytest.raises(ValueError, match="pixels=-1"):
        dilate(torch.zeros(1, 4, 4), -1)
    with pytest.raises(TypeError, match="integer"):
        dilate(torch.zeros(1, 4, 4), 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got \\(4, 4\\)"):
        dilate(torch.zeros(4, 4), 1)
