"""The global random states: kept, and put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from absence_plugins.core.interrupts import guarding


class RandomStates:
    """The states of all global generators: Python's, NumPy's where it is loaded, torch's on CPU and GPUs in use.

    >>> before = RandomStates()
    >>> first = torch.rand(())
    >>> before.restore()
    >>> bool(torch.rand(()) == first)
    True
    """

    def __init__(self) -> None:
        self.states: Any = None
        self.keep()

    def keep(self) -> None:
        """Remember the present states."""
        numpy = sys.modules.get("numpy")
        numpy_state = None if numpy is None else numpy.random.get_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        self.states = random.getstate(), numpy_state, torch.get_rng_state(), cuda

    def restore(self) -> None:
        """Set the generators to the remembered states."""
        own, numpy_state, torch_state, cuda = self.states
        random.setstate(own)
        if numpy_state is not None:
            sys.modules["numpy"].random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def seeded(seed: int | None = None) -> Iterator[None]:
    """Draw from ``seed`` inside the block (None: from the present states); afterwards all states are as before.

    >>> with seeded(1):
    ...     first = float(torch.rand(())), random.random()
    >>> with seeded(1):
    ...     first == (float(torch.rand(())), random.random())
    True
    """
    with guarding():
        before = RandomStates()
        try:
            _seed(seed, before)
            yield
        finally:
            before.restore()


def _seed(seed: int | None, before: RandomStates) -> None:
    if seed is not None:
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        if before.states[-1] is not None:  # a GPU that is not in use yet stays so
            torch.cuda.manual_seed_all(seed)
