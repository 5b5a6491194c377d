"""Tokens as positions on people's transformers: class tokens, registers and padding are kept apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Layer, Unit
from absence_plugins.core.reading import run_model
from absence_plugins.core.scores import logits_of
from absence_plugins.methods.directions import DirectionPairs, head_of, influence, layer_features
from absence_plugins.methods.directions.inputs import Inputs, batches_of
from absence_plugins.methods.directions.positions import choose_prefix, count_positions, find_prefix

pytestmark = pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
QUICK: dict[str, Any] = {"n_permutations": 20}


def timm_vit(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    import timm

    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 4}
    return timm.create_model(name, pretrained=False, **(small | options)).eval()


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=4)
    nn.init.normal_(model.heads.head.weight)  # zero as it comes
    return model.eval()


def hugging_vit(kind: str) -> nn.Module:
    import transformers

    sizes: dict[str, Any] = {
        "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "num_labels": 4,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return getattr(transformers, f"{kind}ForImageClassification")(config).eval()  # type: ignore[no-any-return]


def images(count: int = 40, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def prefix_of(model: nn.Module, layer: str, x: Tensor) -> int:
    at = Layer(layer)
    return choose_prefix(None, model, at, x[:1], at.shape(model, x[:1]).positions)


def check_prefix_is_still(model: nn.Module, layer: str, x: Tensor, prefix: int) -> None:
    """A step of a direction changes unit j of the layer at every place but the prefix."""
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, layer, x)
    assert any("kept apart" in note for note in pairs.notes_) == bool(prefix)
    positions = [Unit(layer, 0, position=place) for place in range(prefix + 2)]
    found = influence(pairs, model, layer, x, outputs=[*positions, 0], **QUICK)
    moved = found.effect.abs().amax(0) > 0
    assert moved.tolist() == [False] * prefix + [True] * 3
    everywhere = influence(pairs, model, layer, x, outputs=positions, test="rcav", prefix_tokens=0, **QUICK)
    assert bool((everywhere.effect.abs().amax(0) > 0).all())


@pytest.mark.needs("timm")
def test_timm() -> None:
    torch.manual_seed(0)
    x = images()
    with_registers = timm_vit(reg_tokens=2)
    assert prefix_of(with_registers, "blocks.0", x) == 3
    assert prefix_of(with_registers, "patch_embed", x) == 0
    assert prefix_of(timm_vit(class_token=False, global_pool="avg"), "blocks.0", x) == 0
    assert prefix_of(timm_vit("deit_tiny_distilled_patch16_224"), "blocks.1", x) == 2
    assert prefix_of(timm_vit("vit_tiny_patch16_224", img_size=(16, 32)), "blocks.0", x[..., :16, :]) == 1
    check_prefix_is_still(with_registers, "blocks.0", x, 3)


@pytest.mark.needs("timm")
def test_swin_has_channels_last_and_no_class_token() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2),
        num_classes=4,
    ).eval()  # fmt: skip
    x = images(20)
    assert layer_features(model, "layers.0", x).shape == (20, 8, 8, 12)
    assert prefix_of(model, "layers.0", x) == 0
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, "layers.0", x)
    found = influence(pairs, model, "layers.0", x, outputs=[0, Layer("layers.1")], **QUICK)
    assert found.outputs[:2] == ("class 0", "layers.1:0")
    assert bool(found.effect.any(0).all())


@pytest.mark.needs("transformers")
def test_hugging_face_vision() -> None:
    torch.manual_seed(0)
    x = images()
    for kind, prefix in (("ViT", 1), ("Dinov2WithRegisters", 5)):
        model = hugging_vit(kind)
        layer = next(name for name, module in model.named_modules() if type(module).__name__ == f"{kind}Layer")
        assert prefix_of(model, layer, x) == prefix
        if kind == "ViT":
            check_prefix_is_still(model, layer, x, 1)


def test_torchvision() -> None:
    torch.manual_seed(0)
    check_prefix_is_still(torchvision_vit(), "encoder.layers.encoder_layer_0", images(), 1)


def test_without_a_patch_embedding_a_square_number_of_tokens_decides() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token, self.body, self.last = nn.Parameter(torch.zeros(1, 1, 4)), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.body(x)).mean(1)  # type: ignore[no-any-return]

    model = Tokens()
    for tokens, prefix in ((10, 1), (9, 0), (11, 0)):
        assert find_prefix(model, Layer("body"), torch.zeros(1, tokens, 4), tokens) == prefix
    for given, words in ((10, "leaves nothing"), (-1, "prefix_tokens")):
        with pytest.raises(ValueError, match=words):
            choose_prefix(given, model, Layer("body"), torch.zeros(1, 10, 4), (10,))
    with pytest.raises(ValueError, match="no axis of tokens"):
        choose_prefix(1, model, Layer("body"), torch.zeros(1, 10, 4), (3, 3))


@pytest.mark.needs("transformers")
def test_a_text_encoder_with_padded_texts() -> None:
    """Padding is no position: a text has the same features, effects and head alone and beside a longer one."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    model = transformers.BertForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 50, (40, 8), generator=generator)
    lengths = torch.randint(3, 9, (40,), generator=generator)
    mask = (torch.arange(8) < lengths[:, None]).long()
    texts = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.zeros(40)}
    layer = "bert.encoder.layer.0"
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, layer, texts, prefix_tokens=1)
    assert pairs.report_.n_positions == int(mask.sum()) - 40
    assert any("the attention mask leaves out" in note for note in pairs.notes_)
    other = texts | {"input_ids": torch.where(mask == 1, ids, 7)}
    found, same = (
        influence(pairs, model, layer, one, outputs=[0, Unit("bert.encoder.layer.1", 3, position=0)], **QUICK)
        for one in (texts, other)
    )
    assert torch.allclose(found.effect, same.effect, atol=1e-5)
    assert bool(found.effect.any())

    inputs: Inputs = next(batches_of(texts, 40, model))
    features = layer_features(model, layer, inputs)
    counted = count_positions(inputs, features, 1)
    assert counted.sum().item() == pairs.report_.n_positions
    with torch.no_grad():
        expected = logits_of(run_model(model, (inputs,)))
    head = head_of(model, layer, inputs)
    assert torch.allclose(head.read(features, (), inputs)[0], expected, atol=1e-5)
    assert not torch.allclose(head(features), expected, atol=1e-5), "the mask of the first text is not everyone's"


@pytest.mark.needs("transformers")
def test_texts_of_one_length_as_numbers() -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.DistilBertConfig(vocab_size=30, dim=16, n_layers=2, n_heads=2, hidden_dim=32, num_labels=3)
    model = transformers.DistilBertForSequenceClassification(config).eval()
    ids = torch.randint(0, 30, (40, 6), generator=torch.Generator().manual_seed(0))
    layer = "distilbert.transformer.layer.0"
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, layer, ids)
    assert "alignment" in pairs.losses_
    assert pairs.report_.n_positions == 240
    found = influence(pairs, model, layer, ids, **QUICK)
    assert found.outputs == ("class 0", "class 1", "class 2")
    assert bool(found.effect.any(0).all())


def test_features_of_an_mlp() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(net, "3", x)
    found = influence(pairs, net, "3", x, outputs=[Layer("3"), 0], **QUICK)
    step = (pairs.encoding * pairs.step).T.double()  # of one position: the whole
    assert torch.allclose(found.effect[:, :6], step, atol=1e-4)
