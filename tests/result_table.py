"""Every kind of result, made small, and every kind of adapter: what the tests of their surface run over."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from absence_plugins import Explanation, ReferenceSet, Unit
from absence_plugins.captum import AbsenceDeepLift, AbsenceIntegratedGradients, AbsenceLayerConductance
from absence_plugins.commands.check import LayerCheck, MethodCheck, ModelCheck, OutputCheck
from absence_plugins.core.outputs import Named
from absence_plugins.lucent import Reached, Rendering, absence_channel, accentuate
from absence_plugins.methods.carriers import carrier_graph, conditional_maps, find_carriers, relevant_examples
from absence_plugins.methods.debias.prior import Parts
from absence_plugins.methods.directions import DirectionPairs, Influence, match_directions
from absence_plugins.methods.directions.interpretability import Interpretability
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.faithfulness.table import PlantedScore, PlantedTable
from absence_plugins.methods.insertion import insertion_test
from absence_plugins.methods.invert import label_units
from absence_plugins.methods.missing import missing_set
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.methods.texts import TextExplanation, explain_text
from absence_plugins.relevance import relevance
from absence_plugins.report import explain_unit
from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceEpsilonPlusFlat, AbsenceGradient

HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(1)> & $x_1"""


@lru_cache
def network() -> nn.Sequential:
    """Images [B, 1, 8, 8] to three logits."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).eval()


@lru_cache
def images() -> Tensor:
    """[24, 1, 8, 8], few bright dots."""
    return (torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.9).float()


def explanation() -> Explanation:
    """Of two images, against references."""
    references = ReferenceSet(images(), torch.arange(24) % 3, k=2)
    return AbsenceDeepLift(network(), reference=references).explain(images()[:2], target=torch.tensor([0, 1]))


def explanation_of_vectors() -> Explanation:
    """Of a row of a table, with a name that wants to be HTML."""
    signed, zero = torch.tensor([[1.0, -2.0, 0.5]]), torch.zeros(1, 3)
    output = torch.ones(1)
    return Explanation(
        signed, signed.clamp(min=0), zero, "target", None, None, output, None, None, None, Named(HOSTILE)
    )


@lru_cache
def patches() -> Any:
    """Of both channels."""
    return find_extreme_patches(network(), "0", images(), k=4, size=3, stride=1, progress=False)


@lru_cache
def labels() -> Any:
    """Two units, named by concepts one of which wants to be HTML."""
    concepts = torch.arange(40)[:, None] % torch.tensor([2, 3]) == 0
    return label_units(torch.arange(80).reshape(40, 2) % 6, concepts, [HOSTILE, "third"], progress=False)


@lru_cache
def pairs() -> DirectionPairs:
    """Fitted for a moment."""
    features = torch.randn(60, 2, 2, 6, generator=torch.Generator().manual_seed(0)) ** 3
    return DirectionPairs(2, starts=2).fit(features)


def influence() -> Influence:
    """One encoded absence."""
    effect = torch.tensor([[1.0, -2.0], [0.0, 0.5]])
    p = torch.tensor([[0.01, 0.01], [0.9, 0.4]])
    return Influence(effect, p, p, (HOSTILE, "cup"), "step", "bh", 0.05, 10)


def planted_table() -> PlantedTable:
    """One method, one problem."""
    score = PlantedScore("missing_bar", "AbsenceDeepLift", "nontarget", 0.9, 1.0, 1.0, 0.8, 10, True, "")
    return PlantedTable((score,), {"seeds": 1})


def model_check() -> ModelCheck:
    """One method that works."""
    outputs = OutputCheck("Tensor", (3,), "logits", 1, 0.5, name=HOSTILE)
    methods = (MethodCheck("captum", "deeplift", "yes", 0.0, 0.1), MethodCheck("captum", "lrp", "no", reason="x"))
    return ModelCheck("net", "an image", outputs, (LayerCheck("0", "Conv2d", 2, (6, 6)),), 1, methods, "deeplift", 0.2)


def rendering() -> Rendering:
    """Two pictures, one of them of one part of the objective."""
    reached = Reached(HOSTILE, "conv", True, ((-3.0, -2.0),), None, None)
    return Rendering([np.full((2, 8, 8, 3), 0.5)], (reached,))


def unit_report() -> Any:
    """Of a channel, without hosts."""
    options: dict[str, Any] = {"size": 3, "stride": 1, "k": 2, "images_per_unit": 8, "maps": None, "pictures": None}
    return explain_unit(network(), "0", 0, images(), progress=False, notes=[HOSTILE], **options)


def text_explanation() -> TextExplanation:
    """Of words one of which wants to be HTML."""
    net = nn.Sequential(nn.Embedding(4, 2), nn.Flatten(1), nn.Linear(6, 2)).eval()
    return explain_text(net, {0: "film", 1: "not", 2: "good", 3: HOSTILE}, [0, 3, 2], [[0, 1, 2], [1, 3, 0]], 1)


def through(function: Any, *given: Any, **options: Any) -> Any:
    """A question about units, of one image against another."""
    return function(network(), images()[:1], images()[1:2], *given, 0, **options)


def missing() -> Any:
    """What lowers logit 0 of the image where it is highest, from the one where it is lowest."""
    logits = network()(images())[:, 0].detach()
    x, reference = images()[logits.argmax()][None], images()[logits.argmin()][None]
    margin = float(logits.max() - logits.min()) / 2
    return missing_set(network(), x, reference, output=0, margin=margin, paste="all", pieces=2)


# Every class with the surface of a result -> how to make one.
RESULTS: dict[str, Callable[[], Any]] = {
    "AbsenceScores": lambda: absence_scores(
        nn.Identity(), torch.tensor([[-2.0, 1.0, 1.0]]), lambda x: x.sum(1), lambda x: x
    ),
    "Accentuation": lambda: accentuate(
        network(), "-0:0", images()[0], goal=0.0, steps=2, preprocess=False, progress=False
    ),
    "CarrierGraph": lambda: through(carrier_graph, layers=["0", "1"]),
    "Carriers": lambda: through(find_carriers, layers="1"),
    "ConditionalMaps": lambda: through(conditional_maps, [0], layer="1"),
    "DirectionMatch": lambda: match_directions(torch.eye(3), -torch.eye(3)[:2]),
    "DirectionPairs": pairs,
    "DirectionReport": lambda: pairs().report_,
    "Explanation": explanation,
    "Explanation of vectors": explanation_of_vectors,
    "ExtremePatches": patches,
    "Influence": influence,
    "InsertionResult": lambda: insertion_test(network(), "0", images(), patches(), images_per_unit=8, progress=False),
    "Interpretability": lambda: Interpretability(torch.eye(2), (0, 1), (0.9, 0.4), 1.3, 1.3, (HOSTILE, "cup")),
    "MissingSet": missing,
    "ModelCheck": model_check,
    "Parts": lambda: Parts(torch.ones(2), torch.zeros(2), torch.ones(2)),
    "PlantedTable": planted_table,
    "Relevance": lambda: relevance(network(), images()[:2], images()[2:3], 0),
    "Rendering": rendering,
    "TextExplanation": text_explanation,
    "UnitExamples": lambda: relevant_examples(
        network(), images(), images()[:1], Unit("1", 0), 0, count=2, progress=False
    ),
    "UnitLabel": lambda: labels()[0],
    "UnitLabels": labels,
    "UnitReport": unit_report,
}

# Adapters as a notebook shows them.
ADAPTERS: dict[str, Callable[[], Any]] = {
    "captum": lambda: AbsenceIntegratedGradients(network(), nontarget="runner_up"),
    "captum, references": lambda: AbsenceDeepLift(network(), reference=ReferenceSet(images(), torch.arange(24) % 3)),
    "captum, neutral": lambda: AbsenceDeepLift(network(), nontarget=None),
    "captum, layer": lambda: AbsenceLayerConductance(network(), network()[0]),
    "zennit, composite": AbsenceEpsilonGamma,
    "zennit, first layer": AbsenceEpsilonPlusFlat,
    "zennit, attributor": lambda: AbsenceGradient(network(), AbsenceEpsilonGamma(), reference=images()[:1]),
    "lucent": lambda: absence_channel("0", 1) - 2 * absence_channel("0", 0),
}
