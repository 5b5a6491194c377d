"""Where Captum's own form stands in the way of absences: what is refused, why, and what is mended.

Each mend touches only non-neutral objects and leaves nothing on the model.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from captum.attr import Attribution, NoiseTunnel
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn

from absence_plugins.captum.calls import plain
from absence_plugins.core import AbsenceWarning

NO_BASELINE = "its method has no baseline to compare with; use AbsenceIntegratedGradients or AbsenceDeepLift"
DECONVOLUTION = (
    "it passes only positive gradients down, whether units are active or not, so nothing is ever held down; "
    "use AbsenceIntegratedGradients, or AbsenceGuidedBackprop, which is two-sided here"
)
GUIDED_GRAD_CAM = "it multiplies two maps from which negative evidence was deleted; use AbsenceLayerGradCam or AbsenceIntegratedGradients"
ACTIVATION = "it shows a layer's activations, not what they do to an output; use AbsenceLayerGradientXActivation or AbsenceLayerConductance"
RESHAPES = (nn.Flatten, nn.Unflatten, nn.Identity)


def nonlinearities(model: Any) -> list[nn.Module]:
    """The modules that Captum's DeepLIFT hooks.

    Two of them directly behind each other (ReLU, MaxPool) share one tensor, on which the multiplier of
    the second reaches the first too late (Captum issue 1104); a copy of the input keeps them apart.
    """
    return [module for module in model.modules() if type(module) in SUPPORTED_NON_LINEAR]


def pass_reshapes_through(model: nn.Module) -> None:
    """Give modules that only reshape a rule, so that Captum's LRP accepts them (epsilon 1e-9: R unchanged to 1e-8)."""
    for module in model.modules():
        if isinstance(module, RESHAPES) and not hasattr(module, "rule"):
            module.rule = EpsilonRule()


def two_sided(x: Tensor, raising: Tensor, lowering: Tensor) -> Tensor:
    """x times what raises the output minus what raises its negative; all of one shape, R < 0 holds down."""
    return x * (raising - lowering)


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
