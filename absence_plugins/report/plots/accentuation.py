"""An accentuation as a figure: the photograph, the changed picture, and what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.report.plots.maps import row_figure
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.placing import place_figure

if TYPE_CHECKING:
    from absence_plugins.lucent.accentuation import Accentuation

PATCHES = 3  # real images beside it


def accentuation_figure(found: Accentuation, *, ax: Any = None, patches: Any = None) -> Figure:
    """Photograph, picture and their difference in red (brighter) and blue (darker), then real patches."""
    way = "down" if found.lowered else "up"
    change = (found.picture - found.photograph).sum(0, keepdim=True)
    panels = [
        Panel("image", found.photograph, f"photograph: {found.before:.3g}"),
        Panel("image", found.picture, f"driven {way}: {found.after:.3g}", _among(found)),
        Panel(
            "signed",
            change,
            "what changed",
            f"{found.distance:.3f} root mean square",
            positive="brighter",
            negative="darker",
        ),
    ]
    if patches is not None:
        panels += [Panel("image", patch, f"real image {number + 1}") for number, patch in enumerate(_checked(patches))]
    return place_figure(row_figure(panels, title=found.description), ax)


def _among(found: Accentuation) -> str:
    if found.data is None:
        return ""
    low, high = found.data
    where = (
        "below all" if found.after < low else "above all" if found.after > high else f"above {found.below:.0%} of the"
    )
    return f"{where} real images ({low:.3g} to {high:.3g})"


def _checked(patches: Any) -> Tensor:
    if not isinstance(patches, Tensor) or patches.dim() != 4:
        raise ValueError("patches must be real images [N, C, H, W] in [0, 1]")
    return torch.as_tensor(patches[:PATCHES]).detach().cpu()
