"""Concepts as scores: thresholds from the searched half alone, against plain simulations; embeddings of images and texts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from absence_plugins.methods.invert import ConceptScores, choose_threshold, label_units, score_concepts

NAMES = ["dog", "leash", "grass"]


def draw(seed: int = 0, count: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Activations of "dog AND NOT leash" [N, 2], truth, and scores like a cosine of CLIP: .2 to .3."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.2])
    scores = 0.2 + 0.08 * truth + 0.015 * torch.randn(count, 3, generator=generator)
    units = (truth[:, 0] & ~truth[:, 1]).float()[:, None] + 0.3 * torch.randn(count, 2, generator=generator)
    return units, truth, scores


def label(units: Any, concepts: Any, **options: Any) -> Any:
    return label_units(units, concepts, NAMES, progress=False, **options)


def test_scores_name_as_labels_do() -> None:
    units, truth, scores = draw()
    found = label(units, ConceptScores(scores))
    assert [str(one.best.formula) for one in found] == ["dog AND NOT leash"] * 2
    thresholds = found.settings["thresholds"]
    assert list(thresholds) == NAMES
    assert all(0.22 < value < 0.26 for value in thresholds.values())
    assert bool((ConceptScores(scores).apply(list(thresholds.values())) == truth).float().mean() > 0.98)
    assert label(units, truth).settings["thresholds"] is None
    missing = scores.clone()
    missing[::7, 1] = torch.nan
    labels = ConceptScores(missing).apply([0.24] * 3)
    assert torch.equal(labels.isnan(), missing.isnan())
    assert str(label(units, ConceptScores(missing))[0].best.formula) == "dog AND NOT leash"


@pytest.mark.parametrize("groups", [None, torch.arange(400) // 4])
def test_held_out_scores_change_no_threshold_and_no_search(groups: Tensor | None) -> None:
    from absence_plugins.methods.invert.bits import merge_rows
    from absence_plugins.methods.invert.groups import split

    units, _, scores = draw(1)
    numbers = None if groups is None else groups.numpy()
    is_heldout = torch.from_numpy(split(merge_rows(np.zeros((1, 1), bool))[0], np.zeros(400, int), 0.5, 3, numbers))
    assert 150 < int(is_heldout.sum()) < 250
    first = label(units, ConceptScores(scores), seed=3, groups=groups)
    shuffled = scores.clone()
    places = is_heldout.nonzero()[:, 0]
    shuffled[places] = (
        5 * shuffled[places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))]] - 0.7
    )
    second = label(units, ConceptScores(shuffled), seed=3, groups=groups)
    assert second.settings["thresholds"] == first.settings["thresholds"]
    for one, other in zip(first, second, strict=True):
        assert (other.best.auc, other.best.formula) == (one.best.auc, one.best.formula)
        assert other.best.heldout_auc != one.best.heldout_auc
    moved = scores.clone()
    moved[~is_heldout] += 0.01  # the searched ones do count
    assert (
        label(units, ConceptScores(moved), seed=3, groups=groups).settings["thresholds"] != first.settings["thresholds"]
    )


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5, 0.9])
def test_thresholds_find_what_is_there(share: float) -> None:
    right = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        there = torch.rand(300, generator=generator) < share
        scores = 4 * there + torch.randn(300, generator=generator)
        found = scores > choose_threshold(scores)
        right.append(2 * int((found & there).sum()) / max(1, int(found.sum() + there.sum())))
        scaled = choose_threshold(100 - 7 * scores)
        assert bool((((100 - 7 * scores) <= scaled) == found).float().mean() > 0.9)
    assert sum(right) / len(right) > (0.7 if share == 0.03 else 0.85)  # the best threshold reaches .91 and more


def test_columns_of_labels_stay_and_what_has_no_threshold_is_named() -> None:
    units, truth, scores = draw(2)
    mixed = scores.double()
    mixed[:, 1] = truth[:, 1].double()
    mixed[5, 1] = torch.nan
    assert label(units, ConceptScores(mixed)).settings["thresholds"]["leash"] == 0.5
    mixed[:, 2] = 0.3
    with pytest.raises(
        ValueError, match=r"concept 'grass' on the searched samples: 1 distinct scores among .* leave it out"
    ):
        label(units, ConceptScores(mixed))
    with pytest.raises(ValueError, match="400 activations but 399 rows"):
        label(units, ConceptScores(scores[1:]))
    with pytest.raises(ValueError, match="3 names for 2 concepts"):
        label(units, ConceptScores(scores[:, 1:]))
    with pytest.raises(ValueError, match="infinite"):
        ConceptScores(scores / 0)
    with pytest.raises(ValueError, match=r"pass \[N, K\]"):
        ConceptScores(scores[0])
    with pytest.raises(ValueError, match=r"of scores pass ConceptScores\(scores\)"):
        label(units, scores)
    assert label(units, ConceptScores(scores), holdout=0).heldout == 0


def test_embeddings_of_any_model() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(5, 4, generator=generator), torch.randn(3, 4, generator=generator)
    expected = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=2)
    torch.testing.assert_close(score_concepts(images, texts).values, expected)
    weight = torch.eye(4, requires_grad=True)
    found = score_concepts(
        images.split(2),
        ["a", "b", "c"],
        embed_images=lambda batch: SimpleNamespace(image_embeds=batch @ weight, pooler_output=None),
        embed_texts=lambda words: SimpleNamespace(pooler_output=texts[: len(words)]),
    ).values
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    with pytest.raises(TypeError, match="embeddings must be a tensor, got list"):
        score_concepts(images, texts, embed_images=lambda batch: [batch])
    with pytest.raises(ValueError, match=r"must be \[N, D\] and \[K, D\]"):
        score_concepts(images, texts[:, :2])
    with pytest.raises(ValueError, match="an embedding is 0"):
        score_concepts(images, 0 * texts)


@pytest.mark.needs("transformers")
def test_a_clip_model_of_hugging_face() -> None:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
              "patch_size": 8}  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    pixels, words = torch.randn(6, 3, 16, 16), torch.tensor([[0, 5, 6, 1], [0, 9, 3, 1]])
    found = score_concepts(
        pixels.split(4),
        words,
        embed_images=model.get_image_features,
        embed_texts=lambda ids: model.get_text_features(input_ids=ids),
    )
    with torch.no_grad():
        whole = model(input_ids=words, pixel_values=pixels)
    torch.testing.assert_close(found.values, whole.logits_per_image / model.logit_scale.exp(), rtol=1e-4, atol=1e-5)
