"""One operation of the graph as both passes met it, and the registry of secants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Place = tuple[int | str, ...]  # where an operand stands: (1,), ("weight",), or (0, 2) for the third tensor of a list
Multiplier = Tensor | tuple[Tensor | None, ...]  # one per output tensor; None where no relevance arrives
Pull = Callable[[Multiplier], tuple[Tensor | None, ...]]  # multipliers of the outputs -> one per varying operand


class RelevanceError(ValueError):
    """An operation or a network that relevance of differences cannot be computed for, and what to do."""


@dataclass(frozen=True)
class Operation:
    """One call of a torch function on x's pass and its counterpart on r's pass. All tensors are detached."""

    name: str  # canonical: "mul" for torch.mul, Tensor.mul, mul_, __mul__, __imul__
    function: Callable[..., Any]  # the out-of-place torch function; function(*args, **kwargs) gives output again
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    other_args: tuple[Any, ...]
    other_kwargs: dict[str, Any]
    output: Any  # a tensor, or a tuple of tensors
    other_output: Any
    varying: tuple[Place, ...]  # the operands that depend on the input, in order
    rule: Any = None  # of a weighted operation: the redistribution in force, None for Epsilon
    reciprocal: Place | None = None  # of a product: the operand that is known to be rsqrt or reciprocal of something

    def operand(self, place: Place) -> Tensor:
        """An operand of x's call."""
        found: Tensor = _at(self.args, self.kwargs, place)
        return found

    def other_operand(self, place: Place) -> Tensor:
        """The same operand of r's call."""
        found: Tensor = _at(self.other_args, self.other_kwargs, place)
        return found


def _at(args: tuple[Any, ...], kwargs: dict[str, Any], place: Place) -> Any:
    first, *rest = place
    value = kwargs[first] if isinstance(first, str) else args[first]
    for index in rest:
        value = value[index]
    return value


Secant = Callable[[Operation], Pull]
SECANTS: dict[str, Secant] = {}


def secant(*names: str) -> Callable[[Secant], Secant]:
    """Register how the multipliers of these operations are pulled back; registration buys the generic tests."""

    def register(rule: Secant) -> Secant:
        for name in names:
            if name in SECANTS:
                raise ValueError(f"the operation {name!r} has a secant already")
            SECANTS[name] = rule
        return rule

    return register
