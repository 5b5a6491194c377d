"""A gallery of directions: the patches that activate each, its name, the outputs it pushes up and holds down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.report.plots.labels import pixels_of
from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import DOWN, FRAME, INK, MUTED, UP
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.placing import cut, draw_bars

MOST_PATCHES, MOST_BARS = 8, 4
_PATCH, _BARS, _ROW, _FOOT = 0.62, 2.6, 0.95, 0.45  # inches
_LETTER, _GAP = 0.062, 0.2  # inches: of a name beside the bars, and in front of it


@dataclass(frozen=True, eq=False)
class GalleryEntry:
    """One direction.

    Attributes:
        name: what it is called.
        patches: [n, C, h, w] in [0, 1], strongest first; C is 1 or 3.
        effects: pairs of an output's name and the direction's effect on it. The sign: above 0 (red) the concept
            raises the output, below 0 (blue) it holds it down: the output encodes its absence.
        caption: one short line.

    Raises:
        ValueError: patches of another shape or outside [0, 1].

    Example:
        >>> entry = GalleryEntry("stroke", torch.ones(3, 1, 8, 8), (("logit 1", 2.0), ("logit 0", -3.5)))
        >>> entry.held_down
        (('logit 0', -3.5),)
    """

    name: str
    patches: Tensor
    effects: tuple[tuple[str, float], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        shape = tuple(self.patches.shape)
        if len(shape) != 4 or shape[1] not in (1, 3) or shape[0] == 0:
            raise ValueError(
                f"patches of {self.name!r} has shape {shape}; it must be [n, C, h, w] with 1 or 3 channels"
            )
        low, high = float(self.patches.min()), float(self.patches.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(
                f"patches of {self.name!r} have values from {low:.3g} to {high:.3g}; undo the normalization"
            )

    @property
    def pushed_up(self) -> tuple[tuple[str, float], ...]:
        """Outputs that the concept raises, strongest first."""
        return tuple(sorted((one for one in self.effects if one[1] > 0), key=lambda one: -one[1]))

    @property
    def held_down(self) -> tuple[tuple[str, float], ...]:
        """Outputs that encode the concept's absence, strongest first."""
        return tuple(sorted((one for one in self.effects if one[1] < 0), key=lambda one: one[1]))


def gallery_figure(entries: Sequence[GalleryEntry], *, most: int = 3, title: str = "") -> Figure:
    """One row per direction: name, patches, and its strongest effects of both signs as bars, all on one scale.

    Args:
        entries: at least one.
        most: outputs shown per sign.
        title: over the figure.

    Sign: red bars to the right, outputs that the concept raises; blue bars to the left, outputs that it holds down.

    Raises:
        ValueError: there are no entries.

    Example:
        >>> entry = GalleryEntry("stroke", torch.ones(3, 1, 8, 8), (("logit 1", 2.0), ("logit 0", -3.5)))
        >>> len(gallery_figure([entry]).axes)  # three patches and the bars
        4
    """
    if not entries:
        raise ValueError("entries is empty; a gallery needs at least one direction")
    shown = [[*entry.held_down[:most][::-1], *entry.pushed_up[:most][::-1]] for entry in entries]
    longest = max((len(bars) for bars in shown), default=1)
    row = max(_ROW, 0.17 * longest + 0.38)
    count = max(min(len(entry.patches), MOST_PATCHES) for entry in entries)
    head = 0.35 if title else 0.05
    longest_name = max((len(cut(spell(name), 24)) for bars in shown for name, _ in bars), default=1)
    before = count * (_PATCH + 0.04) + _GAP + _LETTER * longest_name  # what lies to the left of the bars
    width, height = before + _BARS + 0.15, len(entries) * row + head + _FOOT
    figure = Figure(figsize=(width, height), dpi=160)
    if title:
        said = spell(title, "bold")
        plain = set_letters(said, weight="bold", always=False)
        figure.text(0.08 / width, 1 - 0.2 / height, said, fontsize=10.5, color=INK, va="center", weight="bold", **plain)
    limit = max((abs(value) for bars in shown for _, value in bars), default=1.0) or 1.0
    for number, (entry, bars) in enumerate(zip(entries, shown, strict=True)):
        top = height - head - number * row
        heading = spell(entry.name + (f"   {entry.caption}" if entry.caption else ""))
        plain = set_letters(heading, always=False)
        figure.text(0.08 / width, (top - 0.13) / height, heading, fontsize=8.5, color=INK, va="center", **plain)
        for place, patch in enumerate(entry.patches[:MOST_PATCHES]):
            left = 0.08 + place * (_PATCH + 0.04)
            axes = figure.add_axes((left / width, (top - 0.26 - _PATCH) / height, _PATCH / width, _PATCH / height))
            picture = patch.detach().cpu().float().clamp(0, 1).permute(1, 2, 0)
            axes.imshow(picture.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color(FRAME)
        left = 0.08 + before
        bottom = top - row + 0.08
        axes = figure.add_axes((left / width, bottom / height, (_BARS - 0.15) / width, (row - 0.34) / height))
        values = [value for _, value in bars]
        axes.barh(range(len(bars)), values, color=[UP if value > 0 else DOWN for value in values], height=0.7)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlim(-1.25 * limit, 1.25 * limit)
        axes.set_ylim(-0.6, max(len(bars), 1) - 0.4)
        names = [cut(spell(name), 24) for name, _ in bars]
        axes.set_yticks(range(len(bars)), names, fontsize=7, color=INK, **set_letters(*names, always=False))
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([])
        for place, value in enumerate(values):
            side = "left" if value > 0 else "right"
            shift = 0.03 * limit if value > 0 else -0.03 * limit
            axes.text(value + shift, place, f"{value:+.2g}", fontsize=6.5, va="center", ha=side, color=MUTED)
        for spine in axes.spines.values():
            spine.set_visible(False)
    middle = 0.08 + before + (_BARS - 0.15) / 2
    for text, color, way, side in (("holds the output down", DOWN, -0.06, "right"), ("raises it", UP, 0.06, "left")):
        figure.text((middle + way) / width, 0.2 / height, text, fontsize=7.5, color=color, ha=side, va="center")
    return figure


def gallery_panels(entry: GalleryEntry) -> list[Panel]:
    """The patches of a direction, and bars of its strongest effects of both signs, as panels of a page.

    Example:
        >>> entry = GalleryEntry("stroke", torch.ones(3, 1, 8, 8), (("logit 1", 2.0), ("logit 0", -3.5)))
        >>> [panel.title for panel in gallery_panels(entry)]
        ['Patches that activate it', 'Effects']
    """
    across = torch.nn.functional.pad(entry.patches[:MOST_PATCHES].float().clamp(0, 1), (1, 1, 1, 1), value=1.0)
    if len(across) % 2:
        across = torch.cat([across, torch.ones_like(across[:1])])
    rows = [torch.cat(list(half), -1) for half in across.chunk(2)] if len(across) > 2 else [torch.cat(list(across), -1)]
    bars = [*entry.held_down[:MOST_BARS], *entry.pushed_up[:MOST_BARS][::-1]]
    figure = Figure(figsize=(4.4, 2.3), dpi=220, facecolor="white", layout="constrained")
    draw_bars(figure.subplots(), [cut(name, 30) for name, _ in bars], [value for _, value in bars], "effect")
    return [
        Panel("image", torch.cat(rows, -2).detach().cpu(), "Patches that activate it", entry.caption),
        Panel("image", pixels_of(figure), "Effects", "Blue: outputs that it holds down. Red: outputs that it raises."),
    ]
