"""Batch norms folded into the convolutions in front of them, while a model runs, which is neither changed nor copied.

In evaluation mode a batch norm is a factor and a shift per channel, so the convolution can make its output at once. One
forward is watched (:class:`watching_norms`): which convolution's output goes into one batch norm and nowhere else. Then
these run folded (:class:`folding_norms`). A forward that does anything else with such an output has strayed: what it
returned is to be thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from absence_plugins.core.changed_windows import tensors_in

CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
FUNCTIONAL = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
NORM = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled")
ASKED = frozenset({"dim", "size", "numel", "stride", "is_contiguous", "is_floating_point", "is_complex", "__len__"})
MOVING = frozenset({"data", "T", "mT", "H", "mH", "real", "imag", "grad"})  # what a tensor has that holds its values
OF_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class _Norm:
    """A batch norm in evaluation mode: its tensors in the order of :data:`OF_NORM`, and its epsilon."""

    tensors: tuple[Tensor | None, ...]
    eps: float

    def is_same(self, other: _Norm) -> bool:
        return self.eps == other.eps and _are_same(self.tensors, other.tensors)


@dataclass(frozen=True)
class Pair:
    """A convolution and the batch norm behind it.

    Attributes:
        weight, bias: of the convolution, as the model passes them.
        norm: what is folded.
        folded: weight and bias of the convolution that does both.
        state: where all these lie in memory and how often they were overwritten.
    """

    weight: Tensor
    bias: Tensor | None
    norm: _Norm
    folded: tuple[Tensor, Tensor]
    state: tuple[tuple[int, int], ...]

    @classmethod
    def fold(cls, weight: Tensor, bias: Tensor | None, norm: _Norm) -> Pair:
        """In float64, and rounded once: (W x + b - m) s + c = (s W) x + (b - m) s + c with s = g / sqrt(v + eps)."""
        gain, shift, mean, variance = (None if one is None else one.double() for one in norm.tensors)
        assert mean is not None
        assert variance is not None
        scale = (variance + norm.eps).rsqrt() * (1.0 if gain is None else gain)
        moved = ((0.0 if bias is None else bias.double()) - mean) * scale + (0.0 if shift is None else shift)
        made = (weight.double() * scale[:, None, None, None]).to(weight.dtype)
        return cls(weight, bias, norm, (made, moved.to(weight.dtype)), _state_of(weight, bias, norm))

    @property
    def is_current(self) -> bool:
        """Whether nothing was overwritten since, as far as torch counts: what is written through ``.data`` it does not."""
        return self.state == _state_of(self.weight, self.bias, self.norm)


class watching_norms(TorchFunctionMode):
    """Sees in a forward which convolutions have a batch norm in evaluation mode behind them, and nothing else.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).eval()
    >>> with torch.no_grad(), watching_norms() as seen:
    ...     _ = net(torch.rand(1, 1, 4, 4))
    >>> len(seen.pairs())
    1
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: Any = WeakTensorKeyDictionary()  # outputs of convolutions: their numbers
        self._calls: list[tuple[Tensor, Tensor | None]] = []
        self._uses: list[list[_Norm | None]] = []  # of each call's output

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not _is_asking(func):
            norm = read_norm(func, args, kwargs)
            for one in tensors_in((args, kwargs)):
                number = self._made.get(one)
                if number is not None:
                    self._uses[number].append(norm)
        if func is torch.conv2d:
            given = dict(zip(CONVOLUTION, args, strict=False)) | kwargs
            self._made[output] = len(self._calls)
            self._calls.append((given["weight"], given.get("bias")))
            self._uses.append([])
        return output

    def pairs(self) -> dict[int, Pair]:
        """What can be folded, by the ``id`` of the convolution's weight, which a pair holds."""
        by_weight: dict[int, list[int]] = {}
        for number, (weight, _) in enumerate(self._calls):
            by_weight.setdefault(id(weight), []).append(number)
        found = {}
        for key, numbers in by_weight.items():
            weight, bias = self._calls[numbers[0]]
            norms = [self._uses[number][0] if len(self._uses[number]) == 1 else None for number in numbers]
            first = norms[0]
            if first is None or any(one is None or not one.is_same(first) for one in norms):
                continue
            if all(self._calls[number][1] is bias for number in numbers) and _are_plain((weight, bias, *first.tensors)):
                found[key] = Pair.fold(weight, bias, first)
        return found


class folding_norms(TorchFunctionMode):
    """In this block the pairs run as one convolution each; ``has_strayed`` says that the result is to be thrown away.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).eval()
    >>> with torch.no_grad(), watching_norms() as seen:
    ...     expected = net(torch.ones(1, 1, 4, 4))
    >>> with torch.no_grad(), folding_norms(seen.pairs()) as folding:
    ...     found = net(torch.ones(1, 1, 4, 4))
    >>> torch.allclose(found, expected, atol=1e-6), folding.has_strayed
    (True, False)
    """

    def __init__(self, pairs: Mapping[int, Pair]) -> None:
        super().__init__()
        self.pairs = pairs
        self.has_strayed = not all(pair.is_current for pair in pairs.values())
        self._waiting: dict[int, tuple[Tensor, Pair]] = {}  # outputs that are normed already, by id

    def __exit__(self, *error: Any) -> None:
        self.has_strayed |= bool(self._waiting)
        self._waiting.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        if self._waiting:
            if func is F.batch_norm and args and id(args[0]) in self._waiting:  # what comes next but for a stray
                waiting = [args[0]]
            else:
                waiting = [] if _is_asking(func) else self._find_waiting(args, kwargs)
            if waiting:
                norm, pair = read_norm(func, args, kwargs), self._waiting.pop(id(waiting[0]))[1]
                if len(waiting) == 1 and norm is not None and pair.norm.is_same(norm):
                    return waiting[0]
                self.has_strayed = True
        if func is torch.conv2d and not torch.is_grad_enabled():
            given = dict(zip(CONVOLUTION, args, strict=False)) | kwargs
            known = self.pairs.get(id(given.get("weight")))
            if known is not None and given.get("bias") is known.bias:
                given["weight"], given["bias"] = known.folded
                made: Tensor = func(**given)
                self._waiting[id(made)] = made, known
                return made
        return func(*args, **kwargs)

    def _find_waiting(self, args: Any, kwargs: Any) -> list[Tensor]:
        return [one for one in tensors_in((args, kwargs)) if id(one) in self._waiting]


def read_norm(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Norm | None:
    """The batch norm that a call is, in evaluation mode; None for everything else."""
    names = FUNCTIONAL if func is F.batch_norm else NORM if func is torch.batch_norm else ()
    given = dict(zip(names, args, strict=False)) | kwargs
    if not names or given.get("training", False) is not False:
        return None
    if given.get("running_mean") is None or given.get("running_var") is None:
        return None
    return _Norm(tuple(given.get(name) for name in OF_NORM), float(given.get("eps", 1e-5)))


def _is_asking(func: Any) -> bool:
    """Whether an operation asks for the shape, type or place of a tensor, and not for its values."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "data") not in MOVING
    return name in ASKED


def _are_same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _are_plain(tensors: Sequence[Tensor | None]) -> bool:
    """Whether these are tensors of float32 that stay the same from forward to forward and count their changes."""
    return all(
        one is None
        or (type(one) in (Tensor, torch.nn.Parameter) and one.dtype == torch.float32 and not one.is_inference())
        for one in tensors
    )


def _state_of(weight: Tensor, bias: Tensor | None, norm: _Norm) -> tuple[tuple[int, int], ...]:
    return tuple((one.data_ptr(), one._version) for one in (weight, bias, *norm.tensors) if one is not None)
