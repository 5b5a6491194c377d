"""Models and layers that return objects: every door gives the map of the same model that returns its tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import absence_plugins.captum as captum_adapters
import absence_plugins.zennit as zennit_adapters
from absence_plugins import ReferenceSet, Unit
from absence_plugins.core.maps import tree_map
from absence_plugins.core.scores import Scores
from absence_plugins.methods.debias import AttributionPrior
from absence_plugins.methods.directions import head_of, layer_features
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.relevance import relevance

pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass
class Dataclass:
    """As Hugging Face returns it."""

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class Named(NamedTuple):
    """As torchvision's GoogLeNet returns it."""

    logits: Tensor
    aux: Tensor


class Stage(nn.Module):
    """A layer that returns (features, None), as stages of Swin do; in front of it one that returns a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.conv(x), None


class Net(nn.Module):
    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.relu, self.stage, self.head = nn.Conv2d(1, 2, 3), nn.ReLU(), Stage(), nn.Linear(3, 4)
        self.form = [form]
        self.double().eval()

    def forward(self, x: Tensor) -> Any:
        return self.form[0](self.head(self.stage(self.relu(self.first(x)))[0].mean((2, 3))))


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": lambda z: Dataclass(z, None, (z * 2,)),
    "named tuple": lambda z: Named(z, z * 3),
    "dictionary": lambda z: {"aux": z * 3, "out": z},
    "tuple": lambda z: (z, None),
    "list": lambda z: [z],
    "softmax in a dataclass": lambda z: Dataclass(z.softmax(-1)),
}
X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
R = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)).double()
Y = torch.tensor([0, 2])
Door = Callable[[nn.Module, str, Tensor, Tensor, Tensor], Any]


def captum(name: str, *, at_layer: bool = False, **call: Any) -> Door:
    def run(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
        torch.manual_seed(0)
        made = getattr(captum_adapters, name)(net, *([layer] if at_layer else []))
        return made.attribute(x, **{"target": y, **call})

    return run


def captum_reference(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
    method = captum_adapters.AbsenceDeepLift(net, reference=ReferenceSet(r, (y + 1) % 3, k=1))
    return method.explain(x, target=y).absence


def neuron(name: str) -> Door:
    def run(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
        options = {"n_steps": 3} if "Integrated" in name else {}
        made = getattr(captum_adapters, name)(net, layer)
        return made.attribute(x, neuron_selector=lambda value: value.flatten(1)[:, 1], **options)

    return run


def zennit(name: str, composite: str = "", **options: Any) -> Door:
    def run(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
        made = getattr(zennit_adapters, composite)() if composite else None
        given = {"reference": r, **options} if name != "AbsenceGradient" or "Guided" not in composite else options

        def asked(output: Tensor) -> Tensor:
            return torch.eye(output.shape[1], dtype=output.dtype)[y]

        return getattr(zennit_adapters, name)(net, made, asked, **given)(x)[1]

    return run


def scores_of_map(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
    return absence_scores(net, x, 1, torch.ones_like(x), steps=2, cell=4, draws=2, progress=False).curves["map"]


def prior(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
    mask = torch.zeros_like(x)
    mask[..., :4] = 1
    return AttributionPrior(net)(x, y, mask).detach()


def head(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
    return head_of(net, layer, x[:1])(layer_features(net, layer, x)).detach()


def patches(net: nn.Module, layer: str, x: Tensor, r: Tensor, y: Tensor) -> Any:
    size = x.shape[-1] // 2
    return find_extreme_patches(net, "", x, k=1, size=size, stride=size, mode="mask", progress=False).lowest.scores


DOORS: dict[str, Door] = {
    "IntegratedGradients": captum("AbsenceIntegratedGradients", n_steps=3),
    "Saliency": captum("AbsenceSaliency"),
    "DeepLift": captum("AbsenceDeepLift"),
    "DeepLift, reference": captum_reference,
    "FeatureAblation": captum("AbsenceFeatureAblation", feature_mask=torch.zeros(1, 1, 1, 1, dtype=torch.long)),
    "GuidedBackprop": captum("AbsenceGuidedBackprop"),
    "LayerGradCam": captum("AbsenceLayerGradCam", at_layer=True),
    "LayerConductance": captum("AbsenceLayerConductance", at_layer=True, n_steps=3),
    "LayerIntegratedGradients": captum("AbsenceLayerIntegratedGradients", at_layer=True, n_steps=3),
    "LayerDeepLift": captum("AbsenceLayerDeepLift", at_layer=True),
    "NeuronIntegratedGradients": neuron("AbsenceNeuronIntegratedGradients"),
    "NeuronDeepLift": neuron("AbsenceNeuronDeepLift"),
    "zennit Gradient": zennit("AbsenceGradient", "AbsenceEpsilonGamma"),
    "zennit guided": zennit("AbsenceGradient", "AbsenceGuidedBackprop"),
    "zennit IntegratedGradients": zennit("AbsenceIntegratedGradients", n_iter=3, nontarget="runner_up"),
    "zennit Occlusion": zennit("AbsenceOcclusion", window=4, stride=4),
    "relevance": lambda net, layer, x, r, y: relevance(net, x, r, y).attribution,
    "absence_scores": scores_of_map,
    "AttributionPrior": prior,
    "head_of": head,
    "Unit": lambda net, layer, x, r, y: Unit("", 1).values(net, x).detach(),
    "patches": patches,
}


def assert_same(found: Any, expected: Any, **limits: Any) -> None:
    limits = {"rtol": 1e-6, "atol": 1e-9, **limits}
    tree_map(lambda one, other: torch.testing.assert_close(one, other, **limits), found, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
def test_the_map_is_that_of_the_tensor(door: str, form: str) -> None:
    net, plain = Net(FORMS[form]), Net(lambda z: z)
    assert_same(DOORS[door](net, "stage", X, R, Y), DOORS[door](plain, "stage", X, R, Y))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("door", [name for name in DOORS if not name.startswith("Neuron")])
def test_several_tensors_without_a_name_are_rejected_and_one_is_taken_by_name(door: str) -> None:
    net = Net(lambda z: {"first": z, "second": -z})
    words = r"dict with first \(., 4\), second \(., 4\).*Scores\(model, field='first'\) of absence_plugins.core.scores"
    if door in ("Unit", "patches"):
        words = "puts out first, second: it cannot be told which"
    with pytest.raises(ValueError, match=words):
        DOORS[door](net, "stage", X, R, Y)
    one, plain = Scores(net, field="second"), Net(lambda z: -z)
    assert_same(DOORS[door](one, "explained.stage", X, R, Y), DOORS[door](plain, "stage", X, R, Y))


# -- as they come -------------------------------------------------------------------------------------------------------


def transformer(name: str, config: dict[str, Any]) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}ForImageClassification")
    return made(getattr(transformers, f"{name}Config")(num_labels=3, **config)).eval()  # type: ignore[no-any-return]


SMALL = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TRANSFORMERS: dict[str, tuple[dict[str, Any], str]] = {
    "ViT": (SMALL | {"intermediate_size": 32}, "vit.layers.1"),
    "Swin": ({"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}, "swin.encoder.layers.0"),
    "ResNet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}, "resnet.encoder.stages.1"),
    "ConvNext": ({"image_size": 32, "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}, "convnext.encoder.stages.1"),
    "Beit": (SMALL | {"intermediate_size": 32, "out_indices": [1]}, "beit.layers.1"),
    "Dinov2": (SMALL, "dinov2.encoder.layer.1"),
}  # fmt: skip


class Own(nn.Module):
    """The wrapper that a user would write."""

    def __init__(self, model: nn.Module, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self.read = model, [read]
        self.eval()

    def forward(self, *inputs: Any) -> Tensor:
        return self.read[0](self.model(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_classifiers_of_transformers(name: str) -> None:
    config, layer = TRANSFORMERS[name]
    net = transformer(name, config)
    x, r = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for door, run in DOORS.items():
        found = run(net, layer, x, r, Y % 2)
        expected = run(Own(net, lambda out: out.logits), f"model.{layer}", x, r, Y % 2)
        assert_same(found, expected, rtol=1e-3, atol=1e-5, msg=door)


@pytest.mark.needs("transformers")
@pytest.mark.slow
@pytest.mark.parametrize("end", [None, "softmax"])
def test_a_text_classifier_of_transformers(end: str | None) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    net = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=50, num_labels=3, **sizes)
    ).eval()
    ids = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    call: dict[str, Any] = {"target": torch.tensor([0, 1]), "additional_forward_args": (mask,), "baselines": ids * 0}
    plain = Own(net, lambda out: out.logits)
    model = net if end is None else Own(net, lambda out: out.logits.softmax(-1))
    for name, options in (("LayerIntegratedGradients", {"n_steps": 4}), ("LayerDeepLift", {})):
        cls = getattr(captum_adapters, f"Absence{name}")
        found = cls(model, net.bert.embeddings).attribute(ids, **call, **options)
        expected = cls(plain, net.bert.embeddings).attribute(ids, **call, **options)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
        assert found.shape == (2, 7, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "googlenet"])
def test_models_of_torchvision(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    is_maps = name != "googlenet"
    builders = torchvision.models.segmentation if is_maps else torchvision.models
    options: dict[str, Any] = {"weights_backbone": None} if is_maps else {"init_weights": False}
    if name.startswith("deeplab"):
        options["aux_loss"] = True
    net = getattr(builders, name)(weights=None, num_classes=3, **options).eval()
    layer = "backbone.4" if is_maps else "inception4a"
    plain = Own(net, lambda out: out["out"]) if is_maps else Own(net, lambda out: out)
    x, r = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for door in ("Saliency", "DeepLift", "LayerGradCam", "head_of"):
        run = DOORS[door]
        found, expected = run(net, layer, x, r, Y % 2), run(plain, f"model.{layer}", x, r, Y % 2)
        assert_same(found, expected, rtol=1e-3, atol=1e-5, msg=door)
    if is_maps:
        with pytest.raises(ValueError, match="pass a module that sums them over the image"):
            prior(net, layer, x, r, Y)
