"""Whether references can show an absence, by what the network itself says of them."""

from __future__ import annotations

import warnings
from typing import Literal

from torch import Tensor

from absence_plugins.core import AbsenceWarning


def warn_unsuitable(view: Literal["target", "nontarget"], output: Tensor, values: Tensor, level: int) -> None:
    """Say so where references cannot show an absence: u(r) must be below u(x) for a target, above for a non-target.

    output: u(x) [B]; values: u(r) [B, k]; ``level``: frames up to the user's call.
    """
    higher = view == "nontarget"
    wrong = (values <= output[:, None]) if higher else (values >= output[:, None])
    if bool(wrong.any()):
        warnings.warn(
            f"samples {wrong.any(1).nonzero().flatten()[:8].tolist()} have references on which the explained output "
            f"is not {'higher' if higher else 'lower'} than on the sample itself, so the sign of their map is not "
            "about an absence; choose another contrast class, or more references",
            AbsenceWarning,
            stacklevel=level,
        )


def warn_alike(target: Tensor, outputs: Tensor, level: int) -> None:
    """Say so where the network itself gives a labeled reference the class that it was not to have.

    target: [B]; outputs: of one reference per sample [B, K]; ``level``: frames up to the user's call.
    """
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        return
    alike = outputs.argmax(1).cpu() == target.cpu()
    if bool(alike.any()):
        warnings.warn(
            f"samples {alike.nonzero().flatten()[:8].tolist()} have references that the model itself predicts to be of the "
            "explained class, whatever their label says, so little of it is missing there; are the labels the model's "
            "class numbers? Leave such references out, or name another contrast class",
            AbsenceWarning,
            stacklevel=level,
        )
