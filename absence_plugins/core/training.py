"""Modules that act differently in training mode, and forwards that draw at random: found and named, in the same words.

A dropout draws another network at each forward, so a map is that of one draw; batch norm in training mode mixes the
samples of a batch and moves its running statistics. By its class a module is found before the model runs; what draws
inside a forward of its own (``F.dropout(x, training=self.training)``) is found by the random state, which has moved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import string_at
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import quiet_forward
from absence_plugins.core.module_calls import observed_calls
from absence_plugins.core.module_tree import list_modules

MIXING = (nn.modules.batchnorm._BatchNorm,)
DRAWING = (nn.modules.dropout._DropoutNd, nn.RReLU)
DRAWING_WORDS = ("dropout", "droppath", "dropblock", "dropconnect", "stochasticdepth", "gaussiannoise")  # of classes
RATES = ("p", "drop_prob", "drop_rate", "rate", "prob", "sigma", "std")  # attributes that say how much is drawn
DRAWS = "is in training mode and draws at random"
MIXES = "is in training mode and takes its statistics from the batch"
REMEDY = "call model.eval()"


def find_training(
    model: Any, *, draws: bool = True, mixes: bool = True, modules: Sequence[nn.Module] | None = None
) -> tuple[str, nn.Module] | None:
    """The first module, with its name, that is in training mode and draws at random, or mixes the samples of a batch.

    ``modules``: the model's, where they are known.

    >>> net = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))
    >>> find_training(net), find_training(net.eval())
    (('1', Dropout(p=0.5, inplace=False)), None)
    """

    def is_active(module: nn.Module) -> bool:
        return (draws and _draws(module)) or (mixes and isinstance(module, MIXING))

    training = [module for module in (list_modules(model) if modules is None else modules) if module.training]
    if not any(map(is_active, training)):
        return None  # nearly always; names cost more
    model = getattr(model, "__self__", model)  # model.forward
    return next((name, one) for name, one in model.named_modules() if one.training and is_active(one))


def _draws(module: nn.Module) -> bool:
    """Whether a module's class says that it draws at random in training mode, and its rate is not 0."""
    if next(module.children(), None) is not None:
        return False
    name = type(module).__name__.lower().replace("_", "")
    if not isinstance(module, DRAWING) and not any(word in name for word in DRAWING_WORDS):
        return False
    rates = [rate for rate in (getattr(module, one, None) for one in RATES) if isinstance(rate, (int, float))]
    return not rates or any(rate > 0 for rate in rates)


def describe_training(name: str, module: nn.Module, consequence: str) -> str:
    """One line: the module's path and class, what it does, what follows from it, and the remedy.

    >>> describe_training("2", nn.Dropout(), "the map is that of one draw")
    '2 (Dropout) is in training mode and draws at random, so the map is that of one draw; call model.eval()'
    """
    subject = f"{name or 'the model'} ({type(module).__name__})"
    if not module.training:
        return f"{subject} draws at random in evaluation mode, too, so {consequence}; pass a model that draws nothing"
    return f"{subject} {MIXES if isinstance(module, MIXING) else DRAWS}, so {consequence}; {REMEDY}"


def warn_training(model: nn.Module, consequence: str, *, stacklevel: int) -> None:
    """Warn where a module is in training mode and draws at random, or mixes the samples of a batch."""
    active = find_training(model)
    if active:
        warnings.warn(describe_training(*active, consequence), AbsenceWarning, stacklevel=stacklevel + 1)


class Draws:
    """Whether anything was drawn from torch's global generators in a block.

    >>> with Draws() as draws:
    ...     _ = torch.rand(2)
    >>> draws.happened
    True
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        found = {one.device.index or 0 for one in tensors if one.is_cuda}
        self._generators = [torch.default_generator, *(torch.cuda.default_generators[one] for one in sorted(found))]
        self.happened = False

    def __enter__(self) -> Self:
        self._before = [generator.get_state() for generator in self._generators]
        return self

    def __exit__(self, *error: object) -> None:
        now = [generator.get_state() for generator in self._generators]
        self.happened = [*map(_bytes_of, now)] != [*map(_bytes_of, self._before)]

    def restore(self) -> None:
        """Put the generators back to where they were before the block."""
        for generator, state in zip(self._generators, self._before, strict=True):
            generator.set_state(state)


def _bytes_of(state: Tensor) -> bytes:
    """Of a generator's state; two are compared in a third of the time of ``torch.equal``."""
    return string_at(state.data_ptr(), state.numel())


def find_drawing(model: Any, run: Callable[[], Any], tensors: Iterable[Tensor] = ()) -> tuple[str, nn.Module] | None:
    """The innermost module, with its name, in whose forward something is drawn at random; ``run()`` runs the model.

    In evaluation mode it counts if its output is another one the next time. Without gradients, and with the random
    states as before.

    >>> class Noisy(nn.Module):
    ...     def forward(self, x):
    ...         return nn.functional.dropout(x, 0.5, self.training)
    >>> net = nn.Sequential(nn.Identity(), Noisy())
    >>> find_drawing(net, lambda: net(torch.ones(1)))
    ('1', Noisy())
    """
    tensors = list(tensors)
    found: list[tuple[str, nn.Module]] = []

    def see(name: str, module: nn.Module, inputs: Any, keywords: Any) -> None:
        if not found:
            with Draws(tensors) as draws:
                first = module(*inputs, **keywords)
            # outside of training mode, what is drawn may have no effect
            if draws.happened and (module.training or not _are_equal(first, module(*inputs, **keywords))):
                found.append((name, module))

    model = getattr(model, "__self__", model)
    if not isinstance(model, nn.Module):
        return None
    with quiet_forward(tensors), observed_calls(model, see):
        run()
    return found[0] if found else None


def _are_equal(output: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(output), tree_leaves(other), strict=True)
    return all(torch.equal(one, two) for one, two in pairs if isinstance(one, Tensor))


@contextmanager
def keeping_statistics(model: nn.Module) -> Iterator[None]:
    """In this block batch norm in training mode leaves its running statistics as they are; outputs are the same."""
    moving = [
        module
        for module in model.modules()
        if isinstance(module, MIXING) and module.training and module.track_running_stats
    ]
    for module in moving:
        module.track_running_stats = False  # a forward takes the batch's statistics, and keeps none
    try:
        yield
    finally:
        for module in moving:
            module.track_running_stats = True
