"""A unit's two sides for a page: rendered with Lucent, beside the real images on which it is highest and lowest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lucent.optvis import param
from torch import Tensor, nn

from absence_plugins.core.names import read_number
from absence_plugins.lucent import AbsenceObjective, absence_contrast, render_vis, unit_values
from absence_plugins.report import Row, Side
from absence_plugins.report.plots.sides import MOST, unit_panels, what_they_show

PREFIX = "lucent:"
OUTPUTS = "labels"  # Lucent's name of the model's output
STEPS = 256
SMALL = 96  # Lucent's random shifts, scales and rotations are made for images of at least this side


@dataclass(frozen=True)
class UnitName:
    """A unit as ``--method lucent:LAYER:UNIT`` names it."""

    layer: str
    index: int

    @classmethod
    def parse(cls, text: str) -> UnitName:
        """From ``lucent:LAYER:UNIT``.

        Raises ValueError for a text of another form.

        >>> UnitName.parse("lucent:layer3.0:7")
        UnitName(layer='layer3.0', index=7)
        """
        layer, _, index = text[len(PREFIX) :].rpartition(":")
        number = read_number(index)
        if not layer or number is None or number < 0:
            raise ValueError(
                f"--method {text!r} must read lucent:LAYER:UNIT, for example lucent:layer3:7, or lucent:{OUTPUTS}:0 "
                "for a logit"
            )
        return cls(layer, number)

    @property
    def shown(self) -> str:
        """The unit's name as a page shows it."""
        return f"logit {self.index}" if self.layer == OUTPUTS else f"channel {self.index} of {self.layer}"

    def contrast(self) -> AbsenceObjective:
        """Up in the first image, down in the second."""
        return absence_contrast(self.layer, self.index, kind="class" if self.layer == OUTPUTS else "channel")


def unit_row(
    model: nn.Module,
    unit: UnitName,
    pictures: Tensor,
    normalize: Callable[[Tensor], Tensor],
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = True,
) -> Row:
    """The page's row for a unit: rendered up | highest real | rendered down | lowest real.

    pictures: [N, C, H, W] in [0, 1]; normalize: from pictures to the model's inputs. The optimization starts from the
    same noise on both sides; pictures below 96 pixels a side are optimized without Lucent's random shifts and
    rotations.
    """
    objective, (channels, height, width) = unit.contrast(), pictures.shape[1:]
    with torch.no_grad():
        values = unit_values(model, objective, normalize(pictures))
    options: dict[str, Any] = {} if min(height, width) >= SMALL else {"transforms": []}
    colors = {"channels": channels} if channels != 3 else {}
    rendered = render_vis(
        model,
        objective,
        lambda: param.image(width, height, batch=2, **colors),
        thresholds=(steps,),
        preprocess=normalize,
        fixed_image_size=(height, width),
        progress=progress,
        seed=seed,
        data_range=values,
        **options,
    )
    up, down = rendered.reached[0].values[0][0], rendered.reached[1].values[0][0]
    order = values.argsort(stable=True)
    shown = min(MOST, max(1, len(values) // 2))
    lowest, highest = order[:shown], order.flip(0)[:shown]
    panels = unit_panels(
        Side(rendered[0][:1], [up]),
        Side(rendered[0][1:], [down]),
        highest=Side(pictures[highest], values[highest].tolist()),
        lowest=Side(pictures[lowest], values[lowest].tolist()),
        unit=unit.shown,
    )
    low, high = float(values.min()), float(values.max())
    return Row(
        f"{unit.shown[0].upper()}{unit.shown[1:]}, from both sides",
        _sentence(unit, up, down, low, high, len(values)),
        tuple(panels),
        (
            ("Rendered, up / down", f"{up:.3g} / {down:.3g}"),
            ("Real, highest / lowest", f"{high:.3g} / {low:.3g}"),
            ("Real images", f"{len(values):,}"),
            ("Optimization steps", str(steps)),
        ),
    )


def _sentence(unit: UnitName, up: float, down: float, low: float, high: float, count: int) -> str:
    images = f"the {count:,} real images" if count > 1 else "the one real image"
    spread = f"it lies between {low:.3g} and {high:.3g}" if count > 1 else f"it is {low:.3g}"
    outside = ["above" * (up > high), "below" * (down < low)]
    beyond = " and ".join(filter(None, outside))
    return (
        f"Optimized from the same noise, one picture raises {unit.shown} to {up:.3g}, the other lowers it to "
        f"{down:.3g}; on {images} {spread}. "
        + what_they_show(up, down, low, high, "raise --steps")
        + (
            f" {'The two lie' if ' and ' in beyond else 'One lies'} {beyond} everything in these images: read shapes, "
            "not brightness or size."
            if beyond
            else ""
        )
    )
