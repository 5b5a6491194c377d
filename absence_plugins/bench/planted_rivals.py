"""Other packages' methods in the planted benchmark, where the extra ``rivals`` is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from absence_plugins.methods.faithfulness import Question

Seed = Literal["+1", "logit"]


@dataclass(frozen=True)
class AttnLRP:
    """autoLRP's ``LRPConfig.attnlrp()`` (Achtibat et al., ICML 2024) of the unit, one image at a time as its README
    shows.

    It knows no reference, so it has an answer in the non-target view only, as Zennit's composites as shipped. Seed
    "+1": the relevance of the output is 1, as autoLRP has it; "logit": its value. LRP is linear in its seed, so this
    multiplies the map of every image, and turns its sign where the logit is negative.
    """

    seed: Seed

    def __call__(self, question: Question) -> Tensor | None:
        """The signed map [N, 1, H, W]; None in the reference view."""
        if question.view == "reference":
            return None
        autolrp = importlib.import_module("autolrp")
        maps = []
        for image in question.x:
            wrapped = autolrp.tensor(image[None])
            value = question.model(wrapped)[0, question.unit]
            value.lrp(config=autolrp.LRPConfig.attnlrp())
            seed = 1.0 if self.seed == "+1" else float(value.detach())
            maps.append(seed * wrapped.relevance.as_subclass(torch.Tensor).detach().sum(1, keepdim=True))
        return torch.cat(maps)


@dataclass(frozen=True)
class Shap:
    """An explainer of ``shap`` (Lundberg and Lee, NeurIPS 2017) of the unit, with the blank image as background, or in
    the reference view every image's own references.

    GradientExplainer draws 100 samples with a fixed seed.
    """

    explainer: Literal["GradientExplainer", "DeepExplainer"]

    def __call__(self, question: Question) -> Tensor:
        """The signed map [N, 1, H, W]."""
        kind = getattr(importlib.import_module("shap"), self.explainer)
        call = {"nsamples": 100, "rseed": 0} if self.explainer == "GradientExplainer" else {"check_additivity": False}
        maps = []
        for row, image in enumerate(question.x):
            background = question.blank[[row]] if question.view == "nontarget" else question.drawn[row]
            values = kind(question.model, background).shap_values(image[None], **call)
            maps.append(torch.as_tensor(values)[..., question.unit].sum(1, keepdim=True).to(question.x))
        return torch.cat(maps)


def rival_methods() -> Iterator[tuple[str, AttnLRP | Shap]]:
    """``AttnLRP +1`` and ``AttnLRP logit`` if autoLRP is installed, ``SHAP ...`` if shap is; nothing else."""
    if find_spec("autolrp") is not None:
        yield "AttnLRP +1", AttnLRP("+1")
        yield "AttnLRP logit", AttnLRP("logit")
    if find_spec("shap") is not None:
        yield "SHAP GradientExplainer", Shap("GradientExplainer")
        yield "SHAP DeepExplainer", Shap("DeepExplainer")
