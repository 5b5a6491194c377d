"""Every secant: exact, symmetric in x and r, finite; at random, near, equal and large operands, in two precisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from secant_examples import EXAMPLES, Example, Operand, draw
from torch import Tensor

import absence_plugins.relevance.secants
from absence_plugins.relevance.operation import SECANTS, Operation, Place

assert absence_plugins.relevance.secants
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
MODES = ("apart", "near", "nearer", "equal", "mixed", "large", "small")


def _resolve(argument: Any, generator: torch.Generator, dtype: torch.dtype, mode: str) -> tuple[Any, Any]:
    """The argument for x and for r."""
    if isinstance(argument, list):
        pairs = [_resolve(part, generator, dtype, mode) for part in argument]
        return [a for a, _ in pairs], [b for _, b in pairs]
    if not isinstance(argument, Operand):
        return argument, argument
    a = draw(argument, generator, dtype)
    if not argument.varies:
        return a, a
    other = draw(argument, generator, dtype)
    if argument.domain in ("any", "rectified", "positive") and mode in ("large", "small"):
        scale = 30.0 if mode == "large" else 1e-6
        return a * scale, other * scale
    distance = {"near": 1e-4, "nearer": 1e-9 if dtype == torch.float64 else 1e-6}.get(mode)
    close = a * (1 + (distance or 0) * torch.tanh(other))
    if mode in ("near", "nearer"):
        return a, close
    if mode == "equal":
        return a, a.clone()
    if mode == "mixed":
        choice = torch.rand(a.shape, generator=generator)
        other = torch.where(choice < 0.3, a, torch.where(choice < 0.6, a * (1 + 1e-7 * torch.tanh(other)), other))
    return a, other


def _places(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Place, ...]:
    found: list[Place] = []
    for key, argument in [*enumerate(args), *kwargs.items()]:
        if isinstance(argument, Operand) and argument.varies:
            found.append((key,))
        if isinstance(argument, list):
            found += [(key, i) for i, part in enumerate(argument) if isinstance(part, Operand) and part.varies]
    return tuple(found)


def build(name: str, call: Example, seed: int, dtype: torch.dtype, mode: str) -> Operation:
    generator = torch.Generator().manual_seed(seed)
    args, other_args = zip(*(_resolve(a, generator, dtype, mode) for a in call.args), strict=True)
    keywords = {k: _resolve(a, generator, dtype, mode) for k, a in call.kwargs.items()}
    kwargs, other_kwargs = {k: a for k, (a, _) in keywords.items()}, {k: b for k, (_, b) in keywords.items()}
    with torch.no_grad():
        output, other_output = call.function(*args, **kwargs), call.function(*other_args, **other_kwargs)
    return Operation(
        name, call.function, args, kwargs, other_args, other_kwargs, output, other_output, _places(call.args, call.kwargs)
    )  # fmt: skip


def exchanged(op: Operation) -> Operation:
    return replace(
        op, args=op.other_args, kwargs=op.other_kwargs, other_args=op.args, other_kwargs=op.kwargs,
        output=op.other_output, other_output=op.output,
    )  # fmt: skip


def _multipliers(outputs: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed + 1)

    def one(t: Tensor) -> Tensor | None:
        return (
            torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)
            if t.is_floating_point()
            else None
        )

    return tuple(one(t) for t in outputs) if isinstance(outputs, (tuple, list)) else one(outputs)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def check(op: Operation, seed: int, tolerance: float) -> None:
    m = _multipliers(op.output, seed)
    outputs = list(zip(_listed(m), _listed(op.output), _listed(op.other_output), strict=True))
    found = SECANTS[op.name](op)(m)
    assert len(found) == len(op.varying)
    total = gross = torch.zeros((), dtype=torch.float64)
    for place, given_back in zip(op.varying, found, strict=True):
        assert given_back is not None
        a, other = op.operand(place), op.other_operand(place)
        assert given_back.shape == a.shape
        assert given_back.dtype == a.dtype
        assert given_back.isfinite().all()
        part = given_back.double() * (a.double() - other.double())
        total, gross = total + part.sum(), gross + part.abs().sum()
    want = torch.zeros((), dtype=torch.float64)
    for multiplier, y, other_y in outputs:
        if multiplier is not None:
            want = want + (multiplier.double() * (y.double() - other_y.double())).sum()
            gross = gross + (multiplier.double().abs() * (y.double().abs() + other_y.double().abs())).sum()
    assert abs(total - want) <= tolerance * gross, (float(total), float(want), float(gross))
    for one, two in zip(found, SECANTS[op.name](exchanged(op))(m), strict=True):
        assert torch.equal(one, two)


def test_every_secant_has_an_example() -> None:
    own = [name for name, rule in SECANTS.items() if rule.__module__.startswith("absence_plugins.relevance.")]
    assert sorted(EXAMPLES) == sorted(own)  # an adapter may register operations of its own


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), mode=st.sampled_from(MODES))
def test_exact_and_symmetric(name: str, dtype: torch.dtype, seed: int, mode: str) -> None:
    for call in EXAMPLES[name]:
        op = build(name, call, seed, dtype, mode)
        reached = [*_listed(op.output), *_listed(op.other_output)]
        if name == "pow":  # its way leads over the other base with this exponent, and the reverse; with room for a sum
            crossed = torch.pow(op.args[0], op.other_args[1]), torch.pow(op.other_args[0], op.args[1])
            reached = [1e6 * t for t in (*reached, *crossed)]
        if all(t.isfinite().all() for t in reached):
            check(op, seed, TOLERANCE[dtype])
