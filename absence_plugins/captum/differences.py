"""Relevance of differences behind Captum's DeepLIFT and LRP classes: exact on every graph that PyTorch records.

Captum's own implementation hooks modules, so it misses what is called as a function and rejects a module that runs
twice.
Here x's pass and the reference's pass are compared operation by operation (:mod:`absence_plugins.relevance`); for
DeepLIFT's networks that is its Rescale rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule
from torch import Tensor, nn

from absence_plugins.captum.calls import expanded, extra_arguments, select_neuron
from absence_plugins.captum.plan import Plan
from absence_plugins.core.outputs import as_columns, select
from absence_plugins.core.reading import Watch
from absence_plugins.core.scores import logits_of
from absence_plugins.relevance import Comparison, RelevanceError
from absence_plugins.relevance.comparison import EntryRelevance, Pulled
from absence_plugins.relevance.result import conservation
from absence_plugins.relevance.rules import RuleOf
from absence_plugins.relevance.secants.redistribution import Gamma, ZPlus

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
Read = Callable[[Pulled], list[EntryRelevance]]


def input_maps(method: Any, host: Any, call: Mapping[str, Any], plan: Plan, *, paired: bool, rule: Any = None) -> Any:
    """The map of every input, and the delta if it is asked for, as the host's ``attribute`` returns them."""
    comparison = _comparison(method, explained(host, call, plan), plan, rule)
    maps, delta = _against_all(method, comparison, call, plan, _of_every_input, paired=paired)
    signed = tuple(maps) if plan.is_tuple else maps[0]
    return (signed, delta) if call.get("return_convergence_delta") else signed


def layer_maps(method: Any, host: Any, call: Mapping[str, Any], plan: Plan, *, paired: bool, rule: Any = None) -> Any:
    """The map of one layer (or a list of them), and the delta if it is asked for."""
    several = isinstance(host.layer, (list, tuple, nn.ModuleList))
    layers = list(host.layer) if several else [host.layer]
    side = "input" if call.get("attribute_to_layer_input") else "output"
    names = [str(number) for number in range(len(layers))]
    places = {name: (layer, side) for name, layer in zip(names, layers, strict=True)}
    comparison = _comparison(method, explained(host, call, plan), plan, rule, places)
    maps, delta = _against_all(
        method, comparison, call, plan, lambda pulled: [pulled.layers[name] for name in names], paired=paired
    )
    signed = maps if several else maps[0]
    if not call.get("return_convergence_delta"):
        return signed
    return signed, ([delta] * len(maps) if several else delta)


def explained(host: Any, call: Mapping[str, Any], plan: Plan) -> Callable[..., Tensor]:
    """Inputs to the explained value u [B] of every (copy of a) sample."""
    extra = extra_arguments(call)

    def value(*inputs: Tensor) -> Tensor:
        scores = as_columns(logits_of(host.forward_func(*inputs, *extra)))
        return select(scores, plan.target())  # chosen in the first call, or before

    return value


def neuron_value(host: Any, call: Mapping[str, Any]) -> Callable[..., Tensor]:
    """Inputs to the value of a neuron [B], as Captum's ``neuron_selector`` picks it."""
    extra = extra_arguments(call)
    side = "input" if call["attribute_to_neuron_input"] else "output"

    def value(*inputs: Tensor) -> Tensor:
        with Watch(host.layer, side, type(host.layer).__name__) as watch:
            host.forward_func(*inputs, *extra)
        return select_neuron(watch.last(), call["neuron_selector"])

    return value


def neuron_maps(method: Any, host: Any, call: Mapping[str, Any], plan: Plan, *, paired: bool) -> Any:
    """The map of every input for a neuron."""
    comparison = _comparison(method, neuron_value(host, call), plan, None)
    maps, _ = _against_all(method, comparison, call, plan, _of_every_input, paired=paired)
    return tuple(maps) if plan.is_tuple else maps[0]


def _of_every_input(pulled: Pulled) -> list[EntryRelevance]:
    """Relevance of every input; of token ids that of the embedding's output. Raises ValueError for an input without
    any.
    """
    found = [entry for entry in pulled.inputs if entry is not None]
    missing = [number for number, entry in enumerate(pulled.inputs) if entry is None]
    if missing:
        raise ValueError(
            f"input {missing[0]} has no relevance: it is neither floating point numbers nor the indices of an "
            "embedding; pass it in additional_forward_args"
        )
    return found


def captum_rules(model: Any) -> RuleOf | None:
    """The rules that a user put on modules as Captum's LRP reads them (``module.rule``), by the module's name.

    Raises:
        ValueError: a rule without a form for differences.
    """
    if not isinstance(model, nn.Module):
        return None
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        rule = getattr(module, "rule", None)
        if rule is None:
            continue
        if isinstance(rule, GammaRule):
            found[name] = Gamma(rule.gamma)
        elif isinstance(rule, Alpha1_Beta0_Rule):
            found[name] = ZPlus()
        elif isinstance(rule, IdentityRule) and isinstance(module, WEIGHTED):
            raise ValueError(
                f"{name} ({type(module).__name__}) has IdentityRule, which gives relevance to inputs that did not "
                "cause it; leave it out"
            )
        elif not isinstance(rule, EpsilonRule):
            raise ValueError(
                f"{name} ({type(module).__name__}) has the rule {type(rule).__name__}, which has no form for "
                "differences; use EpsilonRule, GammaRule or Alpha1_Beta0_Rule"
            )
    return (lambda name: found.get(name)) if found else None


def _comparison(
    method: Any,
    forward: Callable[..., Tensor],
    plan: Plan,
    rule: RuleOf | None,
    layers: Mapping[str, tuple[nn.Module, str]] | None = None,
) -> Comparison:
    model = method._model
    known = model if isinstance(model, nn.Module) else None
    return Comparison(forward, plan.inputs, rule=rule, layers=layers, model=known)


def _against_all(
    method: Any,
    comparison: Comparison,
    call: Mapping[str, Any],
    plan: Plan,
    read: Read,
    *,
    paired: bool,
) -> tuple[list[Tensor], Tensor]:
    """The mean over the references of the maps, and the delta of each: [B], of a distribution [B * R]."""
    u: Tensor = comparison.output
    seed = torch.ones_like(u)
    total: list[Tensor] = []
    deltas = []
    references = _references(method, call, plan, paired=paired)
    for reference in references:
        other = comparison.against(list(reference)).detach()
        pulled = comparison.pull(u, seed)
        entries = read(pulled)
        relevances = [entry.relevance for entry in entries]
        inputs = [entry.relevance for entry in pulled.inputs if entry is not None]
        error, is_conserved = conservation(inputs, u.detach(), other, seed, comparison.coarsest)
        if not is_conserved:
            raise RelevanceError(
                f"the map sums to another value than u(x) - u(r), by {float(error.max()):.1e} of it: the numbers "
                "overflow, or part "
                "of the model is not seen as torch operations; try float64, or AbsenceIntegratedGradients"
            )
        maps = _maps(method, call, entries, plan, reference)
        total = maps if not total else [have + new for have, new in zip(total, maps, strict=True)]
        deltas.append(sum(part.reshape(len(u), -1).sum(1) for part in relevances) - (u.detach() - other))
    return [part / len(references) for part in total], torch.stack(deltas, 1).flatten()


def _maps(
    method: Any, call: Mapping[str, Any], entries: list[EntryRelevance], plan: Plan, reference: tuple[Tensor, ...]
) -> list[Tensor]:
    custom = call.get("custom_attribution_func")
    if custom is not None:
        return list(custom(tuple(entry.multiplier for entry in entries), plan.inputs, reference))
    if not getattr(method, "multiplies_by_inputs", True):
        return [entry.multiplier for entry in entries]
    return [entry.relevance for entry in entries]


def _references(method: Any, call: Mapping[str, Any], plan: Plan, *, paired: bool) -> list[tuple[Tensor, ...]]:
    """One reference per sample, or all rows of a distribution for every sample."""
    given = call.get("baselines")
    if callable(given) and not isinstance(given, Tensor):
        given = given(*plan.inputs)
    if method._traits.distribution and not paired:
        parts = given if isinstance(given, tuple) else (given,)
        if any(not isinstance(part, Tensor) or part.dim() == 0 for part in parts):
            raise ValueError("baselines must be a tensor [R, ...] of references, one per input of the model")
        counts = {len(part) for part in parts}
        if len(counts) != 1:
            raise ValueError(f"baselines have {sorted(counts)} rows; every input needs the same number")
        rows = range(counts.pop())
        return [
            tuple(part[row].to(own).expand_as(own) for part, own in zip(parts, plan.inputs, strict=True))
            for row in rows
        ]
    found = expanded(0.0 if given is None else given, plan.inputs, paired=True)
    if found is None:
        raise ValueError(
            f"baselines must be a number, one image for all samples, or one per sample ({len(plan.inputs[0])})"
        )
    return [found]
