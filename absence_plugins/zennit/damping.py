"""Norm with a stabilizer: an operation of its own behind a module, which hands the output through and absorbs
relevance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from absence_plugins.relevance.operation import Multiplier, Operation, Pull, secant
from absence_plugins.relevance.secants.arithmetic import quotient


class _Damped:
    """y = a, seen by the relevance engine as an operation; without the engine it is the value itself."""

    __name__ = "zennit_damped"

    def __call__(self, value: Tensor, stabilizer: Callable[[Tensor], Tensor]) -> Tensor:
        if has_torch_function_unary(value):
            result: Tensor = handle_torch_function(self, (value,), value, stabilizer)
            return result
        return value.clone()


damped = _Damped()


class _Pull:
    """m dy / stabilizer(dy); the rest of m dy is ``absorbed``."""

    def __init__(self, change: Tensor, stabilizer: Callable[[Tensor], Tensor]) -> None:
        self._change, self._passed = change, quotient(change, stabilizer(change))
        self.absorbed: Tensor | None = None

    def __call__(self, multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        assert isinstance(multiplier, Tensor)
        self.absorbed = multiplier * (1 - self._passed) * self._change
        return (multiplier * self._passed,)


@secant("zennit_damped")
def absorb(op: Operation) -> Pull:
    """The secant of the identity, less what the stabilizer absorbs."""
    stabilizer: Any = op.args[1]
    return _Pull(op.output - op.other_output, stabilizer)
