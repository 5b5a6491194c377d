"""Effects of directions on outputs as one figure: red raises the output, blue holds it down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure

from absence_plugins.core.maps import symmetric_range
from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import INK, SIGNED_COLORS
from absence_plugins.report.plots.placing import cut, take_axes

if TYPE_CHECKING:
    from absence_plugins.methods.directions.influence import Influence


def influence_figure(found: Influence, ax: Any = None) -> Figure:
    """Directions (rows) x outputs (columns), a dot where the effect is significant; at most 40 outputs are named."""
    effect = found.effect.detach().cpu().double()
    directions, outputs = effect.shape
    figure, axes = take_axes(ax, (min(10.0, 3.4 + 0.32 * outputs), 2.2 + 0.24 * directions))
    norm = CenteredNorm(0, symmetric_range(effect))
    picture = axes.imshow(effect.numpy(), cmap=SIGNED_COLORS, norm=norm, aspect="auto", interpolation="nearest")
    rows, columns = torch.nonzero(found.significant.cpu(), as_tuple=True)
    axes.scatter(columns.numpy(), rows.numpy(), s=5, c=INK, marker=".")
    axes.set_yticks(range(directions), [f"direction {i}" for i in range(directions)], fontsize=6.5)
    if outputs <= 40:
        names = [cut(spell(name), 24) for name in found.outputs]
        plain = set_letters(*names, always=False)
        axes.set_xticks(range(outputs), names, rotation=40, ha="right", fontsize=6.5, **plain)
    axes.tick_params(length=0)
    bar = figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("blue: holds the output down, red: raises it", fontsize=6.5)
    bar.ax.tick_params(labelsize=6)
    axes.set_title("effect of each direction on each output; a dot: significant", fontsize=8, loc="left")
    return figure
