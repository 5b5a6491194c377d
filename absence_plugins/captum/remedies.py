"""Where Captum's own form stands in the way of absences: what is rejected, why, and what is corrected.

Each correction touches only non-neutral objects and leaves nothing on the model.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from captum.attr import Attribution, NoiseTunnel
from torch import Tensor

from absence_plugins.captum.calls import leaves, plain
from absence_plugins.captum.conditions import warn_drawing
from absence_plugins.captum.evidence import is_gradient, kind_of
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.text_masks import warn_hidden_tokens
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.choices import SIGMOID_NOTE, SINGLE_NOTE
from absence_plugins.core.maps import tree_map
from absence_plugins.core.precision import warn_unresolved
from absence_plugins.core.suitability import warn_alike, warn_unsuitable

NO_BASELINE = "its method has no baseline to compare with; use AbsenceIntegratedGradients or AbsenceDeepLift"
DECONVOLUTION = (
    "it passes only positive gradients down, whether units are active or not, so nothing is ever held down; "
    "use AbsenceIntegratedGradients, or AbsenceGuidedBackprop, which is two-sided here"
)
GUIDED_GRAD_CAM = "it multiplies two maps from which negative evidence was deleted; use AbsenceLayerGradCam or AbsenceIntegratedGradients"
ACTIVATION = "it shows a layer's activations, not what they do to an output; use AbsenceLayerGradientXActivation or AbsenceLayerConductance"
UNSIGNED = {  # by the argument that deletes the sign
    "abs": "abs=True takes absolute values, so what holds the output down looks like what raises it; leave it out",
    "relu_attributions": "relu_attributions=True deletes what holds the output down; leave it False",
}
INCOMPLETE = 0.05  # of the difference: beyond this a sum is said to be off
ROUNDING = 1e-5  # of the gross map; a type with a coarser step rounds by that


def two_sided(x: Tensor, raising: Tensor, lowering: Tensor, unrectified: Tensor) -> Tensor:
    """x * (guided(u) - guided(-u) - what passes no ReLU, which both contain); all of one shape, R < 0 holds down."""
    return x * (raising - lowering - unrectified)


def without_relus(instance: Any) -> Any:
    """A copy of Captum's guided backpropagation in which no gradient passes a ReLU."""
    closed = copy.copy(instance)
    closed._backward_hook = lambda _module, grad_input, _grad_output: tree_map(torch.zeros_like, grad_input)
    return closed


def is_off(plan: Plan, signed: Any, difference: Tensor) -> Tensor:
    """Which samples' maps do not sum to the difference of the outputs, by more than 5 % of it and than rounding [B]."""
    flat = torch.cat([part.reshape(len(part), -1) for part in leaves(signed)], 1)
    off = (flat.sum(1) - difference).abs()
    rounding = max(ROUNDING, torch.finfo(flat.dtype).eps)
    return off > INCOMPLETE * difference.abs() + rounding * flat.abs().sum(1) + plan.step


def warn_incomplete(method: Any, plan: Plan, signed: Any, value: Tensor, level: int) -> None:
    """Say so where the map against the first reference does not sum to u(x) - u(r)."""
    if is_gradient(method) or plan.copies > 1:
        return
    difference = plan.output - value
    if any(len(part) != len(difference) for part in leaves(signed)):
        return
    off = is_off(plan, signed, difference)
    if not bool(off.any()):
        return
    has_steps = "n_steps" in plan.arguments
    at_layer = method._has("attribute_to_layer_input")
    why = "paths to the output lead around the layer, or its steps are too few" if at_layer else "its steps are too few"
    remedy = (
        'pass more n_steps (or n_steps="auto")'
        if has_steps and not at_layer
        else "name a layer that all paths run through"
    )
    warnings.warn(
        f"the map of {type(method).__name__} does not sum to the difference of the outputs in samples "
        f"{off.nonzero().flatten()[:8].tolist()} (more than {INCOMPLETE:.0%} off): {why}; {remedy}, or use "
        "AbsenceDeepLift, which is exact",
        AbsenceWarning,
        stacklevel=level,
    )


def refuse_absences(method: Any) -> None:
    """Make a method that cannot show absences Captum's own where no option was given, and say so.

    Raises:
        ValueError: an option asks it for absences.
    """
    cause = f"{type(method).__name__} cannot show absences: {method._traits.refuses}"
    if not method._is_auto or method.reference is not None or method.evidence != "signed":
        raise ValueError(f"{cause} (nontarget=None gives Captum's own map)")
    method.nontarget = None
    warnings.warn(
        f"{cause}. Its map is Captum's own, of the target (nontarget=None: the same, without this warning)",
        AbsenceWarning,
        stacklevel=4,
    )


def warn_unsigned(method: Any, wants_parts: bool) -> None:
    """Say that the map has no sign, as the caller has asked.

    Raises:
        ValueError: evidence is to be read from its sign.
    """
    cause = UNSIGNED[method._traits.unsigned]
    if wants_parts:
        raise ValueError(f"evidence is read from the sign of the map, and {cause}")
    warnings.warn(f"the map of {type(method).__name__} has no sign: {cause}", AbsenceWarning, stacklevel=6)


def warn_limits(method: Any, plan: Plan, signed: Any, values: Tensor | None, level: int) -> None:
    """Say where the map cannot show what was asked for; ``values``: u of the references."""
    warn_drawing(plan.drawing, level)
    warn_hidden_tokens(kind_of(method), plan, level + 1)
    if values is not None:
        warn_unresolved(plan.output, values, plan.size, plan.dtype, level + 1)
    if method._is_auto and plan.choice is not None and plan.choice.kind == "target":
        if not plan.choice.single:
            warnings.warn(SIGMOID_NOTE, AbsenceWarning, stacklevel=level)
        elif plan.is_blank:
            warnings.warn(SINGLE_NOTE, AbsenceWarning, stacklevel=level)
    if plan.references is not None and values is not None and not plan.is_made:
        warn_unsuitable(plan.view, plan.output, values, level + 1)
        if plan.choice is not None and plan.choice.kind == "target" and plan.reference_outputs is not None:
            warn_alike(plan.choice.classes, plan.reference_outputs, level + 1)
    if method._traits.local:
        warn_dead(method, signed, level + 1)


def warn_dead(method: Any, signed: Any, level: int) -> None:
    """Say so where a local map is all zeros: the output does not react to the input there."""
    parts = leaves(signed)
    if parts[0].shape[0] == 1 and any(part.sum().item() != 0 for part in parts):
        return  # as nearly always, by an operation that has run before
    alive = [part.reshape(len(part), -1).any(1) for part in parts]
    reacts = (alive[0] if len(alive) == 1 else torch.stack(alive).any(0)).tolist()
    if not all(reacts):
        dead = [row for row, is_alive in enumerate(reacts) if not is_alive]
        warnings.warn(
            f"the map of samples {dead[:8]} is zero: the output does not react to the input "
            f"there (a dead unit), and {type(method).__name__} is local; use AbsenceIntegratedGradients or "
            "AbsenceFeatureAblation",
            AbsenceWarning,
            stacklevel=level,
        )


def warn_local(method: Any) -> None:
    """Say that a map is local and does not sum to the output."""
    warnings.warn(
        f"{type(method).__name__} is local (it sees only units that are active at x) and its map does not sum to the "
        "output; "
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
