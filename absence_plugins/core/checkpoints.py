"""Gradient checkpointing off: a forward that keeps its graph, as hooks, modes and a second look at it need.

``torch.utils.checkpoint`` runs a block again in the backward pass, where hooks and modes of the forward are gone. Both
of its forms ask a name of its module for what to do, however a model has come by ``checkpoint`` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from threading import Lock
from typing import Any, Self

import torch.utils.checkpoint as host

REENTRANT = "CheckpointFunction"
PLAIN = next(
    (
        name
        for name in ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")
        if hasattr(host, name)
    ),
    "",
)  # the newer torch has both, and calls the first

_IS_OFF: ContextVar[bool] = ContextVar("is_off", default=False)  # another thread may be training with checkpoints
_LOCK = Lock()
_KEPT: dict[str, Any] = {}  # torch's own, while a block runs
_BLOCKS: list[object] = []


class without_checkpoints:
    """In this block checkpointed parts of a model run like all others: the same numbers, with more memory.

    >>> import torch
    >>> x = torch.ones(1, requires_grad=True)
    >>> with without_checkpoints():
    ...     y = host.checkpoint(torch.exp, x, use_reentrant=True)
    >>> y.grad_fn.name()
    'ExpBackward0'
    """

    def __enter__(self) -> Self:
        with _LOCK:
            if not _BLOCKS and PLAIN:
                _KEPT.update({REENTRANT: getattr(host, REENTRANT), PLAIN: getattr(host, PLAIN)})
                setattr(host, REENTRANT, _Reentrant)
                setattr(host, PLAIN, _plain)
            _BLOCKS.append(self)
        self._token = _IS_OFF.set(True)
        return self

    def __exit__(self, *error: object) -> None:
        _IS_OFF.reset(self._token)
        with _LOCK:
            _BLOCKS.remove(self)
            if not _BLOCKS:
                for name, value in _KEPT.items():
                    setattr(host, name, value)


class _Reentrant:
    """In place of torch's function of autograd."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        """The function itself where checkpoints are off."""
        return function(*args) if _IS_OFF.get() else _KEPT[REENTRANT].apply(function, preserve, *args)


def _plain(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In place of torch's generator, which surrounds the call of the function."""
    if _IS_OFF.get():
        yield
    else:
        yield from _KEPT[PLAIN](*args, **kwargs)
