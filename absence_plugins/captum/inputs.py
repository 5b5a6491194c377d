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
from captum._utils.models.linear_model import SkLearnLinearRegression  # noqa: F401  (examples)
from captum.attr import (
    LRP,
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    FeaturePermutation,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    LimeBase,
    Occlusion,
    Saliency,
    ShapleyValues,
    ShapleyValueSampling,
)
from captum.attr._core.gradient_shap import InputBaselineXGradient
from torch import Tensor, nn  # noqa: F401  (nn: examples)

from absence_plugins.captum.calls import redirect, run_host
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.remedies import (
    DECONVOLUTION,
    GUIDED_GRAD_CAM,
    NO_BASELINE,
    nonlinearities,
    paired_gradient_shap,
    pass_reshapes_through,
    two_sided,
    warn_local,
)
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


class AbsenceDeepLift(AbsenceMethod, DeepLift, complete=True):
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


class AbsenceDeepLiftShap(AbsenceMethod, DeepLiftShap, complete=True, distribution=True):
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

    R = x * (guided(u) - guided(-u)).

    Source: Springenberg et al., 2014, arXiv:1412.6806; two-sided form: this package.

    The published one-sided rule drops everything negative and with it every absence. Local and not
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
        redirect(opposite, -torch.eye(plan.columns).to(plan.output))
        raising, lowering = run_host(GuidedBackprop, host, call), run_host(GuidedBackprop, opposite, call)
        return tree_map(two_sided, call["inputs"], raising, lowering)


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


class AbsenceFeatureAblation(AbsenceMethod, FeatureAblation):
    """How much the output changes when features are replaced by the reference's (or by blank).

    R_i = u(x) - u(x with feature i taken from r).

    Source: Zeiler and Fergus, ECCV 2014, section 4.2.

    Sees through dead units. Features are single values unless ``feature_mask`` groups them.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceFeatureAblation(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0)
    tensor([[0., 2.]])
    """


class AbsenceFeaturePermutation(
    AbsenceMethod,
    FeaturePermutation,
    no_reference="it permutes features within the batch; use AbsenceFeatureAblation, which takes them from references",
):
    """How much the non-target changes when a feature is exchanged between the samples of the batch.

    R_i = u(x) - u(x with feature i of another sample of the batch).

    Source: Fisher, Rudin and Dominici, JMLR 2019.

    Random, and a batch is more than its samples: the only class whose map depends on the batch.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceFeaturePermutation(net, perm_func=lambda x, mask: x.flip(0)).attribute(torch.tensor([[1.0, 2.0], [1.0, 0.0]]), target=1)
    tensor([[-2., -2.],
            [ 2.,  2.]])
    """


class AbsenceOcclusion(AbsenceMethod, Occlusion):
    """How much the output changes when a window of x is replaced by the reference's content (or by blank).

    R_i = mean over windows that hold i of u(x) - u(x with the window from r).

    Source: Zeiler and Fergus, ECCV 2014, section 4.2.

    Sees through dead units. The window blurs: the share inside a small region falls.

    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceOcclusion(net).attribute(torch.tensor([[1.0, 2.0]]), target=1, sliding_window_shapes=(1,))
    tensor([[ 1., -2.]])
    """


class AbsenceShapleyValueSampling(AbsenceMethod, ShapleyValueSampling, complete=True):
    """Sampled Shapley values of the features, absent features taken from the reference.

    R_i = mean over random orders of the change of u when feature i joins those before it.

    Source: Castro et al., 2009; Strumbelj and Kononenko, JMLR 2010.

    Random: seed torch. Sees through dead units.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceShapleyValueSampling(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    tensor([[ 1., -2.]])
    """


class AbsenceShapleyValues(AbsenceMethod, ShapleyValues, complete=True):
    """Exact Shapley values of the features; for a handful of features.

    R_i = mean over all orders of the change of u when feature i joins those before it.

    Source: Shapley, 1953.

    K features cost K! orders: group pixels with ``feature_mask``.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceShapleyValues(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0)
    tensor([[0., 2.]])
    """


class AbsenceLimeBase(
    AbsenceMethod,
    LimeBase,
    no_reference="its perturbation is the caller's own; put the references into perturb_func, or use AbsenceLime",
):
    """A local surrogate of the non-target, with the caller's own perturbations.

    R = coefficients of an interpretable model fitted to u around x.

    Source: Ribeiro et al., KDD 2016, eq. 1.

    The map lies in the interpretable space, [1, features]. Random: seed torch.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> keep = lambda x, **_: torch.bernoulli(torch.full((1, 2), 0.5))
    >>> mix = lambda z, x, **_: z * x
    >>> lime = AbsenceLimeBase(net, SkLearnLinearRegression(), lambda *_, **__: 1.0, keep, True, mix, None)
    >>> lime.attribute(torch.tensor([[1.0, 2.0]]), target=1, n_samples=40).round(decimals=2)
    tensor([[ 1., -2.]])
    """


class AbsenceLime(AbsenceMethod, Lime):
    """A local linear surrogate of the output; switched-off features come from the reference.

    R = coefficients of a sparse linear model fitted to u at random mixtures of x and r.

    Source: Ribeiro et al., KDD 2016, eq. 1.

    Random: seed torch. Captum's default model is a lasso, whose penalty shrinks R.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceLime(net, interpretable_model=SkLearnLinearRegression()).attribute(torch.tensor([[1.0, 2.0]]), target=1, n_samples=40).sign()
    tensor([[ 1., -1.]])
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

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        pass_reshapes_through(host.model)
        return run_host(LRP, host, call)


class AbsenceKernelShap(AbsenceMethod, KernelShap, complete=True):
    """Shapley values by weighted linear regression; switched-off features come from the reference.

    R = solution of the Shapley-kernel-weighted least squares for u at mixtures of x and r.

    Source: Lundberg and Lee, NeurIPS 2017, theorem 2.

    Random: seed torch. Sees through dead units.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> eight = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)  # has x1
    >>> AbsenceKernelShap(net, reference=eight).attribute(torch.tensor([[1.0, 0.0]]), target=0, n_samples=200).round(decimals=2)
    tensor([[0., 2.]])
    """
