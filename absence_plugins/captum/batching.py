"""Ablation methods in batches that fit into memory, where the caller does not say ``perturbations_per_eval``.

Captum runs one perturbation of all samples after the other. Here rows of all features, samples and references share
forwards (:mod:`absence_plugins.captum.ablation`). With ``perturbations_per_eval`` given, and in the neutral setting,
Captum's own loop runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.progress import progress
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_all

from absence_plugins.captum.ablation import Ablation, Entangled, Explained
from absence_plugins.captum.calls import BATCH, expanded, select_neuron
from absence_plugins.captum.features import Features, Inputs, find_features
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.precision import in_own_type
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.changed_parts import holds_scripts
from absence_plugins.core.choices import Choice
from absence_plugins.core.hooks import unchanged
from absence_plugins.core.outputs import Output


def each_map(method: Any, plan: Plan, level: int) -> Iterator[tuple[Inputs | None, Any, Tensor | None]]:
    """Every baseline, the signed map of a method against it, and its delta if asked for.

    ``level``: frames from the caller up to the user's call.
    """
    maps = _measure_maps(method, plan, level + 1) if plan.arguments.get(BATCH, 1) is None else None
    for number, reference in enumerate(plan.each_reference()):
        if maps is None:
            yield reference, *method._signed(plan, reference)
        else:
            yield reference, in_own_type(plan, maps[number] if plan.is_tuple else maps[number][0]), None


def _measure_maps(method: Any, plan: Plan, level: int) -> list[Inputs] | None:
    """One map per reference; None where Captum's loop is to run."""
    features = find_features(plan.arguments, plan.inputs)
    references = _references(plan)
    if features is None or references is None or plan.drawing is not None:
        return None
    try:
        # nothing is put on the model but the hooks that read a neuron
        kept = unchanged(method._model) if plan.points else nullcontext()
        with kept, torch.no_grad(), _showing(method, plan) as tick:
            effects = _ablation(method, plan, features, references, tick).measure()
    except Entangled as error:
        warnings.warn(
            f"the model does not give for many samples in one batch what it gives for each of them ({error}), so "
            "Captum's loop runs one perturbation after the other; a model whose samples do not depend on each other "
            "gets its maps in a fraction of the time",
            AbsenceWarning,
            stacklevel=level,
        )
        return None
    return [features.spread(one) for one in effects]


@contextmanager
def _showing(method: Any, plan: Plan) -> Iterator[Callable[[int, int], object]]:
    """Captum's progress bar, where the caller asks for it."""
    bars: list[Any] = []

    def tick(rows: int, total: int) -> None:
        if plan.arguments.get("show_progress"):
            bars[:] = bars or [progress(desc=f"{method.get_name()} attribution", total=total)]
            bars[0].update(rows)

    try:
        yield tick
    finally:
        for bar in bars:
            bar.close()


def _ablation(method: Any, plan: Plan, features: Features, references: Inputs, tick: Any) -> Ablation:
    def forward(inputs: Inputs, images: Tensor) -> Any:
        return _run(method, plan, inputs, images)

    def explain(outputs: Any, images: Tensor) -> tuple[Explained, Any]:
        return _explain(method, plan, outputs, images)

    output = plan.output
    if plan.copies > 1:
        every = torch.arange(len(plan.inputs[0]))
        explained, outputs = explain(forward(plan.inputs, every), every)
        output = explained.values(outputs)
    in_parts = plan.choice is not None and _is_unwatched(method._model)
    return Ablation(plan.inputs, references, features, output, forward, explain, plan.dtype, in_parts, tick)


def _run(method: Any, plan: Plan, inputs: Inputs, images: Tensor) -> Any:
    """The outputs, or the neuron's layer, of inputs [N, ...] that are variants of samples ``images`` [N]."""
    total = len(plan.inputs[0])

    def own(value: Any) -> Any:
        is_per_sample = isinstance(value, Tensor) and value.dim() > 0 and len(value) == total
        return value[images.to(value.device)] if is_per_sample else value

    extra = tuple(map(own, plan.extra(1)))
    return method._activation(plan, inputs, extra) if plan.choice is None else plan.model(*inputs, *extra)


def _explain(method: Any, plan: Plan, outputs: Any, images: Tensor) -> tuple[Explained, Any]:
    """What is explained of these samples, and the outputs after a check."""
    if plan.choice is None:
        return Neuron(plan.arguments["neuron_selector"]), outputs
    explained = plan.choice.of_samples(images // plan.copies)
    assert isinstance(explained, Choice)
    return explained, method._checked(outputs, len(images))


def _is_unwatched(model: Any) -> bool:
    """Whether nobody looks into a model's forward: a module without forward hooks, run as it is written."""
    model = getattr(model, "__self__", model)
    if not isinstance(model, nn.Module) or hooks_of_all._global_forward_hooks or hooks_of_all._global_forward_pre_hooks:
        return False
    is_watched = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    is_spread = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    return not (is_watched or is_spread or holds_scripts(model))


@dataclass(frozen=True)
class Neuron(Output):
    """A neuron as Captum's ``neuron_selector`` names it, of a layer's activation."""

    selector: Any

    def values(self, outputs: Any) -> Tensor:
        """Its values [N]."""
        return select_neuron(outputs, self.selector)

    def sizes(self, outputs: Any) -> Tensor:
        """How large they are [N]."""
        return self.values(outputs).abs()


def _references(plan: Plan) -> Inputs | None:
    """The baselines of every sample, per input [B, K, ...]; None where they are of another type than the inputs."""
    if plan.references is not None:
        return plan.references
    given = plan.arguments.get("baselines")
    parts = given if isinstance(given, tuple) else (given,) * len(plan.inputs)
    for part, own in zip(parts, plan.inputs, strict=True):
        if torch.result_type(own, 0 if part is None else part) != own.dtype:
            return None
    found = expanded(given, plan.inputs, paired=True)
    return None if found is None else tuple(part[:, None] for part in found)
