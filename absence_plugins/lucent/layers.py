"""Layers as Lucent names them, and their values before the nonlinearity, captured while the model runs.

After a ReLU the lowest value is 0: thousands of images reach it, and the gradient there is 0. What a unit hates shows
only in front of it. In-place operations (``ReLU(inplace=True)``, ``out += identity``) overwrite the tensors that hooks
saw, so everything here is a copy, taken at the moment at which the value stands.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning

# Their input is the pre-activation.
ACTIVATIONS = (
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.PReLU,
        nn.RReLU,
        nn.ELU,
        nn.CELU,
        nn.SELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
    ),
    *(
        nn.Hardswish,
        nn.Hardtanh,
        nn.Hardsigmoid,
        nn.Sigmoid,
        nn.Tanh,
        nn.Softplus,
        nn.Softsign,
        nn.Threshold,
    ),
    *(nn.Softmax, nn.LogSoftmax),
)
ALONG_AXIS_1 = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
)
LABELS, INPUT = "labels", "input"


class Preactivation(str):
    """A layer's name, when its value before the nonlinearity is asked for: ``T(Preactivation("layer1_0"))``."""

    __slots__ = ()


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module behind a name of Lucent's (``layer1_0_bn2``) or PyTorch's (``layer1.0.bn2``); ``labels``: the model.

    Raises:
        ValueError: there is none, or Lucent's way of joining names makes two modules share it.
    """
    if name == LABELS:
        return model
    modules = {dotted: module for dotted, module in model.named_modules(remove_duplicate=False) if dotted}
    if name in modules:
        return modules[name]
    matches = [dotted for dotted in modules if dotted.replace(".", "_") == name]
    if len(matches) > 1:
        raise ValueError(f"layer {name!r} may be {' or '.join(matches)}; write its name with dots")
    if not matches:
        names = [dotted.replace(".", "_") for dotted in modules]
        shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
        raise ValueError(f"the model has no layer {name!r}; it has: {shown}, labels")
    return modules[matches[0]]


class Activations:
    """What the layers of one forward put out: Lucent's ``T``, which objectives call with a layer's name.

    ``T("conv1")`` is the very tensor that Lucent hands out; ``T(Preactivation("conv1"))`` is a copy of the value
    before the nonlinearity, [B, C, ...] or [B, tokens, C].
    """

    def __init__(self, model: nn.Module, image: Any) -> None:
        self.model, self._image = model, image
        self._outputs: dict[nn.Module, Any] = {}
        self._values: dict[nn.Module, Tensor] = {}
        self._last: dict[nn.Module, tuple[Any, Tensor]] = {}  # activation inside a watched module: output, input
        self._inputs: dict[nn.Module, list[Tensor]] = {}
        self._watched: dict[nn.Module, Sequence[nn.Module]] = {}
        self._found: dict[str, nn.Module] = {}
        self._stack = ExitStack()
        self.asked: set[str] = set()

    def __call__(self, name: str) -> Any:
        """The layer's output (or pre-activation) in the last forward."""
        if isinstance(name, Preactivation):
            self.asked.add(str(name))
            module = self.module(name)
            if module not in self._watched:
                self.watch(module)
            if module not in self._values:
                raise LayerNotComputed(f"layer {str(name)!r} was not computed in the model's forward")
            return self._values[module]
        if name == INPUT:
            return self._image()
        found = self._outputs.get(self._plain_module(name))
        if found is None:
            raise LayerNotComputed(f"layer {name!r} was not computed in the model's forward")
        return found

    def module(self, name: str) -> nn.Module:
        """As :func:`find_layer`, which is asked once."""
        if name not in self._found:
            self._found[name] = find_layer(self.model, name)
        return self._found[name]

    def _plain_module(self, name: str) -> nn.Module:
        """As Lucent resolves names: ``labels`` is the module that was defined last."""
        return list(self.model.modules())[-1] if name == LABELS else self.module(name)

    def forget(self) -> None:
        """Before a forward."""
        for found in (self._outputs, self._values, self._last, self._inputs):
            found.clear()

    @contextmanager
    def hooked(self) -> Iterator[Activations]:
        """With hooks on the model; none is left after the block."""
        with self._stack:
            for module in self.model.modules():
                if module is not self.model:
                    self._on(module.register_forward_hook(self._keep_output))
            yield self

    def watch(self, module: nn.Module) -> None:
        """Capture the pre-activation of a module from the next forward on."""
        activations = [found for found in module.modules() if isinstance(found, ACTIVATIONS)]
        self._watched[module] = list(activations)
        for activation in activations:
            self._on(activation.register_forward_pre_hook(self._before, prepend=True))
            self._on(activation.register_forward_hook(self._after, prepend=True))
        if not isinstance(module, ACTIVATIONS):
            # in front of other hooks: the copy is taken before anything works in place on the output
            self._on(module.register_forward_hook(self._settle, prepend=True))

    def _on(self, handle: Any) -> None:
        self._stack.callback(handle.remove)

    def _keep_output(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._outputs[module] = output

    def _before(self, module: nn.Module, inputs: Any) -> None:
        self._inputs.setdefault(module, []).append(inputs[0].clone())

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        value = self._inputs[module].pop()
        self._last[module] = (output, value)
        if module in self._watched:
            self._values[module] = value

    def _settle(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, (tuple, list)):
            output = output[0]
        if not isinstance(output, Tensor):
            raise ValueError(f"a {type(module).__name__} puts out a {type(output).__name__}; objectives need a tensor")
        for activation in reversed(self._watched[module]):
            found = self._last.get(activation)
            if found is not None and found[0] is output:  # the module ends in this activation
                self._values[module] = found[1]
                return
        self._values[module] = output.clone()


class LayerNotComputed(ValueError):
    """An objective asks for a layer that the forward did not reach."""


def channel_axis(module: nn.Module, value: Tensor) -> int:
    """Where the channels are: axis 1 of [B, C], [B, C, H, W], [B, C, L]; the last axis of tokens [B, T, C]."""
    return 2 if value.dim() == 3 and not isinstance(module, ALONG_AXIS_1) else 1


def channels_last(module: nn.Module, value: Tensor) -> Tensor:
    """A value with its positions in between and its channels at the end: [B, ..., C]."""
    return value.movedim(channel_axis(module, value), -1)


def at_position(module: nn.Module, value: Tensor, x: int | None, y: int | None) -> Tensor:
    """The values of all channels at one position, [B, C]: the center by default, as in Lucent; of tokens number x.

    Raises:
        ValueError: the position lies outside.
    """
    placed = channels_last(module, value)
    sizes = placed.shape[1:-1]
    asked: Iterable[tuple[str, int | None]] = (("x", x),) if len(sizes) == 1 else (("y", y), ("x", x))
    if len(sizes) == 0:
        return placed
    if len(sizes) > 2:
        raise ValueError(f"a layer with values of shape {tuple(value.shape)} has no position x, y")
    for (name, index), size in zip(asked, sizes, strict=True):
        chosen = size // 2 if index is None else index
        if not -size <= chosen < size:
            raise ValueError(f"{name}={index} lies outside the layer, which has {size} positions along it")
        placed = placed.select(1, chosen)
    return placed


def warn_if_rectified(name: str, value: Tensor) -> None:
    """Say so where a value looks like a rectifier's output, called as a function or pooled."""
    if bool((value >= 0).all()) and bool((value == 0).any()):
        warnings.warn(
            f"every value of layer {name!r} is 0 or more, and some are exactly 0, as behind a ReLU: the lowest value is then 0, "
            "and many images reach it; name the layer in front of the rectifier",
            AbsenceWarning,
            stacklevel=4,
        )
