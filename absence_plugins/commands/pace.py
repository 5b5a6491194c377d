"""How long will it take? Asked of the model itself before the work, and a bar that moves with every forward."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.durations import LONG, describe_time
from absence_plugins.core.hooks import counting
from absence_plugins.core.scores import logits_of

AT_ONCE = 4  # images in a forward


@dataclass(frozen=True)
class Passes:
    """How often one image goes through the model: ``forward`` alone, and ``backward``: forward and backward.

    >>> Passes(2, 1) + Passes(1, 1)
    Passes(forward=3, backward=2)
    """

    forward: int
    backward: int

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward)

    @property
    def total(self) -> int:
        """Forwards of one image in all."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Pace:
    """Seconds of one image's forward, and of its forward and backward."""

    forward: float
    backward: float

    @classmethod
    def measure(cls, model: nn.Module, x: Tensor) -> Pace:
        """Of the model on x [1, ...]; the first forward, which warms up, does not count."""
        with torch.no_grad():
            model(x.clone())
            start = time.perf_counter()
            model(x.repeat(AT_ONCE, *[1] * (x.dim() - 1)))
            forward = (time.perf_counter() - start) / AT_ONCE
        with torch.enable_grad():
            start = time.perf_counter()
            leaf = x.clone().requires_grad_(x.is_floating_point())
            outputs = logits_of(model(leaf * 1), samples=len(x))  # a copy: the model may write into its input
            if outputs.requires_grad and leaf.requires_grad:
                torch.autograd.grad(outputs.sum(), leaf, allow_unused=True)
        return cls(forward, time.perf_counter() - start)

    def seconds(self, passes: Passes, count: int = 1) -> float:
        """Of ``count`` images.

        >>> Pace(1.0, 3.0).seconds(Passes(2, 1), 10)
        50.0
        """
        return count * (passes.forward * self.forward + passes.backward * self.backward)


def say_expected(seconds: float, what: str, shorter: Sequence[str]) -> None:
    """One line on stderr, before the work; above a minute with the options that shorten it."""
    hint = f"; shorter with {', '.join(shorter)}" if seconds > LONG and shorter else ""
    tqdm.write(f"{what}: about {describe_time(seconds)}{hint}", file=sys.stderr)


@contextmanager
def show_forwards(model: nn.Module, total: int, what: str, *, progress: bool) -> Iterator[tqdm]:
    """A bar of the images that go through the model inside the block."""
    with tqdm(total=total, desc=what, unit="pass", disable=not progress) as bar:

        def tick(samples: int) -> None:
            if bar.total is not None and bar.n + samples > bar.total:
                bar.total = bar.n + samples  # more than was expected
            bar.update(samples)

        with counting(model, tick):
            yield bar
