"""Checks of arguments that many functions share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from absence_plugins.core.nearest import describe_nearest

LARGEST, LARGEST_SEED = 2**31 - 1, 2**63 - 1
LONG = 60  # characters of a value in a message
MOST_WORKERS = 512
FEW = 6  # words that a message lists; of more, the nearest


class NotAnIntegerError(TypeError, ValueError):
    """An argument of the wrong type; callers that expect a ``ValueError`` for bad numbers catch it as well."""


def check_integer(name: str, value: Any, least: int = 1, most: int = LARGEST) -> int:
    """Return ``value`` as an ``int`` between ``least`` and ``most``.

    Anything with ``__index__`` counts as an integer (NumPy's, tensors of one integer), a boolean does not.

    Args:
        name: of the argument, or of an option with its dashes, for the message.
        value: what was passed.
        least: the smallest allowed value.
        most: the largest; by default what 32 bits hold.

    Raises:
        NotAnIntegerError: a ``TypeError`` and a ``ValueError``: no integer.
        ValueError: less than ``least``, more than ``most``.

    >>> check_integer("rounds", 3)
    3
    >>> check_integer("--top", 0)
    Traceback (most recent call last):
    ValueError: --top 0 must be at least 1
    >>> check_integer("k", 2.5)
    Traceback (most recent call last):
    absence_plugins.core.checks.NotAnIntegerError: k=2.5 must be an integer, at least 1
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise NotAnIntegerError(f"{_show(name, value)} must be an integer, at least {least}")
    try:
        number = int(value.__index__())
    except TypeError:  # a tensor of floats, or of several numbers
        raise NotAnIntegerError(f"{_show(name, value)} must be an integer, at least {least}") from None
    if number < least:
        raise ValueError(f"{_show(name, value)} must be at least {least}")
    if number > most:
        raise ValueError(f"{_show(name, value)} must be at most {most:,}")
    return number


def check_seed(value: Any, name: str = "seed") -> int:
    """Return the seed of a random generator: an integer of at least 0 that 63 bits hold.

    >>> check_seed(-1)
    Traceback (most recent call last):
    ValueError: seed=-1 must be at least 0
    """
    return check_integer(name, value, 0, LARGEST_SEED)


def check_running(seed: Any, workers: Any, save_every: Any) -> None:
    """Check what long work has in common.

    Raises:
        ValueError: a seed below 0, fewer than 0 or more than 512 workers, a negative time between two saves.

    >>> check_running(0, -1, 60.0)
    Traceback (most recent call last):
    ValueError: workers=-1 must be at least 0
    """
    check_seed(seed)
    check_integer("workers", workers, 0, MOST_WORKERS)
    check_number("save_every", save_every, 0)


def check_number(
    name: str, value: Any, least: float = -math.inf, most: float = math.inf, above: float | None = None
) -> float:
    """Return ``value`` as a finite ``float`` in a range.

    Args:
        name: as for :func:`check_integer`.
        value: a number or a tensor of one; no boolean, no text.
        least: the smallest allowed value.
        most: the largest.
        above: what it must exceed.

    Raises:
        NotAnIntegerError: a ``TypeError`` and a ``ValueError``: no number.
        ValueError: NaN, infinite, or out of range.

    >>> check_number("holdout", 0.5, 0, 1), check_number("alpha", 1, above=0)
    (0.5, 1.0)
    >>> check_number("--std", float("nan"), above=0)
    Traceback (most recent call last):
    ValueError: --std nan must be a finite number above 0
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise NotAnIntegerError(f"{_show(name, value)} must be a number{_range(least, most, above)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{_show(name, value)} must be a finite number{_range(least, most, above)}")
    if not least <= number <= most or (above is not None and number <= above):
        raise ValueError(f"{_show(name, value)} must be{_range(least, most, above)}")
    return number


def _range(least: float, most: float, above: float | None) -> str:
    if math.isfinite(least) and math.isfinite(most):
        return f" between {least:g} and {most:g}"
    low = f" above {above:g}" if above is not None else f" at least {least:g}" if math.isfinite(least) else ""
    high = f" at most {most:g}" if math.isfinite(most) else ""
    return f"{low} and{high}" if low and high else low or high


def check_distinct(name: str, values: Iterable[Any], least: int = 0) -> list[int]:
    """Return integers of which none comes twice and none is missing.

    Raises:
        ValueError: none, one that comes twice, one below ``least``.
        NotAnIntegerError: one that is no integer.

    >>> check_distinct("units", [3, 0])
    [3, 0]
    >>> check_distinct("units", [3, 0, 3])
    Traceback (most recent call last):
    ValueError: units names 3 twice; name each once
    """
    numbers = [check_integer(f"{name}[{place}]", value, least) for place, value in enumerate(values)]
    if not numbers:
        raise ValueError(f"{name} is empty; name at least one, or leave it out")
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    if twice:
        raise ValueError(f"{name} names {twice[0]} twice; name each once")
    return numbers


def _show(name: str, value: Any) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= LONG else f"{shown[:LONG]}..."
    return f"{name} {shown}" if name.startswith("-") else f"{name}={shown}"


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
        words = ", ".join(map(str, known)) if len(known) <= FEW else describe_nearest(str(value), map(str, known))
        raise ValueError(f"{_show(name, value)} must be one of {words}")
