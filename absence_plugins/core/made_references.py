"""References made from the image itself, where there are no other images to compare it with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.checks import check_choice
from absence_plugins.core.filling import FILLINGS, Filling, fill
from absence_plugins.core.references import Images, ReferenceSet

REGIONS = 7  # regions along the longer side that are inpainted one by one
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # regions filled at once are apart: every other one along both axes


def make_reference(x: Tensor, kind: Filling = "blurred") -> Tensor:
    """Images with their content taken out: what is left is what the surroundings, a blur or the mean color tell.

    "grey" and "blurred" fill the whole image (:func:`~absence_plugins.core.filling.fill`); "inpainted" fills it region
    by region, each from the surroundings it has in x: squares of a seventh of the longer side.

    x: [..., C, H, W] of floating dtype, normalized or not; returns the same shape.

    Raises:
        TypeError, ValueError: as :func:`~absence_plugins.core.filling.fill`.

    >>> make_reference(torch.tensor([[[0.0, 2.0]]]), "grey")
    tensor([[[1., 1.]]])
    """
    height, width = x.shape[-2:] if x.dim() > 1 else (1, 1)
    if kind != "inpainted":
        return fill(x, torch.ones(height, width, dtype=torch.bool), kind)
    side = -(-max(height, width) // REGIONS)
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    result = x.detach().clone()
    for phase in PHASES:
        where = (rows % 2 == phase[0])[:, None] & (columns % 2 == phase[1])
        if bool(where.any()):
            result = torch.where(where.to(x.device), fill(x.detach(), where), result)
    return result


class MadeReferences(ReferenceSet):
    """References made from each image itself, for where there are no other images: itself with its content taken out.

    Takes the place of a :class:`~absence_plugins.ReferenceSet` in the adapters and in ``absence_scores``. Nothing can
    be missing compared with such an image, so it serves as a blank does: R < 0, *content of x that holds the output
    down*, is the evidence; the target against it has no absence part. Other than black it brings no content of its own.

    Args:
        kind: how the content is taken out, as in :func:`make_reference`.
        empty: value of a blank pixel, as of a ``ReferenceSet``; not used for the made images.

    Raises:
        ValueError: an unknown kind.

    >>> MadeReferences("grey").nearest(torch.tensor([[[[0.0, 2.0]]]]))[0, 0]
    tensor([[[1., 1.]]])
    """

    is_made = True

    def __init__(self, kind: Filling = "blurred", *, empty: Any = 0.0) -> None:
        check_choice("kind", kind, FILLINGS)
        self.filling, self.kind = kind, None
        self.is_tuple, self.images, self.labels = False, (), None
        self.k, self.seed, self.contrast, self.nearest_in = 1, 0, None, None
        self.empty = (torch.as_tensor(empty),)

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"MadeReferences({self.filling!r})"

    def nearest(self, x: Images, target: Any = None, *, label: Any = None) -> Images:
        """The images themselves without their content: [B, C, H, W] -> [B, 1, C, H, W]; classes play no role."""
        if isinstance(x, tuple):
            return tuple(make_reference(part, self.filling)[:, None] for part in x)
        return make_reference(x, self.filling)[:, None]

    def random(self, x: Images, target: Any = None, *, label: Any = None) -> Images:
        """As :meth:`nearest`: there is one for every image."""
        return self.nearest(x, target, label=label)

    def nearest_indices(self, x: Images, target: Any = None, *, label: Any = None) -> Tensor:
        """Made references have no indices: raises TypeError."""
        raise TypeError("made references are no members of a set, so they have no indices; use nearest(x)")
