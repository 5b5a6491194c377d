"""Models of torchvision, timm and Hugging Face's transformers with random weights, and two inputs for each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 10


@dataclass(frozen=True)
class Entry:
    """A model by the name that its package knows.

    Attributes:
        source: "torchvision", "timm" or "transformers".
        name: as the package calls it; of transformers the name in front of ``Config``.
        size: pixels a side of the images; 0 for a language model.
        options: for its builder, beyond the number of classes.
    """

    source: str
    name: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)


def _entries(source: str, sizes: dict[str, int], options: dict[str, dict[str, Any]]) -> list[Entry]:
    return [Entry(source, name, size, options.get(name, {})) for name, size in sizes.items()]


TORCHVISION = {
    "alexnet": 63, "vgg11": 32, "vgg11_bn": 32, "resnet18": 32, "resnext50_32x4d": 32, "squeezenet1_1": 32,
    "densenet121": 32, "googlenet": 32, "inception_v3": 75, "shufflenet_v2_x0_5": 32, "mobilenet_v2": 32,
    "mobilenet_v3_small": 32, "mnasnet0_5": 32, "efficientnet_b0": 32, "efficientnet_v2_s": 32, "regnet_y_400mf": 32,
    "convnext_tiny": 32, "vit_b_32": 64, "swin_t": 32, "swin_v2_t": 64,
}  # fmt: skip
TIMM = {
    "resnet10t": 32, "seresnext26d_32x4d": 64, "resnetv2_50": 64, "res2net50_14w_8s": 64, "mobilenetv3_small_050": 32,
    "efficientnet_lite0": 64, "mixnet_s": 64, "ghostnet_050": 64, "regnety_002": 64, "lcnet_035": 32,
    "convnextv2_atto": 64, "nf_resnet26": 64, "mobilevit_xxs": 64, "vit_tiny_patch16_224": 64, "levit_128s": 224,
}  # fmt: skip
PYRAMID = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TRANSFORMERS = {"ViT": 32, "ConvNext": 32, "Bert": 0, "GPT2": 0}
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vit_b_32": {"image_size": 64},
    "vit_tiny_patch16_224": {"img_size": 64},
    "ViT": {**SMALL, "image_size": 32, "patch_size": 8},
    "ConvNext": PYRAMID,
    "Bert": {**SMALL, "vocab_size": 50, "max_position_embeddings": 20},
    "GPT2": {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20, "pad_token_id": 0},
}
ZOO = [
    *_entries("torchvision", TORCHVISION, OPTIONS),
    *_entries("timm", TIMM, OPTIONS),
    *_entries("transformers", TRANSFORMERS, OPTIONS),
]
TOKENS = 7


def installed(entries: list[Entry]) -> list[Entry]:
    """Those whose package is installed."""
    return [entry for entry in entries if find_spec(entry.source) is not None]


class Logits(nn.Module):
    """A model of transformers as a function of one tensor of numbers: pixels, or word embeddings [B, T, E]."""

    def __init__(self, model: nn.Module, argument: str) -> None:
        super().__init__()
        self.model, self.argument = model, argument

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        found: Tensor = self.model(**{self.argument: x}).logits
        return found


def build(entry: Entry) -> tuple[nn.Module, Tensor, Tensor]:
    """The model in evaluation mode, and x and r, both [1, ...] of normal noise; the global random state is as before.

    Weights that start at 0, as in the heads of vision transformers, are drawn, too: otherwise every map is 0.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model, shape = _made(entry)
        for parameter in model.parameters():
            if parameter.dim() > 1 and not bool(parameter.any()):
                nn.init.normal_(parameter, 0, 0.1)
        x, r = torch.randn(2, 1, *shape)
    return model.eval(), x, r


def _made(entry: Entry) -> tuple[nn.Module, tuple[int, ...]]:
    package = importlib.import_module(entry.source)
    image = (3, entry.size, entry.size)
    model: nn.Module
    if entry.source == "torchvision":
        models = importlib.import_module("torchvision.models")
        model = models.get_model(entry.name, weights=None, num_classes=CLASSES, **entry.options)
        return model, image
    if entry.source == "timm":
        model = package.create_model(entry.name, pretrained=False, num_classes=CLASSES, **entry.options)
        return model, image
    config = getattr(package, f"{entry.name}Config")(num_labels=CLASSES, **entry.options)
    task = "ForImageClassification" if entry.size else "ForSequenceClassification"
    model = getattr(package, entry.name + task)(config)
    if entry.size:
        return Logits(model, "pixel_values"), image
    width: int = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    return Logits(model, "inputs_embeds"), (TOKENS, width)
