"""The two sides of a unit: which pictures, in which order, with which values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from absence_plugins.report.plots.sides import Side, unit_figure


def texts(figure: Any) -> str:
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_four_panels_in_order() -> None:
    up, down = Side(torch.ones(2, 1, 8, 8), [3.25, 1.0]), Side(np.zeros((1, 8, 8, 1), np.float32), [-4.5])
    real = Side(torch.rand(6, 1, 5, 5), [1.5, 1.25, 1.0, 0.5, 0.25, 0.0])
    figure = unit_figure(up, down, highest=real, lowest=real, unit="channel 5", title="Two sides")
    assert len(figure.axes) == 4
    shown = texts(figure)
    order = ["Drives channel 5 up", "Real, highest", "Drives channel 5 down", "Real, lowest"]
    assert [shown.index(title) for title in order] == sorted(shown.index(title) for title in order)
    for value in ("rendered: 3.25", "rendered: -4.5", "real: 1.5, 1.25, 1, 0.5", "Two sides"):
        assert value in shown
    tiles = figure.axes[1].images[0].get_array()
    assert tiles.shape[:2] == (11, 11)  # two by two of five pixels, with a white one between them
    assert float(np.asarray(tiles)[5:6].min()) == 1.0


def test_without_real_images() -> None:
    assert len(unit_figure(Side(torch.ones(3, 8, 8), [1.0]), Side(torch.ones(1, 3, 8, 8), [0.0])).axes) == 2


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (Side(torch.ones(1, 2, 8, 8), [1.0]), "1 or 3 channels"),
        (Side(torch.ones(8, 8), [1.0]), "1 or 3 channels"),
        (Side(torch.ones(0, 1, 8, 8), []), "1 or 3 channels"),
        (Side(torch.ones(2, 1, 8, 8), [1.0]), "1 values for 2 images"),
    ],
)
def test_bad_sides(side: Side, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unit_figure(side, Side(torch.ones(1, 1, 8, 8), [1.0]))
