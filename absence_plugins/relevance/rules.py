"""Redistribution rules by name, and which one is in force in a module."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from absence_plugins.relevance.secants.redistribution import AlphaBeta, Gamma, Redistribution, Spread, Stabilized, ZPlus

# The name of a module -> its rule; None: that of the module around it, Epsilon where none has one.
RuleOf = Callable[[str], "Redistribution | Literal['epsilon'] | None"]
RULES: dict[str, Callable[[], Redistribution | None]] = {
    "epsilon": lambda: None,
    "gamma": Gamma,
    "zplus": ZPlus,
    "alpha_beta": AlphaBeta,
}
LOWER = {"lower_gamma": Gamma, "lower_zplus": ZPlus}  # in the lower part of the network only
LOWER_SHARE = 0.2  # of the weighted layers; measured on a trained network of 50 layers (docs/relevance.md)
CONVOLUTIONS = nn.modules.conv._ConvNd


def as_rule(rule: Any) -> Redistribution | None:
    """A rule from its name, or the rule itself; None is Epsilon.

    Raises:
        ValueError: the name is not known.

    >>> as_rule("gamma"), as_rule("epsilon")
    (Gamma(gamma=0.25), None)
    """
    if isinstance(rule, str):
        if rule not in RULES:
            known = [*RULES, *LOWER]
            raise ValueError(f"rule={rule!r} is not known: use one of {known}, or a rule such as Gamma(0.5)")
        return RULES[rule]()
    if rule is not None and not hasattr(rule, "parts"):
        raise ValueError(f"rule={rule!r} must be a name ({list(RULES)}), a rule with parts(p, n), or None for Epsilon")
    return rule  # type: ignore[no-any-return]


def rule_of_modules(rule: Any, model: Any = None) -> RuleOf | None:
    """``rule`` of :func:`relevance` as a function of module names; None if every rule is Epsilon.

    >>> rule_of_modules(lambda name: "zplus" if name == "head" else None)("head")
    ZPlus()
    """
    if isinstance(rule, str) and rule in LOWER:
        return lower_part(model, LOWER[rule]())
    if callable(rule) and not hasattr(rule, "parts"):
        return lambda name: as_rule(rule(name))
    fixed = as_rule(rule)
    return None if fixed is None else lambda _name: fixed


def lower_part(model: Any, rule: Redistribution, share: float = LOWER_SHARE) -> RuleOf:
    """A rule for the convolutions among the first weighted layers of a model; Epsilon above them.

    Near the input Gamma and ZPlus take away the contributions that cancel inside one channel, which are most of the
    gross relevance of a deep network; further up they would also take the evidence against the winning side.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(2, 2))
    >>> [lower_part(net, Gamma())(name) for name in ("0", "2", "4")]
    [Gamma(gamma=0.25), None, None]
    """
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    weighted = [(name, one) for name, one in modules if isinstance(one, (CONVOLUTIONS, nn.Linear))]
    first = weighted[: math.ceil(share * len(weighted))]
    lower = {name for name, one in first if isinstance(one, CONVOLUTIONS)}
    return lambda name: rule if name in lower else None


def rule_in_force(rule: RuleOf | None, running: list[str]) -> Redistribution | None:
    """The rule of the innermost running module that has one."""
    if rule is None:
        return None
    for name in reversed(running):
        found = rule(name)
        if found == "epsilon":
            return None
        if found is not None:
            return found
    return None


def is_spread(rule: Redistribution | None) -> bool:
    """Whether a rule is Flat or WSquare, which have no multiplier."""
    return isinstance(rule.rule if isinstance(rule, Stabilized) else rule, Spread)


def as_epsilon(rule: Redistribution | None) -> Redistribution | None:
    """Epsilon in place of a rule; its stabilizer stays."""
    return replace(rule, rule=None) if isinstance(rule, Stabilized) else None
