"""Captum's neuron attributions, asked about absences. Options: ``reference`` and ``evidence``.

A neuron has no target. What is explained is its pre-activation: after a ReLU it is 0, with zero gradient, exactly
where the concept is present, so a layer that ends in a nonlinearity is read in front of it. Shapes: a map has the shape
of its input. Sign: R > 0
raises the neuron, R < 0 is content of x that holds it down; against references, R > 0 where they have
content and x has none says: its absence raises the neuron. Without a reference ``evidence="absence"`` is
max(-R, 0); use it on inputs where the neuron is low.
"""

from __future__ import annotations

from typing import Any

import torch  # noqa: F401  (examples)
from captum._utils.gradient import construct_neuron_grad_fn
from captum.attr import (
    NeuronConductance,
    NeuronDeconvolution,
    NeuronFeatureAblation,
    NeuronGradient,
    NeuronGradientShap,
    NeuronGuidedBackprop,
    NeuronIntegratedGradients,
)
from captum.attr._core.gradient_shap import InputBaselineXGradient
from torch import nn  # noqa: F401  (examples)

from absence_plugins.captum.calls import BATCH, run_host, select_neuron
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.remedies import (
    DECONVOLUTION,
    NO_BASELINE,
    paired_gradient_shap,
    two_sided,
    warn_local,
    without_relus,
)
from absence_plugins.core.maps import tree_map
from absence_plugins.core.references import ReferenceSet  # noqa: F401  (examples)


class AbsenceNeuronConductance(AbsenceMethod, NeuronConductance):
    """Conductance of one neuron's inputs for an output (the one neuron class with a target).

    R_i = sum over the path of du/dn * dn/dx_i * (x_i - r_i).

    Source: Dhamdhere et al., ICLR 2019, eq. 1.

    The sign is that of the neuron's contribution to the explained output.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceNeuronConductance(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), target=1, neuron_selector=0).round(decimals=3)
    tensor([[ 0.9800, -1.9600]])
    """


class AbsenceNeuronFeatureAblation(AbsenceMethod, NeuronFeatureAblation, automatic=BATCH):
    """How much a neuron changes when features are replaced by the reference's (or by blank).

    R_i = n(x) - n(x with feature i taken from r).

    Source: Zeiler and Fergus, ECCV 2014, section 4.2.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceNeuronFeatureAblation(net, net[0], evidence="absence").attribute(torch.tensor([[1.0, 2.0]]), neuron_selector=0)
    tensor([[0., 2.]])
    """


class AbsenceNeuronGradient(AbsenceMethod, NeuronGradient, local=True, no_reference=NO_BASELINE):
    """The signed gradient of a neuron's pre-activation.

    R = dn/dx.

    Source: Simonyan et al., 2013, arXiv:1312.6034.

    Not an attribution. Local.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceNeuronGradient(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), neuron_selector=0)
    tensor([[ 1., -1.]])
    """


class AbsenceNeuronIntegratedGradients(AbsenceMethod, NeuronIntegratedGradients, complete=True):
    """Integrated gradients of a neuron's pre-activation.

    R_i = (x_i - r_i) * integral of dn/dx_i along the path; sum R = n(x) - n(r).

    Source: Sundararajan et al., ICML 2017, eq. 1.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceNeuronIntegratedGradients(net, net[0], evidence="absence").attribute(torch.tensor([[1.0, 2.0]]), neuron_selector=0).round(decimals=3)
    tensor([[0., 2.]])
    """


class AbsenceNeuronGradientShap(AbsenceMethod, NeuronGradientShap, complete=True, sampled=True, distribution=True):
    """Expected gradients of a neuron's pre-activation between x and its references.

    R = E over r and a of (x - r) * dn/dx at r + a (x - r) + noise.

    Source: Erion et al., Nature Machine Intelligence 2021, eq. 3.

    ``n_samples`` points for each reference. Random: seed torch and numpy.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceNeuronGradientShap(net, net[0], reference=eight).attribute(torch.tensor([[1.0, 0.0]]), neuron_selector=0).round(decimals=3)
    tensor([[0., 2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        if not paired:
            return run_host(NeuronGradientShap, host, call)
        inner = InputBaselineXGradient(host.forward_func, host.multiplies_by_inputs)
        inner.gradient_func = construct_neuron_grad_fn(
            host.layer,
            call["neuron_selector"],
            host.device_ids,
            attribute_to_neuron_input=call["attribute_to_neuron_input"],
        )
        return paired_gradient_shap(inner, call)


class AbsenceNeuronDeconvolution(AbsenceMethod, NeuronDeconvolution, refuses=DECONVOLUTION):
    """Captum's NeuronDeconvolution, which cannot show absences: warns that it is Captum's own, rejects every option.

    R = the neuron's upward path through rectified gradients.

    Source: Zeiler and Fergus, ECCV 2014.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # neuron 0: x0 and not x1
    >>> net[1].weight.data = torch.eye(2)
    >>> AbsenceNeuronDeconvolution(net, net[0], nontarget=None).attribute(torch.tensor([[1.0, 2.0]]), 0)
    tensor([[ 1., -1.]])
    """


class AbsenceNeuronGuidedBackprop(AbsenceMethod, NeuronGuidedBackprop, local=True, no_reference=NO_BASELINE):
    """Two-sided guided backpropagation of a neuron: what raises it minus what lowers it, times the input.

    R = x * (guided(n) - guided(-n) - what passes no ReLU, which both contain).

    Source: Springenberg et al., 2014, arXiv:1412.6806; two-sided form: this package.

    Local and not complete; warns so.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceNeuronGuidedBackprop(net, net[2]).attribute(torch.tensor([[1.0, 2.0]]), neuron_selector=0)
    tensor([[ 1., -2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        warn_local(self)
        selector = call["neuron_selector"]
        opposite = {**call, "neuron_selector": lambda activation: -select_neuron(activation, selector)}
        raising, lowering = run_host(NeuronGuidedBackprop, host, call), run_host(NeuronGuidedBackprop, host, opposite)
        host.guided_backprop = without_relus(host.guided_backprop)
        unrectified = run_host(NeuronGuidedBackprop, host, call)
        return tree_map(two_sided, call["inputs"], raising, lowering, unrectified)
