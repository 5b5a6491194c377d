"""Exact products of whole numbers with truth vectors, in the digits that the processor multiplies fastest.

A whole number is written with signed digits of base 256, so that one product of 8-bit integers, with 32-bit sums, is
made per digit; ranks of a million samples have three. On processors with instructions for it that is several times
faster than one product in float64, and as exact. Where it is not, float64 multiplies: count and sum of a formula
together, in the upper and lower digits of one number, where both fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

WIDEST = 2**23  # samples of one product: 128 times that is below 2^31


def split_digits(numbers: Tensor) -> Tensor:
    """Whole numbers [U, n] as signed digits, int8 [D, U, n], the lowest first.

    >>> split_digits(torch.tensor([[1000.0, -1.0]])).tolist()
    [[[-24, -1]], [[4, 0]]]
    """
    most = float(numbers.abs().max()) if numbers.numel() else 0.0
    count = next(d for d in range(1, 8) if most <= 127 * (256**d - 1) // 255)
    whole = numbers.to(torch.int32 if count < 4 else torch.int64)
    whole += 128 * (256**count - 1) // 255  # digits from 0 to 255
    size = whole.element_size()
    pieces = whole.contiguous().view(torch.uint8).view(*whole.shape, size)
    return (pieces.permute(2, 0, 1)[:count] ^ 128).contiguous().view(torch.int8)


def multiply_digits(digits: Tensor, truths: Tensor) -> Tensor:
    """Numbers in digits int8 [D, M, n] times truth vectors int8 [J, n] of 0 and 1: float64 [M, J], exact."""
    count, rows, n = digits.shape
    made = torch.zeros(rows, len(truths), dtype=torch.int64, device=digits.device)
    for at in range(0, n, WIDEST):
        left, right = digits[:, :, at : at + WIDEST], truths[:, at : at + WIDEST]
        product = torch._int_mm(left.reshape(count * rows, -1), right.T).view(count, rows, len(truths))
        for d, part in enumerate(product):
            made += part.long() << (8 * d)
    return made.double()


@dataclass(frozen=True, eq=False)
class Truths:
    """Truth vectors over some samples, and what they are multiplied with.

    Attributes:
        part: which samples.
        columns: int8 [J, n] of 0 and 1.
    """

    part: slice
    columns: Tensor

    @cached_property
    def wide(self) -> Tensor:
        """The columns in float64."""
        return self.columns.double()

    def after(self, start: int) -> Truths:
        """The columns from ``start`` on."""
        return self if start == 0 else Truths(self.part, self.columns[start:])

    def multiply(self, numbers: Tensor, *, is_whole: bool) -> Tensor:
        """Numbers float64 [M, n] times the columns: [M, J]."""
        if is_whole and multiplies_digits(self.columns.device):
            return multiply_digits(split_digits(numbers), self.columns)
        return numbers @ self.wide.T

    def multiply_shared(self, chosen: slice, numbers: Tensor, *, is_whole: bool) -> Tensor:
        """Sums of numbers float64 [n] where one of the chosen columns and a column hold: [chosen, J]."""
        if is_whole and multiplies_digits(self.columns.device):
            return multiply_digits(split_digits(numbers[None]) & -self.columns[chosen], self.columns)
        return (self.wide[chosen] * numbers) @ self.wide.T

    @staticmethod
    def _spread(numbers: Tensor, owner: Tensor) -> Tensor:
        """Digits of the owners' numbers [D, M, n]."""
        return split_digits(numbers).index_select(1, owner)

    def multiply_rows(self, chosen: Tensor, numbers: Tensor, owner: Tensor) -> Tensor:
        """Sums of whole numbers float64 [U, n], those of ``owner`` [M], where column ``chosen`` [M] and a column hold:
        [M, J].
        """
        if multiplies_digits(self.columns.device):
            return multiply_digits(
                self._spread(numbers, owner).bitwise_and_(-self.columns.index_select(0, chosen)), self.columns
            )
        return (self.wide[chosen] * numbers[owner]) @ self.wide.T

    def multiply_masked(
        self, holds: Tensor, weight: Tensor, numbers: Tensor, owner: Tensor, *, is_whole: bool
    ) -> tuple[Tensor, Tensor]:
        """Of formulas and columns: the weight of the samples on which both hold, and their sum of numbers, [M, J] each.

        Args:
            holds: bool [M, n].
            weight: float64 [n], whole.
            numbers: float64 [U, n].
            owner: [M], whose numbers.
            is_whole: whether the numbers are whole; sums are then exact.
        """
        if is_whole and multiplies_digits(self.columns.device):
            mask = -holds.char()
            count = multiply_digits(split_digits(weight[None]) & mask, self.columns)
            return count, multiply_digits(self._spread(numbers, owner).bitwise_and_(mask), self.columns)
        own, counted = numbers[owner] * holds, holds * weight
        reach = float(own.abs().sum(1).max()) if is_whole and len(own) else math.inf
        scale = 2.0 ** math.ceil(math.log2(2 * reach + 2)) if math.isfinite(reach) else math.inf
        if float(weight.sum()) * scale >= 2.0**52:
            return counted @ self.wide.T, own @ self.wide.T
        both = (counted * scale + own) @ self.wide.T  # in the digits of one product
        count = (both / scale).round()
        return count, both - count * scale


def with_ones(values: Tensor) -> Tensor:
    """Truth vectors [J, n] bool as int8 [J + 1, n], the last one 1."""
    made = torch.ones(len(values) + 1, values.shape[1], dtype=torch.int8, device=values.device)
    made[:-1] = values
    return made


def multiplies_digits(device: torch.device) -> bool:
    """Whether products of 8-bit integers are right there, and faster than those of float64."""
    return device.type == "cpu" and _try_digits()


@cache
def _try_digits() -> bool:
    generator = torch.Generator().manual_seed(0)
    left = torch.randint(-128, 128, (1, 96, 2**12), dtype=torch.int8, generator=generator)
    right = torch.randint(0, 2, (200, 2**12), dtype=torch.int8, generator=generator)
    wide, wanted = (left[0].double(), right.double().T), left[0].double() @ right.double().T
    try:
        if not torch.equal(multiply_digits(left, right), wanted):
            return False
        multiplied = _fastest(lambda: multiply_digits(left, right))
    except (AttributeError, NotImplementedError, RuntimeError):  # this torch has no such product on the CPU
        return False
    return multiplied < _fastest(lambda: wide[0] @ wide[1])


def _fastest(call: Callable[[], Tensor]) -> float:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)
