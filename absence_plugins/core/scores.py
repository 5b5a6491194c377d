"""The scores of a model, found in whatever it returns: one reader for every adapter, method and command.

People's models return tensors, tuples, dictionaries and dataclasses (Hugging Face's ``ModelOutput``, torchvision's
``{"out": ...}``). :func:`logits_of` finds the tensor of scores in them, or says which fields it found.
:func:`run_scores` runs the model and, where it ends in a softmax or sigmoid, gives the logits in front of it
(:mod:`absence_plugins.core.endings`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch  # noqa: F401  (examples)
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.endings import LastOperation, describe_ending
from absence_plugins.core.reading import run_model

NAMES = ("logits", "out")  # of the scores, in dictionaries and dataclasses


def logits_of(outputs: Any, *, name: str | int | None = None, samples: int | None = None) -> Tensor:
    """The tensor of scores in what a model returned.

    A tensor itself; of a dictionary, dataclass or named tuple the field ``name``, else ``logits``, else ``out``, else
    the only floating tensor (with one row per sample, if their number is given); of a tuple likewise.

    Raises:
        ValueError: there is none, or several could be meant: the fields are named, with the wrapper that chooses one.

    >>> logits_of({"loss": torch.tensor(0.1), "logits": torch.zeros(2, 3)}).shape
    torch.Size([2, 3])
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = _fields(outputs)
    if named is None:
        raise ValueError(
            f"the model must return one row of outputs per sample, got {type(outputs).__name__}; wrap it so that it "
            "returns a tensor"
        )
    if name is not None:
        if name not in named or not isinstance(named[name], Tensor):
            raise ValueError(f"the model's output has no tensor {name!r}; it has: {_shown(named)}")
        return named[name]  # type: ignore[no-any-return]
    for usual in NAMES:
        if isinstance(named.get(usual), Tensor):
            return named[usual]  # type: ignore[no-any-return]
    fitting = {
        key: value
        for key, value in named.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() and samples in (None, len(value))
    }
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    field = next(iter(fitting), next((key for key, value in named.items() if isinstance(value, Tensor)), None))
    remedy = "return the scores as one floating tensor [B, K, ...]"
    if field is not None:
        remedy = f"pass Scores(model, field={field!r}) of absence_plugins.core.scores, or another of these fields"
    raise ValueError(
        f"the model must return one row of outputs per sample, got {type(outputs).__name__} with {_shown(named)}: it "
        f"cannot be told which are the scores; {remedy}"
    )


def _fields(outputs: Any) -> dict[Any, Any] | None:
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if is_dataclass(outputs) and not isinstance(outputs, type):
        return {one.name: getattr(outputs, one.name) for one in fields(outputs)}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return dict(zip(outputs._fields, outputs, strict=True))
    if isinstance(outputs, (tuple, list)):
        return dict(enumerate(outputs))
    return None


def _shown(named: dict[Any, Any]) -> str:
    def one(value: Any) -> str:
        return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__

    return ", ".join(f"{key} {one(value)}" for key, value in named.items()) or "nothing"


def run_scores(
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    keywords: Mapping[str, Any] | None = None,
    *,
    samples: int | None = None,
) -> tuple[Tensor, str]:
    """The scores [B, K, ...] of a model on copies of its inputs, and the operation behind them that was left out.

    Where the model ends in a softmax, log-softmax or sigmoid, its input is the scores, and the kind is "softmax",
    "log_softmax" or "sigmoid"; else "". :func:`announce` says so to the user, once per call of a public function.

    Raises:
        ValueError: as :func:`logits_of`.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Softmax(1))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    >>> run_scores(net, (torch.tensor([[3.0, 1.0]]),))[0].tolist()
    [[2.0, 1.0]]
    """
    return read_scores(lambda: run_model(model, inputs, keywords), samples=samples)  # type: ignore[arg-type]


def read_scores(forward: Callable[[], Any], *, samples: int | None = None) -> tuple[Tensor, str]:
    """The scores in what a forward returns, and the operation that was left out, as :func:`run_scores`."""
    with LastOperation() as last:
        outputs = forward()
    found: tuple[Tensor, str] = last.in_front_of(logits_of(outputs, samples=samples))
    return found


def announce(ending: str, *, stacklevel: int) -> None:
    """Warn that logits are explained where a model ends in a softmax or sigmoid; nothing for ``ending=""``."""
    if ending:
        warnings.warn(describe_ending(ending), AbsenceWarning, stacklevel=stacklevel + 1)


class Scores(nn.Module):
    """A model that puts out another's scores, computed on copies of its inputs.

    For hosts, which take a model that returns a tensor, and for models that return several tensors. The other model is
    neither changed nor copied.

    Args:
        forward_func: a module or a function.
        ending: the operation behind the scores that is left out ("softmax", "log_softmax", "sigmoid").
        field: of a model that returns an object: the field (or place in a tuple) that holds the scores.

    Raises (when called):
        ValueError: as :func:`logits_of`; the model ends in another operation.

    >>> class Two(nn.Linear):
    ...     def forward(self, x: Tensor) -> dict[str, Tensor]:
    ...         return {"a": super().forward(x), "b": super().forward(-x)}
    >>> tuple(Scores(Two(2, 3), field="b")(torch.zeros(1, 2)).shape)
    (1, 3)
    """

    def __init__(self, forward_func: Callable[..., Any], ending: str = "", *, field: str | int | None = None) -> None:
        super().__init__()
        self.explained, self.ending, self.field = forward_func, ending, field
        self.training = bool(getattr(forward_func, "training", False))
        if hasattr(forward_func, "device_ids"):
            self.device_ids = forward_func.device_ids

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The scores [B, K, ...]."""
        copies = [value.clone() if isinstance(value, Tensor) else value for value in args]
        named = {name: value.clone() if isinstance(value, Tensor) else value for name, value in kwargs.items()}
        if not self.ending:
            return logits_of(self.explained(*copies, **named), name=self.field)
        scores, ending = read_scores(lambda: logits_of(self.explained(*copies, **named), name=self.field))
        if ending != self.ending:
            raise ValueError(
                f"the model ended in a {self.ending} before, and now in {ending or 'something else'}: the logits in "
                "front of it are not found; pass a model that returns its logits"
            )
        return scores
