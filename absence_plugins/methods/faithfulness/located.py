"""Where evidence lies, and with which sign, when the true region is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Located:
    """Of every sample [N].

    Attributes:
        share: part of the evidence that lies in the region; 0 where there is none.
        is_right: whether the signed map, summed over the region, is above 0.
        hit: whether the strongest evidence lies in the region (pointing game; Zhang et al., 2018), 0 or 1; of several
            equally strong pixels the share that does, which is what a random choice among them expects.
    """

    share: Tensor
    is_right: Tensor
    hit: Tensor


def located(evidence: Tensor, signed: Tensor, regions: Tensor) -> Located:
    """Evidence counts where it is above 0; the sign is right where ``signed`` summed over the region is above 0.

    evidence, signed: [N, 1, H, W]; regions: [N, 1, H, W] bool.

    >>> found = located(torch.tensor([[[[3.0, -1.0, 1.0]]]]), torch.tensor([[[[3.0, -1.0, 1.0]]]]), torch.tensor([[[[True, True, False]]]]))
    >>> found.share.item(), found.is_right.item(), found.hit.item()
    (0.75, True, 1.0)
    """
    evidence = evidence.clamp(min=0)
    inside, total = (part.flatten(1).sum(1) for part in (evidence * regions, evidence))
    share = torch.where(total > 0, inside / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)
    top = evidence.flatten(1).amax(1)
    strongest = (evidence == top.reshape(-1, 1, 1, 1)) & (evidence > 0)
    hit = (strongest & regions).flatten(1).sum(1) / strongest.flatten(1).sum(1).clamp(min=1)
    return Located(share, (signed * regions).flatten(1).sum(1) > 0, hit)
