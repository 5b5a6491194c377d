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
    Deconvolution,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    Saliency,
)
from captum.attr._core.gradient_shap import InputBaselineXGradient
from torch import nn  # noqa: F401  (examples)

from absence_plugins.captum.calls import expanded, redirect, run_host
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.remedies import (
    DECONVOLUTION,
    GUIDED_GRAD_CAM,
    NO_BASELINE,
    is_off,
    paired_gradient_shap,
    two_sided,
    warn_local,
    without_relus,
)
from absence_plugins.core.combining import CombinedOutputs
from absence_plugins.core.maps import tree_map
from absence_plugins.core.references import ReferenceSet  # noqa: F401  (examples)
from absence_plugins.core.running import check_heard

AUTO_STEPS = (50, 100, 200, 400, 800, 1600)


class AbsenceIntegratedGradients(AbsenceMethod, IntegratedGradients, complete=True):
    """Integrated gradients of the output and against the references that show an absence.

    R_i = (x_i - r_i) * integral over a in [0, 1] of du/dx_i at r + a (x - r); sum R = u(x) - u(r).

    Source: Sundararajan et al., ICML 2017, eq. 1.

    Sees through units that are dead at x: the path leads through the region where they live. Its sum is compared with
    u(x) - u(r) after every call; ``n_steps="auto"`` doubles the steps from 50 to 1,600 until it is within 5 %.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceIntegratedGradients(net).attribute(torch.tensor([[1.0, 2.0]]), target=1).round(decimals=3)
    tensor([[ 1., -2.]])
    """

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        if call["n_steps"] != "auto":
            return run_host(IntegratedGradients, host, call)
        reference = expanded(call["baselines"], plan.inputs, paired=True)
        value = self._reference_value(plan, reference)
        difference = None if value is None or plan.copies > 1 else plan.output - value
        for steps in AUTO_STEPS:
            result = run_host(IntegratedGradients, host, {**call, "n_steps": steps})
            signed = result[0] if call["return_convergence_delta"] else result
            if difference is None or not bool(is_off(plan, signed, difference).any()):
                break
        return result


class AbsenceGradientShap(AbsenceMethod, GradientShap, complete=True, sampled=True, distribution=True):
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


class AbsenceInputXGradient(AbsenceMethod, InputXGradient, local=True, no_reference=NO_BASELINE, passing="inputs"):
    """Input times gradient of the non-target.

    R = x * du/dx.

    Source: Shrikumar et al., 2016, arXiv:1605.01713.

    Local: a unit that is dead at x (zero gradient) gives zeros, and a warning.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceInputXGradient(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -2.]])
    """


class AbsenceSaliency(AbsenceMethod, Saliency, local=True, no_reference=NO_BASELINE, unsigned="abs", passing="inputs"):
    """The signed gradient of the non-target; its absolute value, which hides what is held down, only on request.

    R = du/dx.

    Source: Simonyan et al., 2013, arXiv:1312.6034.

    Not an attribution: it says which way to change a pixel, also where the image is blank. ``abs`` is False by
    default (Captum's is True, as is that of the neutral object); ``abs=True`` gives ``|du/dx|``, with a warning that
    it has no sign, and is rejected where evidence is read from the sign. Local: a dead unit gives zeros.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceSaliency(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -1.]])
    """


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
        check_heard(host.forward_func, type(self).__name__)
        warn_local(self)
        opposite = copy.copy(host)
        redirect(opposite, CombinedOutputs(host.forward_func, -torch.eye(plan.columns).to(plan.output)))
        raising, lowering = run_host(GuidedBackprop, host, call), run_host(GuidedBackprop, opposite, call)
        unrectified = run_host(GuidedBackprop, without_relus(host), call)
        return tree_map(two_sided, call["inputs"], raising, lowering, unrectified)


class AbsenceDeconvolution(AbsenceMethod, Deconvolution, refuses=DECONVOLUTION):
    """Captum's Deconvolution, which cannot show absences: warns that it is Captum's own, rejects every option.

    R = the upward path through rectified gradients, whether units are active or not.

    Source: Zeiler and Fergus, ECCV 2014.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceDeconvolution(net, nontarget=None).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[0., 1.]])
    """


class AbsenceGuidedGradCam(AbsenceMethod, GuidedGradCam, refuses=GUIDED_GRAD_CAM):
    """Captum's GuidedGradCam, which cannot show absences: warns that it is Captum's own, rejects every option.

    R = guided backpropagation * upsampled relu(Grad-CAM).

    Source: Selvaraju et al., ICCV 2017.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1))
    >>> AbsenceGuidedGradCam(net, net[0], nontarget=None).attribute(torch.ones(1, 1, 1, 1), target=0).shape
    torch.Size([1, 1, 1, 1])
    """
