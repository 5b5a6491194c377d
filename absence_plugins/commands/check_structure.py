"""What a model returns and which layers it has, on one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.check_methods import first_sentence
from absence_plugins.commands.preprocessing import input_dtype
from absence_plugins.core.outputs import check_logits, shrunk
from absence_plugins.core.reading import plain_model, run_model
from absence_plugins.core.recorder import Recorder
from absence_plugins.core.scores import run_scores
from absence_plugins.core.units import Layer, LayerShape

ROWS = 25  # layers that are shown
SIDES = (224, 32, 64, 28, 299, 384, 128, 96, 16)  # of a made image, tried in this order
FEW = range(2, 21)  # outputs that may be quantities: classes without names are usually more
EMPTY = (nn.Identity, nn.Dropout, nn.modules.dropout._DropoutNd, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class OutputCheck:
    """What a model returns.

    Attributes:
        returned: the object, with its fields.
        shape: of the scores behind the batch.
        kind: "logits", "logits, in front of the softmax at the model's end" (or sigmoid), or "probabilities".
        predicted: the class with the highest score, and ``score`` that.
        reason: why the outputs cannot be explained; "" if they can.
        name: of the predicted class, if it is known.
    """

    returned: str
    shape: tuple[int, ...]
    kind: str
    predicted: int
    score: float
    reason: str = ""
    name: str = ""

    @property
    def count(self) -> str:
        """How many outputs, in words."""
        if len(self.shape) > 1:
            return f"{self.shape[0]} outputs at {' x '.join(map(str, self.shape[1:]))} places each"
        return "one output" if not self.shape or self.shape[0] == 1 else f"{self.shape[0]} outputs"

    @property
    def caution(self) -> str:
        """What to do where nothing tells scores of classes from quantities; "" where it is known."""
        is_named = self.name not in ("", f"class {self.predicted}")
        if self.kind != "logits" or is_named or len(self.shape) != 1 or self.shape[0] not in FEW:
            return ""
        return "if these outputs are quantities, not scores of classes, there is no runner-up: use nontarget=None"


@dataclass(frozen=True)
class LayerCheck:
    """A layer as a set of units.

    Attributes:
        layer, module: its name, and its class.
        channels: how many units; 0 if they cannot be read.
        positions: sizes along each axis.
        axis: of the channels, "first", "last", or "" without positions.
        side: "input" where it is read in front of a nonlinearity, else "output".
        reason: why it cannot be read; "" if it can.
    """

    layer: str
    module: str
    channels: int = 0
    positions: tuple[int, ...] = ()
    axis: str = ""
    side: str = ""
    reason: str = ""


def make_inputs(model: nn.Module) -> Tensor:
    """Smooth noise in [0, 1] that a model takes: [1, C, H, W], or [1, F] where its first layer is linear.

    Raises:
        ValueError: it takes none of the sizes that are tried.
    """
    weighted = [one for one in model.modules() if isinstance(one, (nn.modules.conv._ConvNd, nn.Linear))]
    dtype = input_dtype(model)
    shapes: list[tuple[int, ...]] = []
    if weighted and isinstance(weighted[0], nn.modules.conv._ConvNd):
        axes = {nn.Conv1d: 1, nn.Conv3d: 3}.get(type(weighted[0]), 2)
        shapes = [(1, weighted[0].in_channels, *(side,) * axes) for side in SIDES]
    elif weighted:
        features = int(weighted[0].in_features)  # type: ignore[arg-type]
        shapes = [(1, features), *((1, c, s, s) for c in (1, 3) for s in SIDES if c * s * s == features)]
    for shape in shapes:
        low = torch.rand(shape[:2] + tuple(-(-size // 8) for size in shape[2:]))
        modes = {3: "linear", 4: "bicubic", 5: "trilinear"}
        made = low if len(shape) == 2 else nn.functional.interpolate(low, shape[2:], mode=modes[len(shape)])
        try:
            with torch.no_grad():
                run_model(model, (made.clamp(0, 1).to(dtype),), {})
        except Exception:  # whatever a forward raises on a size that it does not take
            continue
        return made.clamp(0, 1).to(dtype)
    raise ValueError("the model runs on none of the made images; pass one as inputs=, as the model takes it")


def check_outputs(model: nn.Module, inputs: Tensor) -> OutputCheck:
    """What a model returns for one image, and whether these are logits."""
    with torch.no_grad():
        returned = run_model(model, (inputs,), {})
        scores, ending = run_scores(model, (inputs,))
        flat, reason = scores.reshape(len(scores), -1), ""
        kind = f"logits, in front of the {ending} at the model's end" if ending else "logits"
        try:
            check_logits(scores, lambda: run_scores(model, shrunk((inputs,)))[0])
        except ValueError as error:
            kind, reason = "probabilities" if "softmax" in str(error) else "no numbers", first_sentence(error)
    best = int(flat[0].argmax())
    return OutputCheck(_described(returned), tuple(scores.shape[1:]), kind, best, float(flat[0, best]), reason)


def _described(returned: Any) -> str:
    name = "tensor" if isinstance(returned, Tensor) else type(returned).__name__
    items = returned.items() if hasattr(returned, "items") else ()
    if isinstance(returned, Tensor):
        items = (("", returned),)
    elif isinstance(returned, (tuple, list)):
        items = enumerate(returned)
    shapes = [f"{key} {list(value.shape)}".strip() for key, value in items if isinstance(value, Tensor)]
    return f"{name} {', '.join(shapes)}".strip()


def check_layers(model: nn.Module, inputs: Tensor, every_layer: bool = False) -> tuple[tuple[LayerCheck, ...], int]:
    """The layers that run on an image, the outer ones if there are more than 25; and how many there are."""
    modules = {name: one for name, one in plain_model(model).named_modules() if name and not isinstance(one, EMPTY)}
    depths = Counter(name.count(".") for name in modules)
    chosen, total = list(modules), 0
    if not every_layer and len(modules) > ROWS:
        deepest = -1
        for depth in sorted(depths):
            total += depths[depth]
            if total > ROWS and deepest >= 0:
                break
            deepest = depth
        chosen = [name for name in modules if name.count(".") <= deepest]
    return tuple(_read_shapes(model, {name: modules[name] for name in chosen}, inputs)), len(modules)


def _read_shapes(model: nn.Module, modules: Mapping[str, nn.Module], inputs: Tensor) -> list[LayerCheck]:
    """All of these layers in one forward."""
    with Recorder(model) as recorder, torch.no_grad():
        watches = {name: recorder.watch(name) for name in modules}
        run_model(model, (inputs,), {})
    found = []
    for name, watch in watches.items():
        kind, layer = type(modules[name]).__name__, Layer(name)
        try:
            value = watch.last()
            shape = LayerShape.of(layer, watch, layer.axes(model, watch, value, (inputs,)), value)
        except Exception as error:  # of whatever a layer is: windows, tuples, one that does not run
            found.append(LayerCheck(name, kind, reason=first_sentence(error)))
            continue
        found.append(LayerCheck(name, kind, shape.channels, shape.positions, shape.axis, shape.side))
    return found


def find_read_layer(layers: Sequence[LayerCheck]) -> str:
    """The last layer that has positions, else the last one with channels but the output; "" if there is none."""
    readable = [one.layer for one in layers if one.channels > 1 and any(size > 1 for size in one.positions)]
    return (readable or [one.layer for one in layers[:-1] if one.channels > 1] or [""])[-1]
