"""Checks of arguments that many functions share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from absence_plugins.core.nearest import describe_nearest

FEW = 6  # words that a message lists; of more, the nearest


class NotAnIntegerError(TypeError, ValueError):
    """An argument of the wrong type; callers that expect a ``ValueError`` for bad numbers catch it as well."""


def check_integer(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as an ``int`` of at least ``least``.

    Anything with ``__index__`` counts as an integer (NumPy's, tensors of one integer), a boolean does not.

    Args:
        name: of the argument, or of an option with its dashes, for the message.
        value: what was passed.
        least: the smallest allowed value.

    Raises:
        NotAnIntegerError: a ``TypeError`` and a ``ValueError``: no integer.
        ValueError: less than ``least``.

    >>> check_integer("rounds", 3)
    3
    >>> check_integer("--top", 0)
    Traceback (most recent call last):
    ValueError: --top 0 must be at least 1
    >>> check_integer("k", 2.5)
    Traceback (most recent call last):
    absence_plugins.core.checks.NotAnIntegerError: k=2.5 must be an integer, at least 1
    """
    shown = f"{name} {value!r}" if name.startswith("-") else f"{name}={value!r}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise NotAnIntegerError(f"{shown} must be an integer, at least {least}")
    try:
        number = int(value.__index__())
    except TypeError:  # a tensor of floats, or of several numbers
        raise NotAnIntegerError(f"{shown} must be an integer, at least {least}") from None
    if number < least:
        raise ValueError(f"{shown} must be at least {least}")
    return number


def check_integers(least: int = 1, **values: Any) -> None:
    """Check several arguments by name with :func:`check_integer`.

    >>> check_integers(k=1, size=0)
    Traceback (most recent call last):
    ValueError: size=0 must be at least 1
    """
    for name, value in values.items():
        check_integer(name, value, least)


def check_choice(name: str, value: Any, known: Iterable[Any]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of the known ones.

    >>> check_choice("view", "target", ("nontarget", "reference"))
    Traceback (most recent call last):
    ValueError: view='target' must be one of nontarget, reference
    """
    known = tuple(known)
    if value not in known:
        shown = f"{name} {value!r}" if name.startswith("-") else f"{name}={value!r}"
        words = ", ".join(map(str, known)) if len(known) <= FEW else describe_nearest(str(value), map(str, known))
        raise ValueError(f"{shown} must be one of {words}")
