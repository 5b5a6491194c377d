"""The page of ``absence-plugins label``: what is not shown to be real is never presented as found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Layer
from absence_plugins.commands.label import LayerLabels
from absence_plugins.commands.label_page import count_named, label_page
from absence_plugins.commands.label_samples import Samples
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.invert import Formula, Negation, ScoredFormula, UnitLabel, UnitLabels, label_units
from absence_plugins.report import Page

NAMES = ("a", "b", "c")
SHAPE = Layer("0").shape(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2))
SETTINGS = {"mode": "positive", "groups": None, "prefer": "short", "length": 3, "search": "auto"}


@pytest.fixture(autouse=True)
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("absence_plugins.commands.label_page.label_panels", lambda *_: [])  # seconds of drawing


def page_of(labels: UnitLabels, values: Tensor, concepts: Tensor) -> Page:
    samples = Samples(Batches.of(torch.zeros(0), 1), lambda i: torch.zeros(1, 2, 2), concepts, NAMES, "drawn")
    return label_page(labels, SHAPE, samples, values, (), 0, "")


def labels_of(*names: ScoredFormula, heldout: int = 20, **changes: Any) -> UnitLabels:
    units = tuple(UnitLabel(u, (one,), score="auc") for u, one in enumerate(names))
    return UnitLabels(units, 20, heldout, SETTINGS | changes)


def name(text: str, auc: float | None, q: float | None, *nots: Negation) -> ScoredFormula:
    fraction = None if q is None else 0.5
    return ScoredFormula(Formula.parse(text), 0.9, 0.5, auc, fraction, q, q, nots, 0.9, auc)


def random_page(labels: UnitLabels) -> Page:
    draw = torch.Generator().manual_seed(0)
    return page_of(labels, torch.randn(40, len(labels), generator=draw), torch.rand(40, 3, generator=draw) < 0.5)


def test_units_of_noise_are_not_presented_as_named() -> None:
    draw = torch.Generator().manual_seed(0)
    values, concepts = torch.randn(40, 6, generator=draw), torch.rand(40, 3, generator=draw) < 0.5
    labels = label_units(values, concepts, list(NAMES), progress=False)
    assert all(one.best.q > 0.05 for one in labels)
    page = page_of(labels, values, concepts)
    assert page.verdict == "0: 0 of 6 units named (q <= 0.05), 0 of them with a NOT that is worth something."
    assert "is named by" not in page.lead
    assert "where something is missing" not in page.lead
    assert "20 images to judge by are few: by chance alone an AUC is 0.13 off 0.5" in page.lead
    for row in page.rows:
        assert ", not named: the best fit is " in row.heading
        assert row.facts[0][0] == "Not named: q"
        assert row.sentence.startswith("Not shown to be real: q ")


def test_a_not_is_the_key_fact_only_if_its_own_q_is_low() -> None:
    real, chance = Negation("b", 0.2, 0.3, 0.001, 0.002), Negation("c", 0.2, 0.357, 0.06, 0.083)
    labels = labels_of(
        name("a AND NOT b AND NOT c", 0.8, 0.001, chance, real),
        name("a AND NOT c", 0.99, 0.001, chance),
        name("NOT b", 0.99, 0.2, real),
    )
    rows = random_page(labels).rows
    assert [row.facts[0] for row in rows] == [
        ("AUC, held out", "0.990 (q 0.001)"),
        ("NOT b", "+0.300 (q 0.002)"),
        ("Not named: q", "0.2, above 0.05"),
    ]
    assert ("NOT c", "+0.357 (q 0.083, not shown to be real)") in rows[0].facts
    assert "(q 0.083, not shown to be real; +0.200 on the searched ones)" in rows[0].sentence
    # the first unit's strongest NOT on the searched half is c, whose q is high: only the NOT of a low q counts
    assert count_named(labels) == "2 of 3 units named (q <= 0.05), 0 of them with a NOT that is worth something"


def test_others_are_in_order_of_what_chose_them_on_held_out_images() -> None:
    labels = labels_of(name("a", 0.0, 0.9), name("b", 0.6, 0.5), name("c", 0.7, 0.01), name("a OR b", None, 1.0))
    assert [row.heading.split(":")[0].split(",")[0] for row in random_page(labels).rows] == ["Unit 2", "Unit 1", "Unit 0", "Unit 3"]  # fmt: skip
    units = tuple(replace(one, score="iou", formulas=(replace(one.best, heldout_score=s),))
                  for one, s in zip(labels, (0.5, 0.4, 0.1, None), strict=True))  # fmt: skip
    rows = random_page(replace(labels, units=units)).rows
    assert [row.heading.split(":")[0].split(",")[0] for row in rows] == ["Unit 2", "Unit 0", "Unit 1", "Unit 3"]


def test_without_held_out_images_nothing_is_called_tested() -> None:
    labels = labels_of(name("NOT b", None, None, Negation("b", 0.2, None)), heldout=0)
    page = random_page(labels)
    assert page.verdict.startswith("0: none of 1 names tested, as nothing was held out; 1 have a NOT")
    assert page.rows[0].facts[:2] == (("AUC", "0.900 (not tested)"), ("NOT b", "+0.200 (not tested)"))
    assert page.rows[0].sentence.startswith("Not tested: nothing was held out.")


def test_groups_and_names_are_told_in_full(tmp_path: Path) -> None:
    labels = labels_of(name("a", 0.973, 0.73), heldout=400, groups=20)
    page = random_page(labels)
    assert "10 groups of images to judge by are few" not in page.lead
    assert "19 groups of images to judge by are few" in page.lead
    assert "AUC counts every image" in dict(page.how_to_read)["Groups"]
    both = replace(labels, units=(replace(labels[0], formulas=(labels[0].best, name("(NOT a OR NOT b) AND c", 0.5, 1.0))),))  # fmt: skip
    assert "All its formulas: 1. a; 2. (NOT a OR NOT b) AND c." in random_page(both).rows[0].sentence


@pytest.mark.parametrize(("gap", "said"), [(0.1, "bounded by 1 only for 1, which excludes nothing"), (0.05, "at most 0.050 higher is possible for 1")])  # fmt: skip
def test_an_unfinished_proof_is_told_on_the_terminal(tmp_path: Path, gap: float, said: str) -> None:
    labels = labels_of(name("a", 0.8, 0.01), name("b", 0.8, 0.01), search="certified")
    labels = replace(labels, units=(replace(labels[0], gap=gap), replace(labels[1], gap=0.0)))
    assert said in LayerLabels(labels, (), SHAPE, tmp_path).summary()
    assert ("not certified: the bound is 1" in dict(random_page(labels).rows[0].facts)["Best AUC searched"]) == (gap == 0.1)  # fmt: skip
