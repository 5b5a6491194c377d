"""Captum's DeepLIFT and LRP classes on the relevance of differences. All options are those of ``AbsenceMethod``.

The neutral object is Captum's class. In every other setting the map is the exact relevance of the difference between x
and its baseline, on any network: functional calls, modules that run twice, attention and recurrent layers included. It
sums to u(x) - u(r), or the call is rejected with the operation's name. Sign: R > 0 raises the explained output, R < 0
suppresses it; against references, R > 0 where they have content and x has none says: its absence raises the output.
"""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import (
    LRP,
    DeepLift,
    DeepLiftShap,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerLRP,
    NeuronDeepLift,
    NeuronDeepLiftShap,
)
from torch import Tensor, nn  # noqa: F401  (examples)

from absence_plugins.captum.differences import captum_rules, input_maps, layer_maps, neuron_maps
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.plan import Plan
from absence_plugins.core.references import ReferenceSet  # noqa: F401  (examples)


class AbsenceDeepLift(AbsenceMethod, DeepLift, complete=True, exact=True, passing="pairs"):
    """DeepLIFT (Rescale) of the non-target or against references, complete on any network.

    R = (x - r) * m, with multipliers m pulled back through secants (difference of outputs / difference of inputs);
    sum R = u(x) - u(r).

    Source: Shrikumar et al., ICML 2017, section 3.5.1; beyond its rules docs/relevance.md.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceDeepLift(net).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[ 1., -2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return input_maps(self, host, call, plan, paired=paired)


class AbsenceDeepLiftShap(AbsenceMethod, DeepLiftShap, complete=True, exact=True, distribution=True, passing="pairs"):
    """DeepLIFT averaged over references.

    R = mean over references r of DeepLIFT(x; r).

    Source: Lundberg and Lee, NeurIPS 2017, section 4.2.

    A reference set gives every sample its own nearest references; a single one is enough.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceDeepLiftShap(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0).round(decimals=3)
    tensor([[0., 2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return input_maps(self, host, call, plan, paired=paired)

    def _delta(self, deltas: list[Tensor]) -> Tensor:
        return torch.stack(deltas, 1).flatten()  # as Captum: the references of sample 0, of sample 1, ...


class AbsenceLayerDeepLift(AbsenceMethod, LayerDeepLift, complete=True):
    """DeepLIFT (Rescale) at a layer.

    R = (h(x) - h(r)) * m; sum R = u(x) - u(r) where every path to the output runs through the layer.

    Source: Shrikumar et al., ICML 2017, section 3.5.1; beyond its rules docs/relevance.md.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceLayerDeepLift(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[-1.,  0.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return layer_maps(self, host, call, plan, paired=paired)


class AbsenceLayerDeepLiftShap(AbsenceMethod, LayerDeepLiftShap, complete=True, distribution=True):
    """DeepLIFT at a layer, averaged over references.

    R = mean over references r of the layer's DeepLIFT(x; r).

    Source: Lundberg and Lee, NeurIPS 2017, section 4.2.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceLayerDeepLiftShap(net, net[0], reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0).abs()
    tensor([[2., 0.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return layer_maps(self, host, call, plan, paired=paired)

    def _delta(self, deltas: list[Tensor]) -> Tensor:
        return torch.stack(deltas, 1).flatten()  # as Captum: the references of sample 0, of sample 1, ...


class AbsenceNeuronDeepLift(AbsenceMethod, NeuronDeepLift, complete=True, exact=True):
    """DeepLIFT (Rescale) of a neuron's pre-activation.

    R = (x - r) * m; sum R = n(x) - n(r).

    Source: Shrikumar et al., ICML 2017, section 3.5.1; beyond its rules docs/relevance.md.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceNeuronDeepLift(net, net[0], reference=eight).attribute(torch.tensor([[1.0, 0.0]]), neuron_selector=0).abs()
    tensor([[0., 2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return neuron_maps(self, host, call, plan, paired=paired)


class AbsenceNeuronDeepLiftShap(AbsenceMethod, NeuronDeepLiftShap, complete=True, exact=True, distribution=True):
    """DeepLIFT of a neuron's pre-activation, averaged over references.

    R = mean over references r of DeepLIFT(x; r).

    Source: Lundberg and Lee, NeurIPS 2017, section 4.2.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceNeuronDeepLiftShap(net, net[0], reference=eight).attribute(torch.tensor([[1.0, 0.0]]), neuron_selector=0).abs()
    tensor([[0., 2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return neuron_maps(self, host, call, plan, paired=paired)


class AbsenceLRP(AbsenceMethod, LRP, complete=True, exact=True, passing="pairs"):
    """Layer-wise relevance propagation of the difference to a reference (zeros without one).

    Epsilon unless modules carry another rule of Captum's (``module.rule``): EpsilonRule, GammaRule, Alpha1_Beta0_Rule
    (as ZPlus), IdentityRule on modules without weights. Applied to differences of activations, so biases cancel, units
    that are dead at x are seen, and sum R = u(x) - u(r). Rules that the user attached stay attached.

    Source: Bach et al., PLoS ONE 2015, eq. 58; on differences docs/relevance.md.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceLRP(nn.Sequential(net)).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -2.]])
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceLRP(nn.Sequential(net), reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0).abs()
    tensor([[0., 2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return input_maps(self, host, call, plan, paired=paired, rule=captum_rules(self._model))


class AbsenceLayerLRP(AbsenceMethod, LayerLRP, complete=True):
    """Layer-wise relevance propagation of the difference to a reference, down to a layer.

    As :class:`AbsenceLRP`; sum R = u(x) - u(r) where every path to the output runs through the layer.

    Source: Bach et al., PLoS ONE 2015, eq. 58; on differences docs/relevance.md.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceLayerLRP(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), target=1).round().int()
    tensor([[-1,  0]], dtype=torch.int32)
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return layer_maps(self, host, call, plan, paired=paired, rule=captum_rules(self._model))
