"""Is the negation missing? A transformer on tokens; the same word elsewhere does not matter."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.data.planted.problem import Drawn, Planted, Problem, Scenes
from absence_plugins.data.planted.training import Recipe
from absence_plugins.data.planted.transformer import ClassToken, Tokens, TransformerBlock

VOCABULARY = ("", "not", "good", "the", "a", "film", "plot", "cast", "was", "very", "it", "seen", "by", "all", "here")
BLANK, NOT, GOOD, FILLERS = 0, 1, 2, 3  # FILLERS: the first of them
LENGTH = 12
RECIPE = Recipe(epochs=6, batch=64, rate=7e-3)


@cache
def negation_missing(seed: int = 0) -> Planted:
    """Is "good" not negated? Logit 1 encodes the absence of "not" in front of "good"; convolution and attention.

    Inputs [N, 15, 1, 12]: 12 one-hot tokens, so that the embedding is linear in them; blank is the token "". Region:
    the "not" in front of "good". Every text has one or two more of the same word at other places, which do not matter:
    no map that sees only the text can tell them apart without knowing the rule.
    """
    return NegationProblem(seed).solve(_text_network(), RECIPE)


@dataclass(frozen=True, eq=False)
class Texts(Scenes):
    """``tokens`` [N, LENGTH] without the key; ``good`` [N]: the place of "good"; ``negated`` [N] bool."""

    tokens: Tensor
    good: Tensor
    negated: Tensor


class NegationProblem(Problem[Texts]):
    """Words in random order, "good" at one place, "not" at one or two others, and in front of "good" or not."""

    train_scenes = 1000
    empty = tuple(float(token == BLANK) for token in range(len(VOCABULARY)))
    reach = 0

    def scenes(self, count: int) -> Texts:
        """In front of "good" stands a word, or in one of four texts nothing."""
        tokens = self.integers(FILLERS, len(VOCABULARY), count, LENGTH)
        good = self.integers(1, LENGTH, count)
        place = torch.arange(LENGTH)
        free = torch.rand(count, LENGTH, generator=self.generator)
        free = free.masked_fill((place == good[:, None]) | (place == good[:, None] - 1), -1.0)
        order = free.argsort(1, descending=True)
        tokens = tokens.scatter(1, order[:, :1], NOT)
        second = torch.where(self.uniform(0, 1, count, 1) < 0.5, NOT, tokens.gather(1, order[:, 1:2]))
        tokens = tokens.scatter(1, order[:, 1:2], second).scatter(1, good[:, None], GOOD)
        before = tokens.gather(1, good[:, None] - 1)
        before = torch.where(self.uniform(0, 1, count, 1) < 0.25, BLANK, before)
        tokens = tokens.scatter(1, good[:, None] - 1, before)
        return Texts(tokens, good, torch.zeros(count, dtype=torch.bool))

    def with_key(self, scenes: Texts) -> Texts:
        """The negation in front of "good"."""
        return replace(scenes, negated=torch.ones_like(scenes.negated))

    def without_key(self, scenes: Texts) -> Texts:
        """What stood there before."""
        return replace(scenes, negated=torch.zeros_like(scenes.negated))

    def jittered(self, scenes: Texts) -> Texts:
        """One word in ten is another."""
        shape = scenes.tokens.shape
        other = (self.uniform(0, 1, *shape) < 0.1) & (scenes.tokens >= FILLERS)
        return replace(
            scenes, tokens=torch.where(other, self.integers(FILLERS, len(VOCABULARY), *shape), scenes.tokens)
        )

    def elsewhere(self, scenes: Texts) -> Texts:
        """As they are: the negation has one place."""
        return scenes

    def render(self, scenes: Texts) -> Drawn:
        """One-hot tokens [N, words, 1, LENGTH], labels and the place of the negation."""
        key = (torch.arange(LENGTH) == scenes.good[:, None] - 1) & scenes.negated[:, None]
        tokens = torch.where(key, NOT, scenes.tokens)
        images = F.one_hot(tokens, len(VOCABULARY)).float().transpose(1, 2)[:, :, None]
        return images.contiguous(), (~scenes.negated).long(), key[:, None, None]


def _text_network(width: int = 32) -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                embedding=nn.Conv2d(len(VOCABULARY), width, 1, bias=False),
                neighbors=nn.Conv2d(width, width, (1, 3), padding=(0, 1)),
                relu=nn.ReLU(),
                tokens=Tokens(width, LENGTH),
                block1=TransformerBlock(width, 4),
                norm=nn.LayerNorm(width),
                readout=ClassToken(),
                linear=nn.Linear(width, 2),
            )
        )
