"""One address is one number: a table of addresses x readers, each against a forward hook that is written here."""

from __future__ import annotations

import ast
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import absence_plugins
from absence_plugins import Direction, Layer, Unit, captum
from absence_plugins.commands.label import Samples, read_layer
from absence_plugins.lucent import absence_channel, unit_values
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.directions import head_of, layer_features, removal_check
from absence_plugins.methods.faithfulness.explained import resolved, unit_value
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.report.unit import study_of

IMAGES = 5
QUIET: dict[str, Any] = {"progress": False}


# -- networks ---------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block whose one rectifier runs twice and works in place, as in a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.norm = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.relu(self.conv(x)))
        hidden += x
        return self.relu(hidden)  # type: ignore[no-any-return]


@dataclass
class Hidden:
    """As the encoders of transformers return it."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act, self.back = nn.Linear(8, 9), nn.GELU(), nn.Linear(9, 7)

    def forward(self, tokens: Tensor) -> Hidden:
        hidden = self.back(self.act(self.embed(tokens)))
        return Hidden(hidden, hidden[:, 0])


class Tokens(nn.Module):
    """Images [B, 1, 8, 8] -> 8 tokens of 8 pixels; returns a dataclass, whose logits are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.encoder(x.squeeze(1)).last_hidden_state.mean(1))}


def cnn() -> nn.Module:
    layers = OrderedDict(
        first=nn.Conv2d(1, 6, 3, padding=1), relu=nn.ReLU(inplace=True), block=Block(), stage=nn.Sequential(Block(), Block()),
        drop=nn.Dropout(), flat=nn.Flatten(), head=nn.Linear(6 * 64, 3),
    )  # fmt: skip
    return nn.Sequential(layers)


def signal() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Conv1d(6, 7, 3), nn.Flatten(), nn.Linear(35, 3))


def volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 6, 2), nn.BatchNorm3d(6), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn": (cnn, (1, 8, 8)),
    "tokens": (Tokens, (1, 8, 8)),
    "vit": (lambda: torchvision.models.vit_b_16(weights=None, image_size=32, num_classes=3), (3, 32, 32)),
    "swin": (lambda: torchvision.models.swin_t(weights=None, num_classes=3), (3, 32, 32)),
    "signal": (signal, (2, 9)),
    "volume": (volume, (1, 3, 3, 3)),
}


@dataclass(frozen=True)
class Address:
    """A unit, and where an independent hook finds it: on this side of this module, with the channels on this axis."""

    net: str
    layer: str
    unit: int
    module: str
    side: str
    axis: int

    def __str__(self) -> str:
        return f"{self.net}-{self.layer}-{self.unit}"


ADDRESSES = [
    Address(*row)
    for row in [
        ("cnn", "first", 5, "first", "output", 1),  # an in-place rectifier follows
        ("cnn", "relu", 4, "relu", "input", 1),
        ("cnn", "block", 3, "block.relu", "input", 1),
        ("cnn", "stage", 2, "stage.1.relu", "input", 1),
        ("cnn", "block.norm", 1, "block.norm", "output", 1),
        ("cnn", "head", 2, "head", "output", 1),
        ("tokens", "encoder", 6, "encoder", "output", 2),
        ("tokens", "encoder.embed", 8, "encoder.embed", "output", 2),
        ("tokens", "encoder.act", 2, "encoder.act", "input", 2),
        ("vit", "conv_proj", 700, "conv_proj", "output", 1),
        ("vit", "encoder.layers.encoder_layer_2", 700, "encoder.layers.encoder_layer_2", "output", 2),
        ("vit", "encoder.layers.encoder_layer_1.mlp", 3, "encoder.layers.encoder_layer_1.mlp", "output", 2),
        ("vit", "encoder.layers.encoder_layer_1.mlp.1", 3000, "encoder.layers.encoder_layer_1.mlp.1", "input", 2),
        ("swin", "features.1", 90, "features.1", "output", 3),
        ("swin", "features.3.0.norm1", 150, "features.3.0.norm1", "output", 3),
        ("swin", "features.3.0.mlp.1", 500, "features.3.0.mlp.1", "input", 3),
        ("signal", "0", 5, "0", "output", 1),
        ("signal", "1", 4, "1", "input", 1),
        ("volume", "1", 5, "1", "output", 1),
        ("volume", "2", 3, "2", "input", 1),
    ]
]


@cache
def problem(net: str) -> tuple[nn.Module, Tensor]:
    """The network and inputs; readers leave both as they are."""
    build, shape = BUILDERS[net]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()  # type: ignore[union-attr,operator]
        return model, torch.randn(IMAGES, *shape)


@cache
def by_hook(address: Address) -> Tensor:
    """The unit on every input [N], written a second time."""
    model, x = problem(address.net)
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: Any, output: Any = None) -> None:
        value = inputs[0] if address.side == "input" else output
        seen.append((value.last_hidden_state if isinstance(value, Hidden) else value).clone())

    module = dict(model.named_modules())[address.module]
    handle = (module.register_forward_pre_hook if address.side == "input" else module.register_forward_hook)(keep)
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[-1].select(address.axis, address.unit).reshape(len(x), -1).mean(1)


# -- readers ----------------------------------------------------------------------------------------------------------

Reader = Callable[[nn.Module, Tensor, str, int], Tensor]


def unit_of_model(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    return Unit(layer, unit).of(model)(x)  # type: ignore[no-any-return]


def layer_reading(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    at = Layer(layer)
    with at.reading(model) as run:
        return torch.cat([at.reduced(run(part)) for part in x.split(2)])[:, unit]


def direction(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    channels = Layer(layer).shape(model, x).channels
    return Direction(layer, torch.eye(channels)[unit]).values(model, x)


def label(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    samples = Samples(Batches.of(x, 2), lambda i: x[i], torch.zeros(len(x), 1), ("a",), "")
    return read_layer(model, layer, samples, progress=False)[:, unit]


def scores(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    explained = resolved(Unit(layer, unit), len(x))
    return unit_value(model, explained, x)(x, torch.arange(len(x)))


def patches(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    """Of windows that are whole images."""
    side = x.shape[-1]
    found = find_extreme_patches(model, layer, x, k=len(x), size=side, stride=side, units=[unit], **QUIET)
    values = torch.full((len(x),), torch.nan)
    for side_of in (found.highest, found.lowest):
        values[side_of.positions[0, :, 0]] = side_of.scores[0]
    return values


def insertion(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    """The images into which nothing was pasted yet."""
    scan: dict[str, Any] = {
        "k": 2,
        "size": x.shape[-1] // 2,
        "stride": x.shape[-1] // 2,
        "mode": "mask",
        "units": [unit],
    }
    found = find_extreme_patches(model, layer, x, **scan, **QUIET)
    tested = insertion_test(model, layer, x, found, images_per_unit=len(x), protocol="paper", **QUIET)
    values = torch.full((len(x),), torch.nan)
    values[tested.images[0]] = tested.values[0, :, 0]
    return values


def study(model: nn.Module, x: Tensor, layer: str, unit: int) -> Any:
    scan = {"size": x.shape[-1] // 2, "stride": x.shape[-1] // 2, "mode": "mask"}
    return study_of(model, layer, [unit], x, maps=None, pictures=None, **scan, **QUIET)


def report_values(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    return study(model, x, layer, unit).values(unit)  # type: ignore[no-any-return]


def report_neuron(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    """What maps, pictures and their scores explain on a unit's page."""
    return study(model, x, layer, unit).neuron(unit)(x)  # type: ignore[no-any-return]


def features(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    return layer_features(model, layer, x)[..., unit].flatten(1).mean(1)


def behind_a_layer(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    """As ``influence`` reads it: behind the network's first layer, whose features are put back where they were."""
    front = next(name for name in FIRST_LAYERS if name in dict(model.named_modules()))
    head = head_of(model, front, x)
    return head.read(layer_features(model, front, x), [Unit(layer, unit)])[1][0]


def rises(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
    return torch.tensor([removal_check(model, x[:1], one[None], Unit(layer, unit)).mean_rise for one in x])


def neuron(name: str, **options: Any) -> Reader:
    """The value that one of Captum's neuron classes explains; the selector gets the activation in its own layout."""

    def explained(model: nn.Module, x: Tensor, layer: str, unit: int) -> Tensor:
        axis = next(
            one.axis for one in ADDRESSES if (one.layer, one.unit) == (layer, unit) and problem(one.net)[0] is model
        )
        method = getattr(captum, f"AbsenceNeuron{name}")(model, model.get_submodule(layer))
        found = method.explain(x, lambda value: value.select(axis, unit).reshape(len(value), -1).mean(1), **options)
        return found.output  # type: ignore[no-any-return]

    return explained


READERS: dict[str, Reader] = {
    "Unit.values": lambda model, x, layer, unit: Unit(layer, unit).values(model, x),
    "Unit.of": unit_of_model,
    "Layer.read": lambda model, x, layer, unit: Layer(layer).read(model, x)[:, unit],
    "Layer.reading": layer_reading,
    "Direction": direction,
    "label": label,
    "absence_scores": scores,
    "AbsenceNeuronGradient": neuron("Gradient"),
    "AbsenceNeuronIntegratedGradients": neuron("IntegratedGradients", n_steps=2),
    "lucent": lambda model, x, layer, unit: unit_values(model, absence_channel(layer, unit), x, batch_size=2),
}
OF_IMAGES: dict[str, Reader] = {
    "find_extreme_patches": patches,
    "insertion_test": insertion,
    "explain_unit values": report_values,
    "explain_unit neuron": report_neuron,
    "layer_features": features,
    "influence": behind_a_layer,
}
DIFFERENCES: dict[str, Reader] = {"removal_check": rises}  # from the first input
FIRST_LAYERS = ("first", "encoder.embed", "conv_proj", "features.0")
ALL_READERS = {**READERS, **OF_IMAGES, **DIFFERENCES}
TABLE = [
    (address, name)
    for address in ADDRESSES
    for name in (ALL_READERS if len(BUILDERS[address.net][1]) == 3 else {**READERS, **DIFFERENCES})
]


@pytest.mark.parametrize(("address", "reader"), TABLE, ids=lambda one: str(one))
def test_every_reader_gives_the_number_of_an_independent_hook(address: Address, reader: str) -> None:
    model, x = problem(address.net)
    before = x.clone()
    found = ALL_READERS[reader](model, x, address.layer, address.unit).detach()
    expected = by_hook(address)
    expected = expected - expected[0] if reader in DIFFERENCES else expected
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(x, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# -- a second reader ----------------------------------------------------------------------------------------------------

PACKAGE = Path(absence_plugins.__file__).parent
REGISTER = {
    "register_forward_hook", "register_forward_pre_hook", "register_module_forward_hook",
    "register_module_forward_pre_hook",
}  # fmt: skip
HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
# Modules whose hooks do not read a unit's value by a second rule, how many there are, and what they are for.
ALLOWED = {
    "captum/points.py": (
        2,
        "core's own Watch, on a module that Captum's caller passes and that may have no name in a model; a look at the "
        "form of what Captum's own hook is about to get, of which no value is read",
    ),
    "captum/perturbed.py": (
        2,
        "put perturbed values in the place of what a layer gives or is given, as Captum's LayerFeatureAblation does",
    ),
    "bench/replay.py": (2, "note which calls a model gets, so that they can be run again"),
    "captum/differences.py": (
        1,
        "core's own Watch, on the layer that Captum's caller passes: the neuron inside a comparison",
    ),
    "zennit/root_hook.py": (2, "enter the relevance engine in front of the model's forward, and leave it behind"),
    "zennit/rules.py": (
        2,
        "Zennit's own form of a rule; it names the redistribution inside its module and reads no value",
    ),
    "zennit/scores.py": (
        2,
        "look for the softmax that a model ends in while its forward runs, and hand its scores to Zennit's own attributor",
    ),
    "lucent/unstick.py": (2, "let a rectifier's gradient pass where it would raise an inactive input"),
}


def hooks_in(text: str) -> list[str]:
    """Every name by which a module could register a forward hook, or read by one of core's."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in REGISTER:
            found.append(node.attr)
        elif isinstance(node, ast.Constant) and node.value in REGISTER:  # getattr(module, "register_forward_hook")
            found.append(node.value)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):  # module._forward_hooks[key] = hook
            found += [node.value.attr] if isinstance(node.value, ast.Attribute) and node.value.attr in HOOKS else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("absence_plugins.core"):
            found += [one.name for one in node.names if one.name == "capture"]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Watch":
            found.append("Watch")  # of a module, and not of a Layer
    return found


def test_only_core_reads_values_by_hooks() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("core/") and (hooks := hooks_in(path.read_text(encoding="utf-8"))):
            found[name] = len(hooks)
    assert found == {name: count for name, (count, _) in ALLOWED.items()}, (
        "a hook outside absence_plugins/core: read values with Layer, Unit or Direction; if it changes the computation "
        "instead, add it to the list here with its reason"
    )


@pytest.mark.parametrize(
    "text",
    [
        "module.register_forward_hook(keep)",
        "getattr(module, 'register_forward_pre_hook')(keep)",
        "module._forward_hooks[0] = keep",
        "from absence_plugins.core.hooks import capture, evaluating",
        "watch = Watch(module, 'auto', 'a layer')",
        "def f():\n    torch.nn.modules.module.register_module_forward_hook(keep)",
    ],
)
def test_a_second_reader_is_seen(text: str) -> None:
    assert len(hooks_in(text)) == 1
