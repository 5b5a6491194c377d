"""Perturbations in batches that fit into memory, where the caller does not say ``perturbations_per_eval``.

Captum runs one perturbation of all samples after the other. Here rows of all features, samples and references share
forwards (:mod:`absence_plugins.captum.forwards`). With ``perturbations_per_eval`` given, and in the neutral setting,
Captum's own loop runs; as it does where a model's samples depend on each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from captum._utils.progress import progress
from captum.attr import FeaturePermutation, ShapleyValueSampling
from captum.attr._core.feature_permutation import _permute_feature
from captum.attr._core.shapley_value import _all_perm_generator, _perm_generator
from torch import Tensor

from absence_plugins.captum.ablation import LESS, Replaced, is_in_small_parts, run_parts
from absence_plugins.captum.calls import BATCH
from absence_plugins.captum.coalitions import MOST_EXACT, measure_shapley
from absence_plugins.captum.features import Features, Groups, Inputs, find_features
from absence_plugins.captum.forwards import Changes, Entangled, Forwards, Quicker
from absence_plugins.captum.permutation import FEWEST, Permuted, PermutedBy
from absence_plugins.captum.perturbed import Perturbed, PerturbedLayer
from absence_plugins.captum.plan import Plan
from absence_plugins.captum.precision import in_own_type
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import unchanged
from absence_plugins.core.randomness import RandomStates
from absence_plugins.core.weighing import Weighing


def each_map(method: Any, plan: Plan, level: int) -> Iterator[tuple[Inputs | None, Any, Tensor | None]]:
    """Every baseline, the signed map of a method against it, and its delta if asked for.

    ``level``: frames from the caller up to the user's call.
    """
    maps = _measure_maps(method, plan, level + 1) if plan.arguments.get(BATCH, 1) is None else None
    for number, reference in enumerate(plan.each_reference()):
        if maps is None:
            yield reference, *method._signed(plan, reference)
        else:
            yield reference, in_own_type(plan, maps[number]), None


def _measure_maps(method: Any, plan: Plan, level: int) -> list[Any] | None:
    """One map per reference; None where Captum's loop is to run."""
    perturbed = Perturbed.of(method, plan) if plan.drawing is None else None
    features = None if perturbed is None else find_features(plan.arguments, perturbed.inputs, perturbed.mask)
    if perturbed is None or features is None:
        return None
    put_back = _keep_draws(method)
    try:
        # nothing is put on the model but the hooks that read or write a layer
        kept = unchanged(method._model) if plan.points else nullcontext()
        with kept, torch.no_grad(), _showing(method, plan) as tick:
            effects = _measure_effects(method, plan, perturbed, features, tick)
    except Entangled as error:
        put_back()  # Captum draws the same again
        warnings.warn(
            f"the model does not give for many samples in one batch what it gives for each of them ({error}), so "
            "Captum's loop runs one perturbation after the other; a model whose samples do not depend on each other "
            "gets its maps in a fraction of the time",
            AbsenceWarning,
            stacklevel=level,
        )
        return None
    return None if effects is None else [perturbed.as_given(features.spread(one)) for one in effects]


def _keep_draws(method: Any) -> Callable[[], object]:
    """A function that sets the generators, from which a method draws, to their present states."""
    if getattr(method, "perm_func", _permute_feature) is not _permute_feature:
        return RandomStates().restore
    if not isinstance(method, (FeaturePermutation, ShapleyValueSampling)):
        return lambda: None
    state = torch.get_rng_state()
    return lambda: torch.set_rng_state(state)


def _measure_effects(
    method: Any, plan: Plan, perturbed: Perturbed, features: Features, tick: Callable[[int, int], object]
) -> list[Tensor] | None:
    """The effects [B, count] of the features against every reference; None where Captum's loop is to run."""
    if isinstance(method, ShapleyValueSampling):
        return _measure_shapley(method, plan, perturbed, features, tick)
    changes: Replaced | Permuted
    if isinstance(method, FeaturePermutation):
        if not isinstance(features, Groups) or len(perturbed.inputs[0]) < FEWEST:
            return None
        is_own = method.perm_func is _permute_feature
        changes = (
            Permuted(perturbed.inputs, features) if is_own else PermutedBy(perturbed.inputs, features, method.perm_func)
        )
    else:
        references = perturbed.references()
        if references is None:
            return None
        changes = Replaced(perturbed.inputs, references, features)
    forwards = perturbed.forwards(tick)
    values = forwards.measure(changes, lambda weighing: _find_quicker(perturbed, forwards, changes, features, weighing))
    return list(changes.effects(values, forwards.output))


def _find_quicker(
    perturbed: Perturbed, forwards: Forwards, changes: Changes, features: Features, weighing: Weighing | None
) -> list[Quicker]:
    """Ways that compute only what a perturbation reaches."""
    if isinstance(perturbed, PerturbedLayer):
        return [] if weighing is None else perturbed.find_by_sample(forwards, len(changes.rows), weighing)
    if len(forwards.inputs) > 1 or not is_in_small_parts(forwards.inputs[0], features, changes.rows):
        return []
    if not perturbed.can_be_followed:
        return []
    return [Quicker(lambda inputs, rows: run_parts(forwards, features, inputs, rows), LESS, in_cache=False)]


def _measure_shapley(
    method: Any, plan: Plan, perturbed: Perturbed, features: Features, tick: Callable[[int, int], object]
) -> list[Tensor] | None:
    references = perturbed.references()
    generator = method.permutation_generator
    if (
        references is None
        or not isinstance(features, Groups)
        or generator not in (_all_perm_generator, _perm_generator)
    ):
        return None
    count = features.count
    samples = plan.arguments.get("n_samples", 1)
    is_numbered = bool((features.known.cpu() == torch.arange(count)).all())  # else Captum warns, and counts others
    if not is_numbered or not isinstance(samples, int) or samples < 1:
        return None
    is_exact = generator is _all_perm_generator
    if is_exact and count > MOST_EXACT:
        return None
    forwards = perturbed.forwards(tick)
    return [
        measure_shapley(forwards, reference, features, None if is_exact else generator(count, samples))
        for reference in (tuple(part[:, number] for part in references) for number in range(references[0].shape[1]))
    ]


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
