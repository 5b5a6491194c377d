"""Captum's input attributions, asked about absences. All options are those of ``AbsenceMethod``.

Shapes: a map has the shape of its input ([B, ...], one per input). Sign, in every class: R > 0 raises the
explained output; R < 0 is content of x that holds it down, which for a non-target is what its unit
encodes as absent. Against references, R > 0 where they have content and x has none says: its absence
raises the output.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from captum.attr import (
    LRP,
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    Saliency,
)
from captum.attr._core.gradient_shap import InputBaselineXGradient
from torch import Tensor, nn

from absence_plugins.captum.calls import redirect, run_host
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.remedies import (
    DECONVOLUTION,
    GUIDED_GRAD_CAM,
    NO_BASELINE,
    deep_lift_hook,
    nonlinearities,
    paired_gradient_shap,
    pass_reshapes_through,
    reshapes,
    two_sided,
    warn_local,
    without_relus,
)
from absence_plugins.core.choices import CombinedOutputs
from absence_plugins.core.hooks import cloned_inputs
from absence_plugins.core.maps import tree_map
from absence_plugins.core.references import ReferenceSet  # noqa: F401  (examples)


class AbsenceIntegratedGradients(AbsenceMethod, IntegratedGradients, complete=True):
    """Integrated gradients of the output and against the references that show an absence.

    R_i = (x_i - r_i) * integral over a in [0, 1] of du/dx_i at r + a (x - r); sum R = u(x) - u(r).

    Source: Sundararajan et al., ICML 2017, eq. 1.

    Sees through units that are dead at x: the path leads through the region where they live.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceIntegratedGradients(net).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[ 1., -2.]])
    """


class AbsenceDeepLift(AbsenceMethod, DeepLift, complete=True, rules=True):
    """DeepLIFT (Rescale) of the non-target or against references, complete also where a pooling follows a ReLU.

    R = (x - r) * product of the multipliers (difference of outputs / difference of inputs); sum R = u(x) - u(r).

    Source: Shrikumar et al., ICML 2017, section 3.5.1.

    Captum 0.9.0 breaks completeness when two nonlinearities follow each other directly (its issue 1104);
    here each works on its own copy of the tensor. Every nonlinearity must be a module used once.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceDeepLift(net).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[ 1., -2.]])
    """

    def _contexts(self) -> list[Any]:
        return [cloned_inputs(nonlinearities(self.model))]

    def _backward_hook(self, module: nn.Module, grad_input: Tensor, grad_output: Tensor) -> Any:
        return deep_lift_hook(DeepLift, self, module, grad_input, grad_output)


class AbsenceDeepLiftShap(AbsenceMethod, DeepLiftShap, complete=True, rules=True, distribution=True):
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

    def _contexts(self) -> list[Any]:
        return [cloned_inputs(nonlinearities(self.model))]

    def _backward_hook(self, module: nn.Module, grad_input: Tensor, grad_output: Tensor) -> Any:
        return deep_lift_hook(DeepLiftShap, self, module, grad_input, grad_output)

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return run_host(DeepLift if paired else DeepLiftShap, host, call)

    def _delta(self, deltas: list[Tensor]) -> Tensor:
        return torch.stack(deltas, 1).flatten()  # as Captum: the references of sample 0, of sample 1, ...


class AbsenceGradientShap(AbsenceMethod, GradientShap, complete=True, distribution=True):
    """Expected gradients between x and its references.

    R = E over r and a in [0, 1] of (x - r) * du/dx at r + a (x - r) + noise.

    Source: Erion et al., Nature Machine Intelligence 2021, eq. 3.

    With a reference set ``n_samples`` points are drawn for each of the k nearest references. Random: seed
    torch and numpy. Complete in expectation.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceGradientShap(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0).round(decimals=3)
    tensor([[0., 2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        if not paired:
            return run_host(GradientShap, host, call)
        inner = InputBaselineXGradient(host.forward_func, host.multiplies_by_inputs)
        inner.gradient_func = host.gradient_func
        return paired_gradient_shap(inner, call)


class AbsenceInputXGradient(AbsenceMethod, InputXGradient, local=True, no_reference=NO_BASELINE):
    """Input times gradient of the non-target.

    R = x * du/dx.

    Source: Shrikumar et al., 2016, arXiv:1605.01713.

    Local: a unit that is dead at x (zero gradient) gives zeros, and a warning.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceInputXGradient(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -2.]])
    """


class AbsenceSaliency(AbsenceMethod, Saliency, local=True, no_reference=NO_BASELINE):
    """The signed gradient of the non-target (never its absolute value, which hides what is held down).

    R = du/dx.

    Source: Simonyan et al., 2013, arXiv:1312.6034.

    Not an attribution: it says which way to change a pixel, also where the image is blank. ``abs`` is
    ignored unless the object is neutral. Local: a dead unit gives zeros.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceSaliency(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -1.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        return run_host(Saliency, host, {**call, "abs": False})


class AbsenceGuidedBackprop(AbsenceMethod, GuidedBackprop, local=True, no_reference=NO_BASELINE):
    """Two-sided guided backpropagation: what raises the output minus what raises its negative, times the input.

    R = x * (guided(u) - guided(-u) - what passes no ReLU, which both contain).

    Source: Springenberg et al., 2014, arXiv:1412.6806; two-sided form: this package.

    The published one-sided rule drops everything negative and with it every absence. Still, suppression
    that passes two ReLUs is lost. Local and not
    complete; warns so.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceGuidedBackprop(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        warn_local(self)
        opposite = copy.copy(host)
        redirect(opposite, CombinedOutputs(host.forward_func, -torch.eye(plan.columns).to(plan.output)))
        raising, lowering = run_host(GuidedBackprop, host, call), run_host(GuidedBackprop, opposite, call)
        unrectified = run_host(GuidedBackprop, without_relus(host), call)
        return tree_map(two_sided, call["inputs"], raising, lowering, unrectified)


class AbsenceDeconvolution(AbsenceMethod, Deconvolution, refuses=DECONVOLUTION):
    """Captum's Deconvolution; refuses every setting but the neutral one.

    R = the upward path through rectified gradients, whether units are active or not.

    Source: Zeiler and Fergus, ECCV 2014.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceDeconvolution(net, nontarget=None).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[0., 1.]])
    """


class AbsenceGuidedGradCam(AbsenceMethod, GuidedGradCam, refuses=GUIDED_GRAD_CAM):
    """Captum's GuidedGradCam; refuses every setting but the neutral one.

    R = guided backpropagation * upsampled relu(Grad-CAM).

    Source: Selvaraju et al., ICCV 2017.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1))
    >>> AbsenceGuidedGradCam(net, net[0], nontarget=None).attribute(torch.ones(1, 1, 1, 1), target=0).shape
    torch.Size([1, 1, 1, 1])
    """


class AbsenceLRP(AbsenceMethod, LRP, local=True, no_reference=NO_BASELINE):
    """Layer-wise relevance propagation of the non-target (epsilon rule unless modules carry another).

    R_i = sum over j of z_ij / sum_i z_ij * R_j, from R = u(x) at the output.

    Source: Bach et al., PLoS ONE 2015, eq. 58.

    Modules that only reshape (``nn.Flatten``), on which Captum raises, are passed through. Rules that
    the user attached stay attached. Local: a dead unit gives zeros. For relevance that is right where
    this one is not, explain against references with AbsenceDeepLift. All zeros where u(x) = 0, as Captum seeds it.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceLRP(nn.Sequential(net)).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -2.]])
    """

    def _contexts(self) -> list[Any]:
        return [cloned_inputs(reshapes(self.model))]

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        pass_reshapes_through(host.model)
        return run_host(LRP, host, call)
