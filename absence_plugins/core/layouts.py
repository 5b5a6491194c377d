"""Which axis of an activation holds the channels, found out from the modules that make it.

Convolutions, their norms and poolings have channels on axis 1; linear layers, layer norms, embeddings, attention and
recurrent layers on the last axis. A block is judged by the layers inside it, an activation or dropout by the layer
whose output it gets. Where two axes fit, the caller is asked, and told what was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from absence_plugins.core.hooks import hooking, keep_to_thread

FIRST = (
    *(nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._LPPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd, nn.Upsample),
    *(nn.PixelShuffle, nn.PixelUnshuffle, nn.LocalResponseNorm),
)
LAST = (nn.Linear, nn.Bilinear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)
SIZES = (
    "out_channels",
    "num_features",
    "num_channels",
    "out_features",
    "embedding_dim",
    "embed_dim",
    "hidden_size",
    "nf",
)
Kind = str  # "first" or "last"


@dataclass(frozen=True)
class Axes:
    """Where a layer's value has its samples and channels: to maps [B, U, ...] and back.

    >>> import torch
    >>> axes = Axes(samples=0, channels=2)  # tokens [B, T, U]
    >>> axes.maps(torch.zeros(4, 5, 6)).shape, axes.back(torch.zeros(4, 6, 5)).shape
    (torch.Size([4, 6, 5]), torch.Size([4, 5, 6]))
    """

    samples: int
    channels: int | None  # with the samples in front; None: one number per sample

    def in_front(self, value: Tensor) -> Tensor:
        """A value with the samples on its first axis."""
        return value.movedim(self.samples, 0)

    def maps(self, value: Tensor) -> Tensor:
        """A value as the layer holds it -> [B, U, ...]."""
        front = self.in_front(value)
        return front[:, None] if self.channels is None else front.movedim(self.channels, 1)

    def back(self, maps: Tensor) -> Tensor:
        """Maps [B, U, ...] -> the value as the layer holds it."""
        front = maps[:, 0] if self.channels is None else maps.movedim(1, self.channels)
        return front.movedim(0, self.samples)


def declared(module: nn.Module, shape: tuple[int, ...]) -> Kind | None:
    """On which end the module itself has its channels, whatever runs around it; None: it does not say."""
    if isinstance(module, FIRST):
        return "first"
    if isinstance(module, LAST):
        return "last"
    normalized = getattr(module, "normalized_shape", None)
    if normalized is not None:
        sizes = tuple(normalized)
        if type(module) is nn.LayerNorm or type(module).__name__ == "RMSNorm":
            return "last" if len(sizes) == 1 else ("first" if len(sizes) == len(shape) - 1 else None)
        # a subclass may normalize axis 1 (LayerNorm2d of torchvision and timm)
        fits = [axis for axis in (1, len(shape) - 1) if sizes == (shape[axis],)]
        return None if len(fits) != 1 else ("first" if fits[0] == 1 else "last")
    return None


def batch_axis(module: nn.Module) -> int:
    """Where a module has the samples: axis 1 for attention and recurrent layers made with ``batch_first=False``."""
    for one in (module, getattr(module, "self_attn", None)):
        if getattr(one, "batch_first", True) is False:
            return 1
    return 0


def sizes_of(module: nn.Module) -> list[tuple[Kind | None, int]]:
    """(end, size) of every layer inside a module that has features: what its activations can have as channels."""
    found: list[tuple[Kind | None, int]] = []
    for one in module.modules():
        for name in SIZES:
            size = getattr(one, name, None)
            if isinstance(size, int):
                found.append(("first" if isinstance(one, FIRST) else "last", size))
        normalized = getattr(one, "normalized_shape", None)
        if normalized is not None and len(tuple(normalized)) == 1:
            found.append((None, int(next(iter(normalized)))))
    return found


def channel_axis(model: nn.Module, module: nn.Module, value: Tensor, side: str, run: Callable[[], Any]) -> int | None:
    """The axis of the channels of a value [B, ...] read at a module's side, or None where it cannot be told.

    ``run()`` runs the model once more, on suspicion only: to see which layer's output the module gets.
    """
    shape = tuple(value.shape)
    if len(shape) < 3:
        return len(shape) - 1
    kind = declared(module, shape)
    if kind is None:
        sizes = sizes_of(module)
        kind = _from_sizes(sizes, shape)
        if kind is None and not any(size in (shape[1], shape[-1]) for _, size in sizes):
            kind = _from_neighbors(model, module, shape, side, run)
    if kind is None:
        return None
    return 1 if kind == "first" else len(shape) - 1


def _from_sizes(sizes: list[tuple[Kind | None, int]], shape: tuple[int, ...]) -> Kind | None:
    at_first = [kind for kind, size in sizes if size == shape[1]]
    at_last = [kind for kind, size in sizes if size == shape[-1]]
    if bool(at_first) != bool(at_last):
        return "first" if at_first else "last"
    if at_first and at_last:  # both ends fit a size: believe layers that have their channels there
        firsts, lasts = "first" in at_first, "last" in at_last
        if firsts != lasts:
            return "first" if firsts else "last"
    return None


def _from_neighbors(
    model: nn.Module, module: nn.Module, shape: tuple[int, ...], side: str, run: Callable[[], Any]
) -> Kind | None:
    """By the layers that run before and after: the nearest whose output (or input) has this very shape."""
    before: list[tuple[Kind, tuple[int, ...]]] = []
    after: list[tuple[Kind, tuple[int, ...]]] = []
    is_past: list[bool] = []
    widest = [0]  # most axes of anything whose channels come last

    def leave(one: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            kind = declared(one, tuple(output.shape))
            if kind == "last":
                widest[0] = max(widest[0], output.dim())
            if kind is not None and not is_past:
                before.append((kind, tuple(output.shape)))

    def enter(one: nn.Module, inputs: tuple[Any, ...]) -> None:
        if one is module:
            if side == "input":
                is_past.append(True)
        elif is_past and inputs and isinstance(inputs[0], Tensor):
            kind = declared(one, tuple(inputs[0].shape))
            if kind is not None:
                after.append((kind, tuple(inputs[0].shape)))

    def passed(_one: nn.Module, _inputs: Any, _output: Any) -> None:
        is_past.append(True)

    registrations: list[Callable[[], Any]] = []
    for one in model.modules():
        registrations.append(partial(one.register_forward_pre_hook, keep_to_thread(enter), prepend=True))
        registrations.append(partial(one.register_forward_hook, keep_to_thread(passed if one is module else leave)))
    with (
        hooking(model, registrations),
        suppress(Exception),
    ):  # behind the module it may fail, for example on small crops
        run()
    for kind, seen in (*reversed(before), *after):
        if seen == shape:
            return kind
    # where both ends have one size, a parent's layers do not tell them apart (tokens [B, C, C] behind a convolution)
    is_square = shape[1] == shape[-1] and len(shape) == 3
    parents = [] if is_square else [one for one in model.modules() if module in one.children()]
    for parent in parents:
        kind_or_none = _from_sizes(sizes_of(parent), shape)
        if kind_or_none is not None:
            return kind_or_none
    # nothing in this model keeps channels last on maps: PyTorch's own convention [B, C, H, W]
    return "first" if len(shape) > 3 and widest[0] < 3 else None
