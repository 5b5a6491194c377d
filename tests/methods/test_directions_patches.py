"""Patches on which a direction is strongest: their places in the image, and places elsewhere."""

from __future__ import annotations

import pytest
import torch

from absence_plugins.methods.directions.patches import arrange_tokens, find_patches


def test_corners_by_hand() -> None:
    values = torch.full((3, 4, 5), -1.0)
    values[0, 3, 4], values[2, 1, 2] = 1.0, 5.0
    found = find_patches(values, (40, 50), most=5)
    assert found.images.tolist() == [2, 0], "the strongest first; the second image never fires"
    assert found.side == (30, 30)
    assert found.corners.tolist() == [[0, 10], [10, 20]], "inside the image"
    pictures = torch.arange(3 * 40 * 50.0).reshape(3, 1, 40, 50)
    cut = found.cut(pictures)
    assert torch.equal(cut[0], pictures[2, :, 0:30, 10:40])
    assert torch.equal(found.cut(pictures[found.images]), cut), "of all images, or of their own"
    made = found.paint_over(pictures[found.images], -1.0)
    assert bool((made[0, :, 0:30, 10:40] == -1).all())
    assert int((made == -1).sum()) == 2 * 900
    one = find_patches(torch.full((2, 4, 4), -2.0), (8, 8), most=3)
    assert len(one.images) == 1


def test_elsewhere_the_detector_is_silent() -> None:
    values = torch.full((200, 8, 8), -1.0)
    values[:, :4] = 1.0
    found = find_patches(values, (80, 80), most=200)
    assert found.elsewhere is not None
    assert {y for y, _ in found.elsewhere.tolist()} == {40, 50}, "rows 5 to 7: no firing position inside"
    assert len({x for _, x in found.elsewhere.tolist()}) > 3
    again = find_patches(values, (80, 80), most=200).elsewhere
    assert again is not None
    assert torch.equal(again, found.elsewhere), "the same seed"
    crowded = torch.ones(1, 8, 8)
    crowded[0, 7, 7] = -1.0  # no patch without a firing position: the corner has the fewest
    few = find_patches(crowded, (80, 80), most=1).elsewhere
    assert few is not None
    assert few.tolist() == [[50, 50]]
    whole = find_patches(torch.ones(1, 3, 3), (60, 60), most=1)
    assert whole.elsewhere is None
    with pytest.raises(ValueError, match="whole image"):
        whole.paint_over(torch.ones(1, 1, 60, 60), 0.0, elsewhere=True)


def test_tokens_lie_where_their_patches_do() -> None:
    grid = torch.arange(12.0).reshape(1, 3, 4)
    tokens = torch.cat([torch.full((1, 1, 2), 99.0), grid.reshape(1, 1, 12)], 2)
    assert torch.equal(arrange_tokens(tokens, (30, 40), prefix=2), grid)
    assert torch.equal(arrange_tokens(grid, (30, 40), prefix=0), grid)
    assert arrange_tokens(torch.zeros(1, 1, 7), (30, 40)).shape == (1, 1, 7), "no grid of these proportions"
    found = find_patches(tokens, (30, 40), most=1, prefix=2)
    assert found.corners.tolist() == [[0, 10]], "the last patch, not the class token"
