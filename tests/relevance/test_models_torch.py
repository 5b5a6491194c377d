"""torchvision's families, torch's recurrent layers and transformers; random weights, the smallest images they take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from model_checks import build, check_model, images
from torch import Tensor, nn

FAST = {"resnet18": 32, "squeezenet1_1": 32, "mobilenet_v3_small": 32, "shufflenet_v2_x0_5": 32, "regnet_y_400mf": 32}
SLOW = {
    "alexnet": 63, "vgg11": 32, "vgg11_bn": 32, "resnext50_32x4d": 32, "wide_resnet50_2": 32, "densenet121": 32,
    "googlenet": 32, "inception_v3": 75, "mobilenet_v2": 32, "mnasnet0_5": 32, "efficientnet_b0": 32,
    "efficientnet_v2_s": 32, "convnext_tiny": 32, "vit_b_16": 224, "swin_t": 32, "swin_v2_t": 64, "maxvit_t": 224,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size"), [*FAST.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in SLOW.items())]
)
def test_torchvision(name: str, size: int) -> None:
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = build(torchvision.models.get_model, name, weights=None, **settings)
    check_model(model, *images(size), single=size < 200)


class Last(nn.Module):
    """A head on the last step of a sequence model."""

    def __init__(self, model: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.model, self.head = model, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(x)
        return self.head((found[0] if isinstance(found, tuple) else found)[:, -1])  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self, weights: bool, **settings: Any) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(8, 2, batch_first=True, **settings), weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]  # type: ignore[no-any-return]


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.long, self.gated = nn.LSTMCell(8, 8), nn.GRUCell(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = c = g = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            h, c = self.long(step, (h, c))
            g = self.gated(h, g)
        return g


SEQUENCES: dict[str, Any] = {
    "LSTM": lambda: Last(nn.LSTM(8, 8, 2, batch_first=True)),
    "LSTM in both directions": lambda: Last(nn.LSTM(8, 4, batch_first=True, bidirectional=True)),
    "GRU": lambda: Last(nn.GRU(8, 8, batch_first=True)),
    "RNN": lambda: Last(nn.RNN(8, 8, batch_first=True, nonlinearity="relu")),
    "cells": Cells,
    "encoder": lambda: Last(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)),
    "norm first": lambda: Last(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
    ),
    "attention": lambda: Last(Attention(False)),
    "attention with weights": lambda: Last(Attention(True, add_bias_kv=True)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    check_model(build(SEQUENCES[name]), *torch.randn(2, 2, 6, 8, dtype=torch.float64, generator=generator))


def test_encoder_and_decoder() -> None:
    generator = torch.Generator().manual_seed(0)
    (a, b), (c, d) = torch.randn(2, 2, 2, 5, 8, dtype=torch.float64, generator=generator)
    model = build(nn.Transformer, 8, 2, 1, 1, 16, batch_first=True)
    check_model(model, (a, b), (c, d), lambda out: out[:, -1, 1])
