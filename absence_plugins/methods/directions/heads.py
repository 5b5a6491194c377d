"""A layer's features, and the rest of the network behind them as a function of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.hooks import capture, evaluating, rewritten
from absence_plugins.core.units import Unit

SIDES = (224, 32, 28, 64, 24, 16, 12, 8, 48, 96, 128, 256, 299, 384, 512)  # of images, the likeliest first


def to_positions(activation: Tensor, *, channels_last: bool = False) -> Tensor:
    """A layer's output as features [N, H, W, D]: from a map [N, D, H, W], tokens [N, T, D] or vectors [N, D].

    >>> to_positions(torch.zeros(2, 5, 3, 4)).shape, to_positions(torch.zeros(2, 7, 5)).shape
    (torch.Size([2, 3, 4, 5]), torch.Size([2, 1, 7, 5]))
    """
    if activation.dim() == 4:
        return activation if channels_last else activation.permute(0, 2, 3, 1)
    if activation.dim() == 3:
        return activation[:, None]
    if activation.dim() == 2:
        return activation[:, None, None]
    raise ValueError(
        f"the layer puts out shape {tuple(activation.shape)}; a map [N, D, H, W], tokens [N, T, D] or vectors [N, D] are understood"
    )


def from_positions(features: Tensor, like: torch.Size, *, channels_last: bool = False) -> Tensor:
    """The way back: features [N, H, W, D] in the layer's own layout, ``like`` the shape of its output."""
    if len(like) == 4:
        return features if channels_last else features.permute(0, 3, 1, 2)
    return features.squeeze(1) if len(like) == 3 else features.flatten(1)


def layer_features(model: nn.Module, layer: str, inputs: Tensor, *, channels_last: bool = False) -> Tensor:
    """What a layer puts out for inputs [N, ...], as features [N, H, W, D]; no gradient, evaluation mode, no trace.

    ``channels_last`` if the layer's output is [N, H, W, D] (Swin) and not [N, D, H, W].

    Raises:
        ValueError: no such layer, or it does not run.

    >>> layer_features(nn.Sequential(nn.Conv2d(1, 3, 1)), "0", torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 4, 4, 3])
    """
    module = Unit(layer, 0).module(model)
    with torch.no_grad(), evaluating(model), capture(module) as seen:
        model(inputs)
    if len(seen) != 1:
        raise ValueError(f"layer {layer!r} runs {len(seen)} times in the model's forward; name one that runs once")
    return to_positions(seen[0], channels_last=channels_last)


def images_of(dataset: Any, batch_size: int, model: nn.Module) -> Iterator[Tensor]:
    """Batches of images of a tensor [N, ...], a data set or a loader, on the model's device.

    Of items (image, label, ...) the image; empty batches are left out.

    Raises:
        TypeError: what it yields is not a tensor.
    """
    loader: Iterable[Any] = torch.split(dataset, batch_size) if isinstance(dataset, Tensor) else dataset
    parameter = next(model.parameters(), None)
    if (
        not isinstance(dataset, Tensor)
        and hasattr(dataset, "__getitem__")
        and hasattr(dataset, "__len__")
        and not hasattr(dataset, "batch_size")
    ):
        loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, generator=torch.Generator())
    for item in loader:
        images = item[0] if isinstance(item, (tuple, list)) else item
        if not isinstance(images, Tensor):
            raise TypeError(f"dataset yields a {type(images).__name__}; it must yield image tensors, or (image, label)")
        if len(images):
            yield images if parameter is None else images.to(parameter.device)


class Head:
    """Features [n, H, W, D] of a layer to the network's outputs; see :func:`head_of`."""

    def __init__(self, model: nn.Module, layer: str, example: Tensor, *, channels_last: bool = False) -> None:
        self.model, self.layer, self.channels_last = model, layer, channels_last
        self.module = Unit(layer, 0).module(model)
        self.example = example[:1].detach()
        self._alone = True
        with torch.no_grad(), evaluating(model), capture(self.module) as seen:
            outputs = model(self.example)
        if len(seen) != 1:
            raise ValueError(f"layer {layer!r} runs {len(seen)} times in the model's forward; name one that runs once")
        self.shape = seen[0].shape
        self._rest = _rest_of(model, self.module)
        features = to_positions(seen[0], channels_last=channels_last)
        # what lies in front of the layer runs on one image, however many features there are; unless the
        # forward remembers the number of images
        self._alone = self._resumes(features, outputs)
        if not self._alone and not self._resumes(features, outputs):
            raise ValueError(
                f"the forward cannot be resumed at layer {layer!r}: with its own output the model's output is another"
            )
        self._check_only_path(features, outputs)

    def __repr__(self) -> str:
        return f"Head(of {type(self.model).__name__} at {self.layer!r})"

    def __call__(self, features: Tensor) -> Tensor:
        """The model's outputs with these features in place of the layer's: [n, H, W, D] -> [n, ...]. Differentiable."""
        # a copy: an in-place rectifier behind the layer would overwrite the features
        value = from_positions(features, self.shape, channels_last=self.channels_last).clone()
        with evaluating(self.model):
            if self._rest is not None:
                for module in self._rest:
                    value = module(value)
                return value
            with rewritten(self.module, lambda output: value.to(output.dtype)):
                outputs: Tensor = self.model(self._inputs(features))
        return outputs

    def unit(self, features: Tensor, unit: Unit) -> Tensor:
        """A hidden unit behind the layer, with these features in place of the layer's: [n, H, W, D] -> [n]."""
        value = from_positions(features, self.shape, channels_last=self.channels_last).clone()
        with evaluating(self.model), rewritten(self.module, lambda output: value.to(output.dtype)):
            return unit.values(self.model, self._inputs(features))

    def _inputs(self, features: Tensor) -> Tensor:
        example = self.example.to(features.device)
        return example if self._alone else example.expand(len(features), *example.shape[1:])

    @torch.no_grad()
    def _resumes(self, features: Tensor, outputs: Tensor) -> bool:
        """Whether the layer's own features, twice, give the model's own outputs twice."""
        try:
            found = self(torch.cat([features, features]))
        except (RuntimeError, ValueError):
            return False
        both = torch.cat([outputs, outputs])
        return found.shape == both.shape and torch.allclose(found, both, rtol=1e-3, atol=1e-4)

    @torch.no_grad()
    def _check_only_path(self, features: Tensor, outputs: Tensor) -> None:
        """Refuse a layer that the input can go around: what follows is then not a function of its features."""
        if self._rest is not None:
            return
        mirrored = self.example.flip(-1) * 0.5 + self.example.std().nan_to_num(1.0)
        example, self.example = self.example, mirrored
        try:
            other = self(features)
        finally:
            self.example = example
        if not torch.allclose(other, outputs, rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"another path leads around layer {self.layer!r} (it lies inside a residual block?), so the outputs are no "
                "function of its features; name the whole block"
            )


def head_of(model: nn.Module, layer: str, example: Tensor | None = None, *, channels_last: bool = False) -> Head:
    """The network behind a layer: f+ with model(x) = f+(features of x).

    In a (nested) ``nn.Sequential`` the modules behind the layer run; in any other network the forward runs on
    ``example`` with the layer's output replaced. Works for convolutional maps, tokens and vectors.

    Args:
        model: in any mode; it runs in evaluation mode and stays as it is.
        layer: a name as in ``model.named_modules()``.
        example: one input [1, ...] (or more, the first is used). Without one a random input is made for the first
            convolution or linear layer, of the first usual size that the model takes.
        channels_last: the layer puts out [N, H, W, D] (Swin) instead of [N, D, H, W].

    Raises:
        ValueError: no such layer, it runs several times or not at all, or another path leads around it; no example,
            and the model takes none of the usual sizes.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).eval()
        >>> x = torch.ones(5, 1, 2, 2)
        >>> head = head_of(net, "1", x)
        >>> bool(torch.equal(head(layer_features(net, "1", x)), net(x)))
        True
    """
    if example is None:
        Unit(layer, 0).module(model)  # its error is clearer than that of a failing forward
        example = _random_input(model)
    if not isinstance(example, Tensor):
        raise TypeError(f"example must be a tensor [n, ...] of inputs, got a {type(example).__name__}")
    return Head(model, layer, example, channels_last=channels_last)


@torch.no_grad()
def _random_input(model: nn.Module) -> Tensor:
    """A random input that the model takes. Raises ValueError if none of the usual sizes fits."""
    generator = torch.Generator().manual_seed(0)
    parameter = next(model.parameters(), torch.zeros(()))
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            channels = module.in_channels if isinstance(module, nn.Conv2d) else module.in_features
            shapes = [(channels, side, side) for side in SIDES] if isinstance(module, nn.Conv2d) else [(channels,)]
            for shape in shapes:
                example = torch.randn(1, *shape, generator=generator).to(parameter)
                with suppress(RuntimeError, ValueError, AssertionError), evaluating(model):
                    model(example)
                    return example
            break
    raise ValueError("the model's input cannot be told from its layers; pass one: head_of(model, layer, images[:1])")


def _rest_of(model: nn.Module, module: nn.Module) -> list[nn.Module] | None:
    """The modules behind a module, if the model is nothing but (nested) ``nn.Sequential`` on the way to it."""
    if model is module:
        return []
    if type(model) is not nn.Sequential or model._forward_hooks or model._forward_pre_hooks:
        return None
    children = list(model)
    for number, child in enumerate(children):
        if module in child.modules():
            inside = _rest_of(child, module)
            return None if inside is None else inside + children[number + 1 :]
    return None
