"""Small models of token ids, and transformers of Hugging Face with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import TextKind

PAD, CLS, SEP, NOT, GOOD, FILM, BAD = range(7)
WORDS = {PAD: "[PAD]", CLS: "[CLS]", SEP: "[SEP]", NOT: "not", GOOD: "good", FILM: "film", BAD: "bad"}
KIND = TextKind(WORDS | {number: f"w{number}" for number in range(7, 30)}, (PAD, CLS, SEP))
PLAIN = TextKind(KIND.words, (PAD,))
HELD = ("llama", "modernbert", "mpnet")  # positions are angles or distances
FAMILIES = ("bert", "distilbert", "roberta", "gpt2", "electra")


def transformer(family: str, *, labels: int = 2, seed: int = 0, positions: int = 24, dropout: float = 0.1) -> Any:
    """A sequence classifier of a family, of random weights in float64."""
    hf = pytest.importorskip("transformers", minversion="5.0")
    torch.manual_seed(seed)
    usual = {"vocab_size": 30, "num_labels": labels, "pad_token_id": PAD}
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if family == "bert":
        config = hf.BertConfig(**usual, **small, max_position_embeddings=positions)
        net = hf.BertForSequenceClassification(config)
    elif family == "electra":
        config = hf.ElectraConfig(**usual, **small, embedding_size=8, max_position_embeddings=positions)
        net = hf.ElectraForSequenceClassification(config)
    elif family == "roberta":
        config = hf.RobertaConfig(**usual, **small, max_position_embeddings=positions + 1)
        net = hf.RobertaForSequenceClassification(config)
    elif family == "distilbert":
        config = hf.DistilBertConfig(
            **usual, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=positions
        )
        net = hf.DistilBertForSequenceClassification(config)
    elif family == "llama":
        config = hf.LlamaConfig(**usual, **small, max_position_embeddings=positions)
        net = hf.LlamaForSequenceClassification(config)
    elif family == "modernbert":
        ends = {"bos_token_id": CLS, "eos_token_id": SEP, "cls_token_id": CLS, "sep_token_id": SEP}
        config = hf.ModernBertConfig(**usual, **small, **ends, max_position_embeddings=positions)
        net = hf.ModernBertForSequenceClassification(config)
    elif family == "mpnet":
        config = hf.MPNetConfig(**usual, **small, max_position_embeddings=positions + 2)
        net = hf.MPNetForSequenceClassification(config)
    else:
        config = hf.GPT2Config(
            **usual, n_embd=16, n_layer=2, n_head=2, n_positions=positions, bos_token_id=CLS, eos_token_id=SEP
        )
        net = hf.GPT2ForSequenceClassification(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net.double().eval()


class Bag(nn.Module):
    """u = w . sum of embeddings; padding is at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 2, padding_idx=PAD, dtype=torch.float64)
        self.read = nn.Linear(2, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.embedding.weight.normal_(generator=torch.Generator().manual_seed(0))
            self.embedding.weight[PAD] = 0
            self.read.weight.copy_(torch.tensor([[2.0, -1.0]]))
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [B, T] to [B, 1]."""
        return self.read(self.embedding(ids).sum(1))


class Flip(nn.Module):
    """A convolution over two tokens: "good" gives +1, with "not" directly in front -1; nothing else counts."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 2, dtype=torch.float64)
        self.pairs = nn.Conv1d(2, 2, 2, dtype=torch.float64)
        with torch.no_grad():
            self.embedding.weight.zero_()
            self.embedding.weight[NOT, 0] = 1
            self.embedding.weight[GOOD, 1] = 1
            # [channel, (not, good), (token in front, token]]
            self.pairs.weight.copy_(torch.tensor([[[-1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]))
            self.pairs.bias.copy_(torch.tensor([0.0, -1.0]))
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [B, T] to [B]."""
        x = nn.functional.pad(self.embedding(ids).transpose(1, 2), (1, 0))
        good, negated = self.pairs(x).relu().unbind(1)
        return (good - negated).sum(1)


class Masked(nn.Module):
    """The mean of embeddings under a mask, then a hidden layer, two logits; ``scale`` of embeddings inside."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.scale = scale
        self.embedding = nn.Embedding(30, 4, dtype=torch.float64)
        self.head = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask [B, T] to [B, 2]."""
        weight = mask[..., None] * 1.0
        return self.head((self.scale * self.embedding(ids) * weight).sum(1) / weight.sum(1))


class Older(nn.Module):
    """One layer of attention as BERT in transformers 4 masks it: 0 and 1 as [B, T, T]; [B, T] is compared."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.words, self.places = nn.Embedding(30, 8), nn.Embedding(24, 8)
        self.q, self.k, self.v, self.head = (nn.Linear(8, out) for out in (8, 8, 8, 2))
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Ids [B, T] to [B, 2]."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1])[None]
        x = self.words(input_ids) + self.places(position_ids)
        if attention_mask.dim() == 3:
            mask = (1.0 - attention_mask.to(x.dtype)) * torch.finfo(x.dtype).min
        elif attention_mask.dim() == 2:
            mask = torch.zeros_like(attention_mask[:, None, :], dtype=x.dtype)
            mask = mask.masked_fill(attention_mask[:, None, :] == 0, torch.finfo(x.dtype).min)
        else:
            raise ValueError("Wrong shape for input_ids or attention_mask")
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5 + mask
        return self.head((scores.softmax(-1) @ self.v(x))[:, 0].tanh())
