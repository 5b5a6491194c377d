"""Where Captum's own form stands in the way of absences: what is refused, why, and what is mended.

Each mend touches only non-neutral objects and leaves nothing on the model.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from captum.attr import Attribution, DeepLift, NoiseTunnel
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn

from absence_plugins.captum.calls import leaves, plain
from absence_plugins.captum.evidence import is_gradient
from absence_plugins.captum.plan import Plan
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.maps import tree_map
from absence_plugins.core.pooling import to_winners

NO_BASELINE = "its method has no baseline to compare with; use AbsenceIntegratedGradients or AbsenceDeepLift"
DECONVOLUTION = (
    "it passes only positive gradients down, whether units are active or not, so nothing is ever held down; "
    "use AbsenceIntegratedGradients, or AbsenceGuidedBackprop, which is two-sided here"
)
GUIDED_GRAD_CAM = "it multiplies two maps from which negative evidence was deleted; use AbsenceLayerGradCam or AbsenceIntegratedGradients"
ACTIVATION = "it shows a layer's activations, not what they do to an output; use AbsenceLayerGradientXActivation or AbsenceLayerConductance"
RESHAPES = (nn.Flatten, nn.Unflatten, nn.Identity)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def nonlinearities(model: Any) -> list[nn.Module]:
    """The modules that Captum's DeepLIFT hooks.

    Two of them directly behind each other (ReLU, MaxPool) share one tensor, on which the multiplier of
    the second reaches the first too late (Captum issue 1104); a copy of the input keeps them apart.
    """
    return [module for module in model.modules() if type(module) in SUPPORTED_NON_LINEAR]


def reshapes(model: nn.Module) -> list[nn.Module]:
    """The modules that only reshape; a no-op one returns its input, on which LRP's hooks must not stack up."""
    return [module for module in model.modules() if isinstance(module, RESHAPES)]


def pass_reshapes_through(model: nn.Module) -> None:
    """Give modules that only reshape a rule, so that Captum's LRP accepts them (epsilon 1e-9: R unchanged to 1e-8)."""
    for module in reshapes(model):
        if not hasattr(module, "rule"):
            module.rule = EpsilonRule()


def two_sided(x: Tensor, raising: Tensor, lowering: Tensor, unrectified: Tensor) -> Tensor:
    """x * (guided(u) - guided(-u) - what passes no ReLU, which both contain); all of one shape, R < 0 holds down."""
    return x * (raising - lowering - unrectified)


def without_relus(instance: Any) -> Any:
    """A copy of Captum's guided backpropagation in which no gradient passes a ReLU."""
    closed = copy.copy(instance)
    closed._backward_hook = lambda _module, grad_input, _grad_output: tree_map(torch.zeros_like, grad_input)
    return closed


def max_pool_multiplier(module: Any, grad_input: Tensor, grad_output: Tensor, eps: float) -> Tensor:
    """DeepLIFT's multiplier of a max pooling, also where windows overlap, for a batch [x, r].

    What :func:`~absence_plugins.core.pooling.to_winners` gives to an input, over its difference. Captum
    unpools instead, which keeps only one of several windows per input.
    """
    value = module.input
    (x, r), (o_x, o_r) = value.chunk(2), module.output.chunk(2)
    top = torch.maximum(o_x, o_r)
    given = torch.cat([to_winners(module, value, grad_output * torch.cat([top - o_r, o_x - top]))] * 2)
    difference = torch.cat([x - r] * 2)
    return torch.where(difference.abs() < eps, grad_input, given / difference)


def deep_lift_hook(host: type[Any], instance: Any, module: nn.Module, grad_input: Tensor, grad_output: Tensor) -> Any:
    """Captum's DeepLIFT rule of a module, except for max pooling in a non-neutral object."""
    if instance.is_neutral or type(module) not in MAX_POOLS or not instance.satisfies_attribute_criteria(module):
        return host._backward_hook(instance, module, grad_input, grad_output)
    multiplier = max_pool_multiplier(module, grad_input, grad_output, instance.eps)
    del module.input, module.output
    return multiplier


class MendedDeepLift(DeepLift):
    """Captum's DeepLift with the max-pooling multiplier of :func:`max_pool_multiplier`, for its neuron form."""

    is_neutral = False

    def _backward_hook(self, module: nn.Module, grad_input: Tensor, grad_output: Tensor) -> Any:
        return deep_lift_hook(DeepLift, self, module, grad_input, grad_output)


def check_layer_side(layer: nn.Module, layer_input: bool) -> None:
    """Refuse the input of a nonlinearity as a DeepLIFT layer: Captum takes its multiplier out of the product.

    Raises:
        ValueError: with the remedy.
    """
    if layer_input and type(layer) in SUPPORTED_NON_LINEAR:
        raise ValueError(
            f"attribute_to_layer_input=True at a {type(layer).__name__} does not sum to u(x) - u(r) in Captum; "
            "pass the module in front of it as the layer instead"
        )


def warn_incomplete(method: Any, plan: Plan, signed: Any, value: Tensor, level: int) -> None:
    """Say so where the map against the first reference does not sum to u(x) - u(r)."""
    if is_gradient(method) or plan.copies > 1:
        return
    total = torch.stack([part.reshape(part.shape[0], -1).sum(1) for part in leaves(signed)]).sum(0)
    difference = plan.output - value
    if total.shape == difference.shape and bool(((total - difference).abs() > 0.05 * difference.abs() + 1e-3).any()):
        warnings.warn(
            f"the map of {type(method).__name__} does not sum to the difference of the outputs: the model has a nonlinearity "
            "without a DeepLIFT rule (functional ReLU or pooling, GELU, adaptive max pooling); use AbsenceIntegratedGradients",
            AbsenceWarning,
            stacklevel=level,
        )


def warn_local(method: Any) -> None:
    """Say that a map is local and does not sum to the output."""
    warnings.warn(
        f"{type(method).__name__} is local (it sees only units that are active at x) and its map does not sum to the output; "
        "AbsenceIntegratedGradients does",
        AbsenceWarning,
        stacklevel=6,
    )


def paired_gradient_shap(inner: Attribution, call: Mapping[str, Any], **extra: Any) -> Any:
    """Captum's GradientShap with baseline i for sample i, instead of any baseline for any sample."""
    tunnel = NoiseTunnel(inner)
    keywords = {
        name: call[name]
        for name in ("target", "return_convergence_delta")
        if name in call and name in inspect.signature(inner.attribute).parameters
    }
    return plain(NoiseTunnel.attribute)(
        tunnel,
        call["inputs"],
        nt_type="smoothgrad",
        nt_samples=call["n_samples"],
        stdevs=call["stdevs"],
        draw_baseline_from_distrib=False,
        baselines=call["baselines"],
        additional_forward_args=call["additional_forward_args"],
        **keywords,
        **extra,
    )
