"""What is decided once per call, on the real inputs: before the forward, in it, and from what it returns."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from absence_plugins.captum.calls import checked_inputs, is_reference, select_neuron
from absence_plugins.captum.conditions import check_baselines, check_model, check_numbers
from absence_plugins.captum.noise import is_news, real_inputs
from absence_plugins.captum.plan import Plan, every
from absence_plugins.captum.points import Lookout
from absence_plugins.captum.precision import settle_precision
from absence_plugins.captum.remedies import warn_unsigned
from absence_plugins.captum.traits import LAYER_INPUTS
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.choices import choose, resolve_auto
from absence_plugins.core.endings import LastOperation
from absence_plugins.core.hooks import keeping, quiet_forward
from absence_plugins.core.module_tree import list_modules, list_parameters
from absence_plugins.core.outputs import shrunk
from absence_plugins.core.rectified import looks_rectified, rectified_note
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.scores import Scores, announce
from absence_plugins.core.training import Draws, find_drawing


def prepare(method: Any, arguments: dict[str, Any], *, wants_parts: bool) -> Plan:
    """A plan of which nothing is decided: the model, the inputs and the baselines are checked."""
    modules = list_modules(method._model)
    parameters = list_parameters(modules)
    check_model(method._model, modules, parameters, method.reference)
    inputs = checked_inputs(arguments["inputs"])
    real, copies = real_inputs(method, inputs)
    check_numbers(method, real, inputs)
    if real is not inputs:  # Captum's noise is float32, which a model in half precision does not take
        pairs = zip(inputs, real, strict=True)
        inputs = tuple(part.to(own) if own.is_floating_point() else part for part, own in pairs)
    if method._traits.baselines == "baselines":
        check_baselines(arguments.get("baselines"), inputs, distribution=method._traits.distribution)
    if arguments.get(method._traits.unsigned):
        warn_unsigned(method, wants_parts)
    return Plan(
        arguments,
        inputs,
        real,
        copies,
        model=method._model,
        modules=modules,
        parameters=parameters,
        wants_parts=wants_parts,
    )


def decide_ahead(method: Any, plan: Plan) -> None:
    """Decide by one extra forward on the real inputs."""
    model, real = method._model, plan.real
    with quiet_forward(plan.inputs), keeping(plan.modules):
        with Draws(plan.inputs) as draws:
            outputs = _look(method, plan)
        if draws.happened:
            plan.drawing = find_drawing(model, lambda: model(*real, *plan.extra(plan.copies)), plan.inputs)
        if method._has("target"):
            if is_news(plan.ending):
                announce(plan.ending, stacklevel=5)
            decide(method, plan, outputs)
            assert plan.choice is not None
            plan.output = plan.choice.values(outputs)
        else:
            if looks_rectified(plan.points[0].value):
                warnings.warn(rectified_note(type(method.layer).__name__), AbsenceWarning, stacklevel=5)
            plan.output = _neuron_value(method, plan)
    settle(method, plan, outputs)


def _neuron_value(method: Any, plan: Plan) -> Tensor:
    """Of the real samples [B], from the forward in which the layer was read, where Captum would see the same there."""
    point = plan.points[0]
    if not point.is_whole or hasattr(method._model, "device_ids"):  # of a replica's samples
        value: Tensor = method._value(plan, plan.real)
        return value
    return select_neuron(point.value, plan.arguments["neuron_selector"])


def decide(method: Any, plan: Plan, outputs: Tensor) -> None:
    """Choose the explained output from the model's scores for the real samples."""
    plan.choice = choose(
        outputs,
        every(plan.arguments["target"], plan.copies),
        resolve_auto(method.nontarget, outputs, plan.ending),
        lambda: method._forward(plan, shrunk(plan.real)),
    )
    weights = plan.choice.weights
    plan.columns = len(weights) if weights is not None else outputs.shape[1] if outputs.dim() > 1 else 1


def settle(method: Any, plan: Plan, outputs: Any) -> None:
    """What follows from the choice: precision, references, the view.

    Raises:
        ValueError: a target against a blank baseline, of which an absence was asked.
    """
    settle_precision(plan, outputs)
    given = plan.arguments.get(method._traits.baselines)
    if method.reference is not None and given is None:
        plan.references = _draw(plan, method.reference)
    plan.is_made = plan.references is not None and method.reference is not None and method.reference.is_made
    compared = (plan.references is not None and not plan.is_made) or is_reference(given)
    if plan.choice is not None:
        plan.view = plan.choice.view
    else:  # without a reference, a neuron is asked what holds it down, as a non-target is
        plan.view = "target" if compared else "nontarget"
    plan.is_blank = plan.view == "target" and not compared
    if plan.is_blank and (method.evidence != "signed" or (plan.wants_parts and method.nontarget is None)):
        raise ValueError(
            "against a blank baseline the target's map shows only what is present; "
            "pass reference=ReferenceSet(...), baselines=<real images>, or a nontarget"
        )


def _draw(plan: Plan, reference: ReferenceSet) -> tuple[Tensor, ...]:
    """The references nearest to the real samples: of the non-target's class, else of the target's contrast."""
    classes, label = (None, None) if plan.choice is None else plan.choice.contrast()
    drawn = reference.nearest(plan.real if plan.is_tuple else plan.real[0], classes, label=label)
    return tuple(part.repeat_interleave(plan.copies, 0) for part in (drawn if isinstance(drawn, tuple) else (drawn,)))


def _look(method: Any, plan: Plan) -> Any:
    """One forward on the real samples: the model's scores, what must stand around the model, where its layers are
    read.
    """
    layers = getattr(method, "layer", None)
    modules = layers if isinstance(layers, list) else [] if layers is None else [layers]
    wants_input = any(plan.arguments.get(name) for name in LAYER_INPUTS)
    side = "input" if wants_input else "auto" if method._has("neuron_selector") else "output"
    given = tuple(part.clone() for part in plan.real)
    last = LastOperation()
    listening = last if method._has("target") else nullcontext()  # it takes long
    with Lookout(modules, method._layers, method._model, side=side) as lookout, listening:
        outputs = method._model(*given, *plan.extra(plan.copies))
    plan.points = lookout.points(plan.real, arranged=method._traits.arranged)
    is_changed = any(part._version for part in given)  # a clone begins at 0
    if not method._has("target"):
        plan.model = Scores(method._model) if is_changed else plan.model
        return outputs
    scores, plan.ending = last.in_front_of(method._checked(outputs, len(plan.real[0])))
    if is_changed or plan.ending or not isinstance(outputs, Tensor):
        plan.model = Scores(method._model, plan.ending)
    return scores
