"""Classes of Hugging Face's transformers in tiny configurations, with random weights; words at their embedding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_checks import build, check_model, images

from absence_plugins.relevance import relevance

transformers = pytest.importorskip("transformers", exc_type=ImportError)
pytestmark = pytest.mark.needs("transformers")

VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
}
TEXT = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 20,
}  # fmt: skip
PYRAMID = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
ON_IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ForImageClassification", {**VISION, "patch_size": 8}),
    "Swin": (
        "ForImageClassification",
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4},
    ),
    "ConvNext": ("ForImageClassification", PYRAMID),
    "ResNet": ("ForImageClassification", {"embedding_size": 8, **PYRAMID}),
    "Beit": ("ForImageClassification", {**VISION, "patch_size": 8}),
}
ON_WORDS: dict[str, dict[str, Any]] = {
    "Bert": TEXT,
    "Roberta": TEXT,
    "DistilBert": {
        "vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 20,
    },
    "GPT2": {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20, "pad_token_id": 0},
}  # fmt: skip


def make(name: str, task: str, settings: dict[str, Any]) -> Any:
    config = getattr(transformers, f"{name}Config")(**settings, num_labels=3)
    return build(getattr(transformers, name + task), config)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_images(name: str) -> None:
    x, r = images(32)
    check_model(make(name, *ON_IMAGES[name]), {"pixel_values": x}, {"pixel_values": r})


@pytest.mark.parametrize("name", ON_WORDS)
def test_words(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, r = torch.randint(5, 50, (2, 2, 7), generator=generator)
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    model = make(name, "ForSequenceClassification", ON_WORDS[name])
    check_model(model, {"input_ids": x, "attention_mask": mask}, {"input_ids": r, "attention_mask": mask})


def test_one_word_has_its_relevance_where_it_stands() -> None:
    model = make("Bert", "ForSequenceClassification", TEXT)
    x = torch.tensor([[7, 8, 9, 10]])
    r = torch.tensor([[7, 8, 3, 10]])
    found = relevance(model, {"input_ids": x}, {"input_ids": r}, 1).attribution["input_ids"]
    assert found.shape == (1, 4, 16)
    assert (found.abs().sum(2) > 0).tolist() == [[False, False, True, False]]


def test_models_that_compute_in_float32_inside() -> None:
    # Llama's normalization runs in float32 whatever the weights: its sums are as exact as that
    settings = {**TEXT, "num_key_value_heads": 1, "pad_token_id": 0}
    model = make("Llama", "ForSequenceClassification", settings)
    x, r = torch.tensor([[7, 8, 9, 10]]), torch.tensor([[7, 3, 9, 10]])
    found = relevance(model, {"input_ids": x}, {"input_ids": r}, 1)
    assert float(found.conservation_error.max()) < 1e-4
