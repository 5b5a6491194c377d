"""A layer's features, and the rest of the network behind them as a function of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import reduce
from operator import index

import torch
from torch import Tensor, nn

from absence_plugins.core.direction import Direction
from absence_plugins.core.hooks import evaluating
from absence_plugins.core.layouts import Axes
from absence_plugins.core.outputs import Logit, Output
from absence_plugins.core.reading import Watch, plain_model, run_model
from absence_plugins.core.replacing import replaced
from absence_plugins.core.running import as_written
from absence_plugins.core.scores import announce, read_scores, run_scores
from absence_plugins.core.units import Layer, Unit
from absence_plugins.methods.directions.inputs import Inputs, each_tensor, repeat_row, vary

Explained = int | Unit | Direction | Output  # an integer is a class
SIDES = (224, 32, 28, 64, 24, 16, 12, 8, 48, 96, 128, 256, 299, 384, 512)  # of images, the likeliest first


def layer_of(layer: str | Layer, channels_last: bool | None = None) -> Layer:
    """The layer as a :class:`Layer`; ``channels_last`` None leaves its axis of channels as it is."""
    return Layer.of(layer) if channels_last is None else Layer.of(layer, channels="last" if channels_last else "first")


def as_explained(output: Explained) -> Unit | Direction | Output:
    """A class as its logit, anything else itself. Raises TypeError if it is none of them.

    >>> as_explained(3).describe()
    'logit 3'
    """
    if isinstance(output, (Unit, Direction, Output)):
        return output
    if isinstance(output, bool) or not hasattr(output, "__index__"):
        raise TypeError(f"an output must be a class number, a Unit, a Direction or an Output, got {output!r}")
    return Logit(index(output))


def to_positions(maps: Tensor) -> Tensor:
    """A layer's maps [N, D, ...] as features [N, H, W, D]; tokens lie on W, of 3-D positions the last two.

    >>> to_positions(torch.zeros(2, 5, 3, 4)).shape, to_positions(torch.zeros(2, 5, 7)).shape
    (torch.Size([2, 3, 4, 5]), torch.Size([2, 1, 7, 5]))
    """
    last = maps.movedim(1, -1)
    if last.dim() < 4:
        return last.reshape(len(last), 1, -1, last.shape[-1])
    return last.flatten(2, -2)


def from_positions(features: Tensor, like: torch.Size) -> Tensor:
    """The way back: features [n, H, W, D] as maps with as many axes as ``like`` [N, D, ...]."""
    sizes = like[2:]
    if len(sizes) < 2:
        last = features.flatten(1, 2) if sizes else features.flatten(1)
    else:
        last = features if len(sizes) == 2 else torch.unflatten(features, 2, sizes[1:])
    return last.movedim(-1, 1)


@torch.no_grad()
def layer_features(
    model: nn.Module, layer: str | Layer, inputs: Inputs, *, channels_last: bool | None = None
) -> Tensor:
    """A layer's values for inputs [N, ...], as features [N, H, W, D]; no gradient, evaluation mode, no trace.

    Args:
        model: in any mode.
        layer: a name as in ``model.named_modules()``, or a :class:`~absence_plugins.Layer`. A layer that ends in a
            nonlinearity is read in front of it; ``Layer(name, side="output")`` reads it behind.
        inputs: [N, ...], or tensors by name (``{"input_ids": ids, "attention_mask": mask}``).
        channels_last: True: the layer holds [N, ..., D]; False: [N, D, ...]; None: found out.

    Raises:
        ValueError: no such layer, it does not run once, or the axis of its channels cannot be told.

    >>> layer_features(nn.Sequential(nn.Conv2d(1, 3, 1)), "0", torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 4, 4, 3])
    """
    at = layer_of(layer, channels_last)
    watch = at.watch(model)
    with evaluating(model):
        with watch:
            run_model(model, (inputs,))
        return to_positions(at.arranged(model, watch, _only_value(watch), (inputs,)))


def _only_value(watch: Watch) -> Tensor:
    """What a watch read in one forward. Raises ValueError unless its layer ran once."""
    if len(watch.values) > 1:
        raise ValueError(
            f"layer {watch.name!r} runs {len(watch.values)} times in the model's forward; name one that runs once"
        )
    return watch.last()


class Head:
    """Features [n, H, W, D] of a layer to the network's outputs; see :func:`head_of`."""

    def __init__(self, model: nn.Module, layer: Layer, example: Inputs) -> None:
        self.model, self.layer = model, layer
        self.example = each_tensor(example, lambda value: value[:1].detach())
        watch = layer.watch(model)
        with torch.no_grad(), evaluating(model):
            with watch:
                outputs, self.ending = run_scores(model, (self.example,), samples=1)
            value = _only_value(watch)
            self.axes = layer.axes(model, watch, value, (self.example,))
        self._known: dict[Layer, Axes] = {layer: self.axes}
        maps = self.axes.maps(value)
        self.shape = maps.shape
        self._channels = {layer: self.shape[1]}
        self._rest = _rest_of(plain_model(model), *watch.point)
        features = self._features = to_positions(maps)
        self.positions: tuple[int, int] = (features.shape[1], features.shape[2])
        # what lies in front of the layer runs on one image, however many features there are; unless the
        # forward remembers the number of images
        self._alone = True
        self._alone = self._resumes(features, outputs)
        if not self._alone and not self._resumes(features, outputs):
            raise ValueError(
                f"the forward cannot be resumed at layer {layer.name!r}: with its own output the model's output is "
                "another"
            )
        self._check_only_path(features, outputs)

    def __repr__(self) -> str:
        return f"Head(of {type(self.model).__name__} at {self.layer.name!r})"

    def __call__(self, features: Tensor) -> Tensor:
        """The model's outputs with these features in place of the layer's: [n, H, W, D] -> [n, ...]. Differentiable."""
        if self._rest is None:
            return self.read(features, ())[0]
        value = self._value(features).clone()  # an in-place rectifier behind the layer would overwrite the features
        rest = self._rest
        with evaluating(self.model), as_written():
            return read_scores(lambda: reduce(lambda given, module: module(given), rest, value), samples=len(features))[
                0
            ]

    def read(
        self, features: Tensor, units: Sequence[Unit | Direction | Layer], inputs: Inputs | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Outputs [n, ...] and the values of units [n], or of all units of a layer [n, U], in one forward with these
        features in place of the layer's.

        inputs: of these n samples, where what follows depends on more than the features (a mask of padded tokens);
        by default the example's.

        Raises:
            ValueError: a unit that is read before the layer, in the order of execution.
        """
        layers = [unit if isinstance(unit, Layer) else unit.at for unit in units]
        watches = {at: (at.watch(self.model), self._axes_of(at)) for at in dict.fromkeys(layers)}
        inputs = self._inputs_for(features) if inputs is None else inputs

        def given(value: Tensor) -> Tensor:
            return self._value(features).to(value.dtype)

        with evaluating(self.model), replaced(self.layer.watch(self.model), given), ExitStack() as stack:
            for watch, _ in watches.values():
                stack.enter_context(watch)
            outputs, _ = run_scores(self.model, (inputs,), samples=len(features))
        maps = {at: axes.maps(watch.last()) for at, (watch, axes) in watches.items()}
        return outputs, [
            unit.reduced(maps[unit]) if isinstance(unit, Layer) else unit.select(maps[unit.at]) for unit in units
        ]

    def count_units(self, layer: Layer) -> int:
        """Channels of the layer itself, or of one behind it."""
        self._axes_of(layer)
        return self._channels[layer]

    @torch.no_grad()
    def _axes_of(self, layer: Layer) -> Axes:
        if layer not in self._known:
            watch = layer.watch(self.model)
            with evaluating(self.model):
                with watch:
                    run_model(self.model, (self.example,))
                value = watch.last()
                axes = layer.axes(self.model, watch, value, (self.example,))
                self._check_behind(layer, axes, watch.point)
                self._known[layer] = axes
                self._channels[layer] = axes.maps(value).shape[1]
        return self._known[layer]

    def _check_behind(self, layer: Layer, axes: Axes, point: tuple[nn.Module, str]) -> None:
        """Reject a layer that is read before this one, by the order of execution in a forward with two samples.

        ``point``: where the layer is read in the model as it is. A block whose output is given ends in no activation
        any more, so that its value in front of the activation would be read behind it.
        """
        watch, early = layer.watch(self.model), 0
        features = self._features.expand(2, *self._features.shape[1:])

        def given(value: Tensor) -> Tensor:
            nonlocal early
            early = len(watch.values)
            return self._value(features).to(value.dtype)

        with replaced(self.layer.watch(self.model), given), watch:
            run_model(self.model, (self._inputs_for(features),))
        read = len(watch.values)
        if read <= early or watch.point != point or len(axes.maps(watch.last())) != 2:
            raise ValueError(
                f"layer {layer.name!r} does not lie behind layer {self.layer.name!r}: it is read at the {point[1]} of "
                f"{type(point[0]).__name__}, which steps there do not reach; name units of a later layer"
            )

    def _inputs_for(self, features: Tensor) -> Inputs:
        """The example, for as many samples as what lies in front of the layer must run on."""
        inputs = each_tensor(self.example, lambda value: value.to(features.device))
        return inputs if self._alone else repeat_row(inputs, len(features))

    def _value(self, features: Tensor) -> Tensor:
        """Features as the layer holds them."""
        return self.axes.back(from_positions(features, self.shape))

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
        """Reject a layer that another path leads around: what follows is then not a function of its features."""
        if self._rest is not None:
            return
        example, self.example = self.example, vary(self.example)
        try:
            other = self(features)
        finally:
            self.example = example
        if not torch.allclose(other, outputs, rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"another path leads around layer {self.layer.name!r} (it lies inside a residual block?), so the "
                "outputs are no function of its features; name the whole block"
            )


def head_of(
    model: nn.Module, layer: str | Layer, example: Inputs | None = None, *, channels_last: bool | None = None
) -> Head:
    """The network behind a layer: f+ with model(x) = f+(features of x).

    In a (nested) ``nn.Sequential`` the modules behind the layer run; in any other network the forward runs on
    ``example`` with the layer's value replaced where :func:`layer_features` reads it. Works for maps, tokens and
    vectors, and for models that return tuples, dictionaries or dataclasses: f+ returns their logits. Where the model
    ends in a softmax or sigmoid, f+ returns the logits in front of it, and an ``AbsenceWarning`` says so.

    Args:
        model: in any mode; it runs in evaluation mode and stays as it is.
        layer: as in :func:`layer_features`.
        example: one input [1, ...] (or more, the first is used), or tensors by name. Without one a random input is made
            for the first convolution or linear layer, of the first usual size that the model takes.
        channels_last: as in :func:`layer_features`.

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
    at = layer_of(layer, channels_last)
    at.module(model)  # its error is clearer than that of a failing forward
    if example is None:
        example = _random_input(model)
    if not isinstance(example, (Tensor, Mapping)):
        raise TypeError(f"example must be a tensor [n, ...] of inputs, got a {type(example).__name__}")
    head = Head(model, at, example)
    announce(head.ending, stacklevel=2)
    return head


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
                    run_model(model, (example,))
                    return example
            break
    raise ValueError("the model's input cannot be told from its layers; pass one: head_of(model, layer, images[:1])")


def _rest_of(model: nn.Module, module: nn.Module, side: str = "output") -> list[nn.Module] | None:
    """The modules behind a side of a module, if the model is nothing but (nested) ``nn.Sequential`` on the way to
    it.
    """
    if model is module:
        return [module] if side == "input" else []
    if type(model) is not nn.Sequential or model._forward_hooks or model._forward_pre_hooks:
        return None
    children = list(model)
    for number, child in enumerate(children):
        if module in child.modules():
            inside = _rest_of(child, module, side)
            return None if inside is None else inside + children[number + 1 :]
    return None
