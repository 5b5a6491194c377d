"""The planted benchmark tells a true map from noise and from a wrong sign, and one method's failure stays its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from absence_plugins.core.randomness import seeded
from absence_plugins.data.planted import PROBLEMS
from absence_plugins.methods.faithfulness import IMAGE_ONLY, PlantedTable, Question, planted_benchmark, random_map
from absence_plugins.methods.faithfulness.table import number

SMALL: dict[str, Any] = {"problems": ["shape_missing"], "samples": 6, "references": 2, "steps": 6, "progress": False}


def truth(question: Question) -> Tensor:
    """The key itself, with the right sign: it holds the unit down, and lacking it raises the unit."""
    return -question.regions.float() if question.view == "nontarget" else question.regions.float()


def negated(question: Question) -> Tensor:
    return -truth(question)


def drawn_at_random(question: Question) -> Tensor:
    return torch.randn_like(question.x) + float(np.random.rand())


def forward_only(question: Question) -> Tensor | None:
    return truth(question) if question.view == "nontarget" else None


def broken(question: Question) -> Tensor:
    question.model.register_forward_hook(lambda *_: None)
    question.model.train()
    raise RuntimeError("half way\nmore")


def vandal(question: Question) -> Tensor:
    """Moves the network's statistics and overwrites the images: its own answer, and nobody else's, may suffer."""
    question.model.train()
    question.model(question.x * 5)
    question.x.zero_()
    return truth(question)


METHODS = {
    "vandal": vandal,
    "truth": truth,
    "negated": negated,
    "noise": random_map,
    "drawn": drawn_at_random,
    "forward only": forward_only,
    "broken": broken,
    "infinite": lambda question: truth(question) / 0,
    "numpy": lambda question: truth(question).numpy(),
    "small": lambda question: torch.zeros(len(question.x), 1, 3, 3),
    "flat": lambda question: truth(question).flatten(1, -3)[:, 0],
    "constant": lambda question: torch.full_like(question.x, -1.0 if question.view == "nontarget" else 1.0),
}


@pytest.fixture(scope="module")
def table() -> PlantedTable:
    return planted_benchmark(METHODS, **SMALL)


@pytest.mark.parametrize("view", ["nontarget", "reference"])
def test_truth_is_told_from_noise_and_from_the_wrong_sign(table: PlantedTable, view: Any) -> None:
    true, wrong, noise = (table.of(name, "shape_missing", view) for name in ("truth", "negated", "noise"))
    assert (true.share, true.key_sign, true.pointing) == (1, 1, 1)
    assert (wrong.share, wrong.key_sign, wrong.pointing) == (0, 0, 0)
    assert true.over_random is not None
    assert wrong.over_random is not None
    assert noise.over_random is not None
    assert noise.share is not None
    assert true.over_random > 0.2  # the truth has no order inside the key, and so is not the best order
    assert wrong.over_random < -0.2
    assert abs(noise.over_random) < 0.3
    assert 0 < noise.share < 0.9
    assert true.samples == 6
    best = table.best("shape_missing", view, "share", ["truth", "negated", "noise"])
    assert best == true


def test_a_method_without_an_answer_is_listed_with_the_reason(table: PlantedTable) -> None:
    assert table.of("forward only", "shape_missing", "nontarget").share == 1
    missing = table.of("forward only", "shape_missing", "reference")
    assert missing.share is missing.faithfulness is None
    assert missing.note == "has no answer in this view"
    assert table.of("broken", "shape_missing", "nontarget").note == "RuntimeError: half way more"
    assert "broken: RuntimeError: half way" in table.table()
    planted = PROBLEMS["shape_missing"](0)
    assert not planted.model._forward_hooks  # what it left behind is gone
    assert not planted.model.training


def test_the_same_twice_and_the_random_states_as_before(table: PlantedTable) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    again = planted_benchmark(METHODS, **SMALL)
    assert again.to_dict() == table.to_dict()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    with seeded(1):
        first = torch.rand(1)
    with seeded(1):
        assert torch.equal(torch.rand(1), first)


@pytest.mark.parametrize(
    ("method", "words"), [("infinite", "NaN or infinite"), ("numpy", "got ndarray"), ("small", "has shape")]
)
def test_a_bad_answer_is_a_note(table: PlantedTable, method: str, words: str) -> None:
    assert words in table.of(method, "shape_missing", "nontarget").note


def test_a_failure_is_marked_apart_from_no_answer(table: PlantedTable) -> None:
    lines = table.markdown("reference", ["forward only", "small", "broken"]).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["- |", "x |", "x |"]
    assert "-: no answer in this view; x: the method failed" in table.table()


def test_a_map_without_channels_is_read_or_rejected(table: PlantedTable) -> None:
    """[N, H, W] has the scores of [N, 1, H, W]; the error of another shape names it, and those that are right."""
    flat, true = (table.of(name, "shape_missing", "nontarget") for name in ("flat", "truth"))
    assert replace(flat, method="truth") == true
    question = Question.of(PROBLEMS["shape_missing"](0), "nontarget", 2, 1)
    with pytest.raises(ValueError, match=r"shape \(2, 5, 5\); it must have one of \[\(2, \d+, \d+\), \(2, 1, "):
        question.shaped(torch.zeros(2, 5, 5))


def test_equally_strong_pixels_are_no_hit(table: PlantedTable) -> None:
    constant = table.of("constant", "shape_missing", "nontarget")
    assert constant.pointing is not None
    assert constant.pointing < 0.3
    assert constant.over_random == 0
    assert constant.faithfulness is not None
    assert constant.faithfulness <= 0  # below the best order that never saw the network


def test_a_method_cannot_reach_the_others(table: PlantedTable) -> None:
    alone = planted_benchmark({"truth": truth}, **SMALL)
    for view in ("nontarget", "reference"):
        own, beside = (found.of("truth", "shape_missing", view) for found in (alone, table))  # type: ignore[arg-type]
        assert (own.share, own.key_sign, own.pointing) == (beside.share, beside.key_sign, beside.pointing)
        assert own.over_random == pytest.approx(beside.over_random, abs=0.05)  # the best order is that of all methods
    assert not PROBLEMS["shape_missing"](0).model.training


@pytest.mark.slow
def test_training_seeds_are_pooled() -> None:
    both = planted_benchmark({"truth": truth}, **{**SMALL, "views": ["nontarget"]}, seeds=(0, 1))  # type: ignore[arg-type]
    each = [
        planted_benchmark({"truth": truth}, **{**SMALL, "views": ["nontarget"]}, seeds=(seed,))
        for seed in (0, 1)  # type: ignore[arg-type]
    ]
    scores = [table.scores[0].over_random for table in each]
    assert both.scores[0].samples == 12
    assert min(scores) <= both.scores[0].over_random <= max(scores)  # type: ignore[type-var, operator]


def test_what_is_known_is_not_asked_again() -> None:
    """A method that is new is added to kept answers: the same table as that of one run."""
    asked: list[str] = []

    def watched(question: Question) -> Tensor:
        asked.append(question.view)
        return truth(question)

    options = {**SMALL, "views": ["nontarget"]}
    known: dict[str, Any] = {}
    planted_benchmark({"watched": watched}, known=known, **options)
    kept = json.loads(json.dumps(known, allow_nan=False))
    both = planted_benchmark({"watched": watched, "noise": random_map}, known=kept, **options)
    assert asked == ["nontarget"]
    assert both.to_dict() == planted_benchmark({"watched": truth, "noise": random_map}, **options).to_dict()


def gradient_times_input(question: Question) -> Tensor:
    x = question.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(question.model(x)[:, question.unit].sum(), x)
    return gradient * (x - question.blank)


ONE_SIGN = [*(f"Image only: {name}" for name in ("color", "difference", "edges", "center", "constant")), "color"]


@pytest.mark.slow
def test_no_map_that_never_saw_the_network_does_well() -> None:
    """F51: the distance from the median color scored .82 with the right sign in all images."""

    def color(question: Question) -> Tensor:
        middle = question.x.flatten(2).median(2).values[:, :, None, None]
        return -(question.x - middle).abs().sum(1, keepdim=True).expand_as(question.x)

    methods = {**IMAGE_ONLY, "color": color, "true": gradient_times_input}
    table = planted_benchmark(
        methods, ["patch_missing"], views=["nontarget"], samples=4, steps=6, draws=2, progress=False
    )
    for name in (*IMAGE_ONLY, "color"):
        one = table.of(name, "patch_missing", "nontarget")
        assert one.faithfulness is not None
        assert one.over_random is not None
        assert one.faithfulness <= 0.05  # 0 is the best of them
        assert one.over_random < 0.3  # decoys, and curves that end when the key is gone
        if name not in ONE_SIGN:
            continue
        assert one.sign == 0.5  # one sign everywhere
        assert one.key_sign == 1  # which is why that is not reported alone
    true = table.of("true", "patch_missing", "nontarget")
    assert true.faithfulness is not None
    assert true.sign is not None
    assert true.faithfulness > 0.6
    assert true.sign > 0.9


def test_own_problems_can_be_given() -> None:
    found = planted_benchmark({"truth": truth}, **{**SMALL, "problems": {"mine": PROBLEMS["shape_missing"]}})
    assert found.problems == ["mine"]


def test_the_table_reads_back_and_draws(table: PlantedTable) -> None:
    pytest.importorskip("matplotlib")
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert PlantedTable.from_dict(plain).to_dict() == table.to_dict()
    lines = table.markdown("nontarget", ["truth", "negated"], ("share", "key_sign")).splitlines()
    assert lines[0] == "| method | shape |"
    assert lines[2] == "| truth | 1.0/1.0 |"
    assert lines[3] == "| negated | .00/.00! |"
    figure = table.figure()
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(METHODS)
    assert "PlantedTable of 12 methods on 1 problems" in repr(table)
    with pytest.raises(ValueError, match="no score of 'other'"):
        table.of("other", "shape_missing", "nontarget")


@pytest.mark.parametrize(
    ("value", "text"), [(0.954, ".95"), (1.0, "1.0"), (0.0, ".00"), (-0.2, "-.20"), (-1.234, "-1.23"), (None, "?")]
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


BAD: list[tuple[dict[str, Any], str]] = [
    ({"methods": {}}, "methods is empty"),
    ({"problems": ["nothing"]}, r"\['nothing'\] are not known"),
    ({"problems": []}, "not known"),
    ({"views": ["target"]}, "view='target' must be"),
    ({"views": []}, "at least one"),
    ({"seeds": ()}, "at least one"),
    ({"samples": 0}, "samples=0"),
    ({"references": True}, "references=True"),
    ({"problems": {}}, "not known"),
    ({"draws": 0}, "draws=0"),
    ({"steps": 1.5}, "steps=1.5"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        planted_benchmark(**{"methods": {"truth": truth}, **SMALL, **change})
