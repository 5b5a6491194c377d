"""Redistribution rules by name, and which one is in force in a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from absence_plugins.relevance.secants.redistribution import AlphaBeta, Gamma, Redistribution, Spread, Stabilized, ZPlus

RuleOf = Callable[[str], "Redistribution | None"]  # the name of a module -> its rule, None for Epsilon
RULES: dict[str, Callable[[], Redistribution | None]] = {
    "epsilon": lambda: None,
    "gamma": Gamma,
    "zplus": ZPlus,
    "alpha_beta": AlphaBeta,
}


def as_rule(rule: Any) -> Redistribution | None:
    """A rule from its name, or the rule itself; None is Epsilon.

    Raises:
        ValueError: the name is not known.

    >>> as_rule("gamma"), as_rule("epsilon")
    (Gamma(gamma=0.25), None)
    """
    if isinstance(rule, str):
        if rule not in RULES:
            raise ValueError(f"rule={rule!r} is not known: use one of {list(RULES)}, or a rule such as Gamma(0.5)")
        return RULES[rule]()
    if rule is not None and not hasattr(rule, "parts"):
        raise ValueError(f"rule={rule!r} must be a name ({list(RULES)}), a rule with parts(p, n), or None for Epsilon")
    return rule  # type: ignore[no-any-return]


def rule_of_modules(rule: Any) -> RuleOf | None:
    """``rule`` of :func:`relevance` as a function of module names; None if every rule is Epsilon.

    >>> rule_of_modules(lambda name: "zplus" if name == "head" else None)("head")
    ZPlus()
    """
    if callable(rule) and not hasattr(rule, "parts"):
        return lambda name: as_rule(rule(name))
    fixed = as_rule(rule)
    return None if fixed is None else lambda _name: fixed


def rule_in_force(rule: RuleOf | None, running: list[str]) -> Redistribution | None:
    """The rule of the innermost running module that has one."""
    if rule is None:
        return None
    for name in reversed(running):
        found = rule(name)
        if found is not None:
            return found
    return None


def is_spread(rule: Redistribution | None) -> bool:
    """Whether a rule is Flat or WSquare, which have no multiplier."""
    return isinstance(rule.rule if isinstance(rule, Stabilized) else rule, Spread)


def as_epsilon(rule: Redistribution | None) -> Redistribution | None:
    """Epsilon in place of a rule; its stabilizer stays."""
    return replace(rule, rule=None) if isinstance(rule, Stabilized) else None
