"""Secants of functions that are chains of others: each step with its own secant, pulled back in reverse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from absence_plugins.relevance.operation import SECANTS, Operation, Place, Pull
from absence_plugins.relevance.secants.arguments import Argument
from absence_plugins.relevance.secants.arithmetic import vjp


@dataclass(frozen=True, eq=False)
class Pair:
    """A value of x's pass and its counterpart of r's pass."""

    value: Tensor
    other: Tensor


class Tape:
    """Records steps on pairs; tensors that are not pairs are constants.

    >>> import torch
    >>> from absence_plugins.relevance.secants import products
    >>> tape, a = Tape(), Pair(torch.tensor(3.0), torch.tensor(1.0))
    >>> y = tape.call("mul", torch.mul, a, a)
    >>> tape.pull({y: torch.tensor(1.0)}, [a])  # 3 * 3 - 1 * 1 = 4 (3 - 1)
    [tensor(4.)]
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Pull, tuple[Pair, ...], Pair]] = []

    def call(self, name: str, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Pair:
        """A step with a registered secant and one output."""
        named: list[tuple[Place, Any]] = [((i,), a) for i, a in enumerate(args)]
        named += [((key,), a) for key, a in kwargs.items()]
        pairs = {place: a for place, a in named if isinstance(a, Pair)}

        def of(part: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
            def pick(a: Any) -> Any:
                return getattr(a, part) if isinstance(a, Pair) else a

            return tuple(pick(a) for a in args), {key: pick(a) for key, a in kwargs.items()}

        (here, keywords), (there, other_keywords) = of("value"), of("other")
        output = Pair(function(*here, **keywords), function(*there, **other_keywords))
        operation = Operation(
            name, function, here, keywords, there, other_keywords, output.value, output.other, tuple(pairs)
        )
        self._steps.append((SECANTS[name](operation), tuple(pairs.values()), output))
        return output

    def linear(self, function: Callable[..., Tensor], *pairs: Pair) -> Pair:
        """A step that is linear in all of its operands together."""
        values = [pair.value for pair in pairs]
        output = Pair(function(*values), function(*(pair.other for pair in pairs)))
        self._steps.append((lambda m: tuple(vjp(function, values, m)), pairs, output))
        return output

    def pull(self, multipliers: Mapping[Pair, Tensor], inputs: Sequence[Pair]) -> list[Tensor | None]:
        """Multipliers of the outputs -> of the inputs."""
        found = dict(multipliers)
        for pull, operands, output in reversed(self._steps):
            m = found.pop(output, None)
            if m is None:
                continue
            for operand, given in zip(operands, pull(m), strict=True):
                if given is not None:
                    found[operand] = found[operand] + given if operand in found else given
        return [found.get(pair) for pair in inputs]


def pair_of(argument: Argument) -> Any:
    """A pair where the argument depends on the input, else its value."""
    return Pair(argument.value, argument.other) if argument.varies else argument.value
