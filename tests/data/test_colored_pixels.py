"""Colored pixels: the images, and that training recovers the absence of green from every seed."""

from __future__ import annotations

import pytest
import torch

from absence_plugins.data.colored_pixels import colored_pixel_net, colored_pixels


def test_images_hold_eight_to_twelve_colored_pixels_and_class_0_one_green() -> None:
    before = torch.get_rng_state()
    images, labels = colored_pixels(200, seed=3)
    colored = images.sum(1) > 0
    counts = colored.flatten(1).sum(1)
    assert (int(counts.min()), int(counts.max())) == (8, 12)
    green = (images == torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]).all(1).flatten(1).sum(1)
    assert torch.equal(green, 1 - labels)
    assert torch.equal(images[:, 1].flatten(1).sum(1), (1 - labels).float())  # nothing else has green in it
    assert torch.equal(colored_pixels(200, seed=3)[0], images)
    assert not torch.equal(colored_pixels(200, seed=4)[0], images)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) for seed in range(5)])
def test_output_1_is_the_absence_of_green_from_every_seed(seed: int) -> None:
    found = colored_pixel_net(seed)
    assert found.accuracy >= 0.99
    pure = torch.eye(3)[:, :, None, None]  # one pixel of red, green, blue
    red, green, blue = found.model[:3](pure)[:, 1, 0, 0].tolist()
    assert green < 0 < min(red, blue)
    assert abs(green) > 3 * max(red, blue)
