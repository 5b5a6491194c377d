"""How long will it take? Asked of the model itself before the work, and a bar that moves with every forward."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.durations import LONG, describe_time
from absence_plugins.core.folded_norms import watching_norms
from absence_plugins.core.hooks import counting
from absence_plugins.core.memory_layout import find_way
from absence_plugins.core.randomness import seeded
from absence_plugins.core.scores import logits_of
from absence_plugins.methods.ranks import is_first

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
    def measure(cls, model: Callable[[Tensor], Any], x: Tensor) -> Pace:
        """Of the model on x [1, ...]; the first forward, which warms up, does not count."""
        forward = time_forward(model, x.repeat(AT_ONCE, *[1] * (x.dim() - 1)))
        with torch.enable_grad():
            start = time.perf_counter()
            leaf = x.clone().requires_grad_(x.is_floating_point())
            outputs = logits_of(model(leaf * 1), samples=len(x))  # a copy: the model may write into its input
            if outputs.requires_grad and leaf.requires_grad:
                torch.autograd.grad(outputs.sum(), leaf, allow_unused=True)
        return cls(forward, time.perf_counter() - start)

    @classmethod
    def measure_forward(cls, run: Callable[[Tensor], Any], x: Tensor) -> Pace:
        """As :meth:`measure`, of what runs forward only."""
        return cls(time_forward(run, x.repeat(AT_ONCE, *[1] * (x.dim() - 1))), 0.0)

    def in_fast_way(self, model: nn.Module, x: Tensor, read: Callable[[nn.Module, Tensor], Tensor]) -> Pace:
        """The same of work whose forwards run as :func:`~absence_plugins.core.memory_layout.find_way` says; ``read``:
        model, images -> outputs [B, K, ...].
        """
        run = partial(read, model)
        with torch.no_grad(), watching_norms() as seen:
            outputs = run(x)
        way = find_way(model, x, outputs, run, seen)
        return replace(self, forward=time_forward(partial(way.read, run), x.repeat(AT_ONCE, *[1] * (x.dim() - 1))))

    def seconds(self, passes: Passes, count: int = 1) -> float:
        """Of ``count`` images.

        >>> Pace(1.0, 3.0).seconds(Passes(2, 1), 10)
        50.0
        """
        return count * (passes.forward * self.forward + passes.backward * self.backward)


def time_forward(run: Callable[[Tensor], Any], batch: Tensor) -> float:
    """Seconds of one image's forward in a batch [B, ...]; a first forward, which warms up, does not count."""
    with torch.no_grad():
        run(batch[:1].clone())
        start = time.perf_counter()
        run(batch.clone())
        return (time.perf_counter() - start) / len(batch)


@contextmanager
def estimating() -> Iterator[None]:
    """Leave no trace: random states are as before, and what warns or fails in the block is left to the work itself,
    which says it in its own words.
    """
    with suppress(Exception), seeded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def say_line(line: str) -> None:
    """One line on stderr, also with ``--quiet``. Of several ranks the first says it."""
    if is_first():
        tqdm.write(line, file=sys.stderr)


def say_expected(seconds: float, what: str, shorter: Sequence[str]) -> None:
    """One line on stderr, before the work; above a minute with the options that shorten it. Of several ranks the first
    says it.
    """
    if not is_first():
        return
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
