"""The scores in what a model returns, and the explained ones among them.

Zennit's attributors take a tensor of logits; many models return a dictionary, a dataclass, or probabilities.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.endings import LastOperation
from absence_plugins.core.hooks import hooking, keep_to_thread
from absence_plugins.core.interrupts import undivided
from absence_plugins.core.outputs import check_explained
from absence_plugins.core.precision import coarsest, is_coarse, warn_unresolved
from absence_plugins.core.scores import logits_of


class ScoresOnly:
    """Two hooks on the root of a model, the innermost ones: it returns its scores.

    ``cuts``: where it ends in a softmax or sigmoid, the logits in front of it; ``ending`` then says in which.
    """

    def __init__(self) -> None:
        self.cuts, self.ending = False, ""
        self._running: list[Any] = []

    @undivided
    def enter(self, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        """The forward begins."""
        if self.cuts:
            self._running.append(LastOperation())
            self._running[-1].__enter__()

    def leave(self, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        """It ends, also if it raises (output is None then)."""
        last = self._leave_mode()
        if output is None or (last is None and isinstance(output, Tensor)):
            return None
        scores = logits_of(
            output, samples=next((len(one) for one in inputs if isinstance(one, Tensor) and one.dim()), None)
        )
        if last is not None:
            scores, ending = last.in_front_of(scores)
            self.ending = ending or self.ending
        return scores

    @undivided
    def _leave_mode(self) -> Any:
        last = self._running.pop() if self._running else None
        if last is not None:
            last.__exit__(*sys.exc_info())
        return last

    @undivided
    def stop(self) -> None:
        """Leave a forward that was interrupted: torch calls no hook then."""
        while self._running:
            self._running.pop().__exit__(*sys.exc_info())


@contextmanager
def scores_only(model: Any) -> Iterator[ScoresOnly]:
    """In this block the model returns its scores, where it returns an object that holds them (``logits``, ``out``).

    With ``cuts = True`` on what is yielded, the logits in front of a softmax or sigmoid that it ends in.

    Raises (in the model's forward):
        ValueError: it cannot be told which are the scores; the fields are named.

    >>> import torch
    >>> class Named(nn.Linear):
    ...     def forward(self, x: Tensor) -> dict[str, Tensor]:
    ...         return {"logits": super().forward(x).softmax(1)}
    >>> net = Named(2, 3)
    >>> with scores_only(net) as reading:
    ...     reading.cuts = True
    ...     tuple(net(torch.zeros(1, 2)).shape), reading.ending
    ((1, 3), 'softmax')
    """
    reading = ScoresOnly()
    if not isinstance(model, nn.Module):  # Zennit takes functions, too
        yield reading
        return
    hooks = [  # inside of the rules' own
        partial(model.register_forward_pre_hook, keep_to_thread(reading.enter)),
        partial(model.register_forward_hook, keep_to_thread(reading.leave), prepend=True, always_call=True),
    ]
    with hooking(model, hooks):
        try:
            yield reading
        finally:
            reading.stop()


def weighted(weights: Tensor, outputs: Tensor) -> Tensor:
    """weights * outputs, in which an output of weight 0 takes no part, whatever it is.

    >>> weighted(torch.tensor([1.0, 0.0]), torch.tensor([3.0, -torch.inf])).tolist()
    [3.0, 0.0]
    """
    return torch.where(weights == 0, torch.zeros_like(outputs), weights * outputs)


def warn_rounding(model: Any, x: Tensor, weights: Tensor, outputs: Tensor, values: Tensor, level: int) -> Tensor:
    """Say so where u(x) - u(r) is below the resolution of the numbers; ``outputs`` of x, ``values``: u(r) [B, k].

    Returns what rounding in half precision can take from or add to that difference [B], 0 in other types.
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    dtype = coarsest(one.dtype for one in (x, outputs, *parameters))
    if not is_coarse(dtype):
        return torch.zeros(len(outputs), device=outputs.device)
    terms = weighted(weights, outputs).reshape(len(outputs), -1)
    size = terms.abs().sum(1)
    warn_unresolved(terms.sum(1), values, size, dtype, level + 1)
    return torch.finfo(dtype).eps * size


def check_values(weights: Tensor, outputs: Tensor) -> None:
    """Reject an explained output that is not finite; others may be what they are. Both [B, K, ...].

    Raises:
        ValueError: which output of which sample, and its value.
    """
    places = ((weights != 0) & ~torch.isfinite(outputs)).nonzero().tolist()
    named = {place[0]: place[1:] for place in reversed(places)}

    def word(sample: int) -> str:
        index = named.get(sample, [])
        return "the output" if not index else f"output {index[0] if len(index) == 1 else tuple(index)}"

    check_explained(weighted(weights, outputs).reshape(len(outputs), -1).sum(1), word)
