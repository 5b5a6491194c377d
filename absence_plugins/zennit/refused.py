"""Composites of Zennit's that cannot show absences: Zennit's own, with a warning, until absences are asked for."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn  # noqa: F401  (examples)
from zennit.composites import BetaSmooth, DeconvNet

from absence_plugins.core import AbsenceWarning

REFUSALS = {
    "DeconvNet": (
        "it passes only positive gradients down, whether units are active or not, so nothing is ever held down; "
        "use AbsenceEpsilonGamma, or AbsenceGuidedBackprop, which is two-sided here"
    ),
    "BetaSmooth": (
        "it smooths the gradient at x for derivatives of second order, and a gradient compares with no reference; use "
        "AbsenceEpsilonGamma, or AbsenceIntegratedGradients with composite=BetaSmooth()"
    ),
}


def _warn_refused(name: str) -> None:
    warnings.warn(
        f"{name} cannot show absences: {REFUSALS[name]}. Its map is Zennit's own",
        AbsenceWarning,
        stacklevel=3,
    )


class AbsenceDeconvNet(DeconvNet):
    """Zennit's DeconvNet, which cannot show absences: warns that it is Zennit's own.

    An attributor with ``reference=`` or ``nontarget=`` rejects it. Sign: only positive gradients pass a ReLU.

    >>> import torch
    >>> from zennit.attribution import Gradient
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[1.0, -2.0]])
    >>> Gradient(net, AbsenceDeconvNet())(torch.tensor([[3.0, 1.0]]), torch.ones(1, 1))[1]
    tensor([[ 1., -2.]])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _warn_refused("DeconvNet")
        super().__init__(*args, **kwargs)


class AbsenceBetaSmooth(BetaSmooth):
    """Zennit's BetaSmooth, which compares with nothing: warns that it is Zennit's own.

    An attributor with ``reference=`` or ``nontarget=`` rejects it. Sign: of the gradient of the smoothed network.

    >>> import torch
    >>> from zennit.attribution import Gradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> Gradient(net, AbsenceBetaSmooth())(torch.tensor([[3.0, 1.0]]), torch.ones(1, 1))[1]
    tensor([[ 1., -2.]])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _warn_refused("BetaSmooth")
        super().__init__(*args, **kwargs)
