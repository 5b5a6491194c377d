"""The published losses of a finished solution, which the default recipe does not train: how far it keeps them."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.methods.directions import losses
from absence_plugins.methods.directions.recipe import Head, Options
from absence_plugins.methods.directions.whitening import Whitening

TAU = 0.5  # of the inactive classifier


@torch.no_grad()
def measure_losses(
    images: Tensor,
    whitening: Whitening,
    decoding: tuple[Tensor, Tensor],
    signals: Tensor,
    head: Head | None,
    options: Options,
) -> dict[str, float]:
    """By name, without weights: images [N, H, W, D]; decoding w [R, I] with thresholds [I], the slope in both.

    ``signals`` [R, I]. "alignment" is minus the entropy in bits of the head's outputs when every position lies on all
    detectors' hyperplanes, of ``head_batch`` images; without a head, or of one logit, there is none.
    """
    w, threshold = decoding
    logits = whitening(images).flatten(0, -2) @ w - threshold
    log_y, log_q = losses.log_shares(logits, virtual=options.background == "virtual")
    found = {
        "sparsity": losses.sparsity(log_q),
        "max_activation": losses.max_activation(log_y, log_q),
        "inactive": losses.inactive_classifier(logits.sigmoid(), TAU),
        "orthogonality": losses.filter_signal_orthogonality(w, signals),
    }
    if head is not None:
        some = images[: options.head_batch]
        here = whitening(some).flatten(0, -2) @ w - threshold
        shift = losses.region_shift(here, w) @ whitening.backward.to(here)
        moved = some - sum(options.step_range) / 2 * shift.reshape(some.shape).to(some)
        outputs = head(moved).float()
        if outputs.shape[1] > 1:
            found["alignment"] = losses.uncertainty(outputs)
    return {name: float(value) for name, value in found.items()}
