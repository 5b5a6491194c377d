"""Composites go on a model whole or not at all, and come off without a trace, whichever version of Zennit does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from absence_plugins.core.hooks import reversible
from absence_plugins.core.interrupts import guarding, undivided
from absence_plugins.core.turns import ANY, lending, working_on


def block_of(composite: Any, module: Any) -> guarding:
    """What is around a ``with`` block in which a composite is on a model.

    Ctrl-C in it takes the composite off. Rules answer to their own thread, so that other threads may call the model;
    but weights that canonizers have merged do not: then only what wants this composite works on it.
    """
    return lending(composite, module) if getattr(composite, "canonizers", None) else guarding()


def working_with(composite: Any, module: Any) -> working_on:
    """A turn on the model, also in another thread's block of this composite; without one, in a block of any."""
    return working_on(module, guest_of=ANY if composite is None else composite)


@contextmanager
def registered(attributor: Any) -> Iterator[None]:
    """A turn on an attributor's model, with its composite on it: that of a block, of another thread too, or for this
    call.
    """
    composite = attributor.composite
    while True:
        with ExitStack() as stack:
            is_for_call = composite is not None and not composite.handles
            if is_for_call:
                stack.enter_context(attributor)
            stack.enter_context(working_with(composite, attributor.model))
            if is_for_call or composite is None or composite.handles:
                yield
                return
            # the block that had it on the model has ended meanwhile


@undivided
def register_whole(composite: Any, module: nn.Module) -> Callable[[], None]:
    """``composite.register(module)``, with everything put back if it raises half-way (Zennit leaves its hooks).

    Returns:
        what is called after ``composite.remove()``: it puts back what that left changed. In Zennit 1.0 these are the
        parameters and buffers which a canonizer has merged or created.
    """
    with reversible(module) as undo:
        try:
            with torch.no_grad():  # Zennit 1.0's merged weights would look as if they depended on the input
                composite.register(module)
        except BaseException:
            composite.remove()
            raise
    return undo


@undivided
def remove_whole(remove: Callable[[], None], undo: tuple[Callable[[], None], ...]) -> None:
    """``remove()`` of a composite, then what :func:`register_whole` returned, the last registration first."""
    try:
        remove()
    finally:
        for each in reversed(undo):
            each()
