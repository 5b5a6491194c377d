"""A unit's extreme patches as a figure: the highest in the upper row, the lowest in the lower one."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.report.plots.lettering import set_letters, spell

_SIDE = 1.1  # inches


def patches_figure(highest: tuple[Tensor, Tensor], lowest: tuple[Tensor, Tensor], title: str) -> Figure:
    """Each side: patches [k, C, size, size] and their values [k]; pixels outside [0, 1] are scaled together."""
    both = torch.cat([highest[0], lowest[0]]).float()
    low, high = min(0.0, float(both.min())), max(1.0, float(both.max()))
    columns = len(highest[1])
    figure = Figure(figsize=(_SIDE * columns + 0.9, 2 * (_SIDE + 0.25) + 0.35), dpi=160, layout="constrained")
    figure.suptitle(spell(title), fontsize=10, **set_letters(spell(title), always=False))
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (name, (patches, values)) in enumerate((("highest", highest), ("lowest", lowest))):
        for column, axis in enumerate(axes[row]):
            pixels = ((patches[column].float() - low) / (high - low)).permute(1, 2, 0)
            axis.imshow(pixels.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"{float(values[column]):.3g}", fontsize=8)
        axes[row][0].set_ylabel(name, fontsize=9)
    return figure
