"""Targets, non-targets and combined outputs, each against a value worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core.choices import choose, choose_nontarget
from absence_plugins.core.combining import CombinedOutputs, others_weights
from absence_plugins.core.outputs import check_logits, select
from absence_plugins.core.targets import class_indices

SCORES = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [-1.0, -2.0, -3.0]])


def test_the_runner_up_is_the_best_of_the_others_whether_or_not_the_target_wins() -> None:
    assert choose_nontarget(SCORES, torch.tensor([0, 2, 2])).tolist() == [2, 1, 0]


def test_for_two_classes_the_runner_up_is_the_other_one() -> None:
    assert choose_nontarget(torch.tensor([[9.0, -9.0], [9.0, -9.0]]), torch.tensor([0, 1])).tolist() == [1, 0]


@pytest.mark.parametrize(
    "nontarget",
    [2, [2, 0, 0], torch.tensor([2, 0, 0]), np.array([2, 0, 0]), lambda scores, target: torch.tensor([2, 0, 0])],
)
def test_a_named_non_target_is_taken(nontarget: object) -> None:
    target = torch.tensor([0, 1, 1])
    expected = [2, 2, 2] if isinstance(nontarget, int) else [2, 0, 0]
    assert choose_nontarget(SCORES, target, nontarget).tolist() == expected  # type: ignore[arg-type]


def test_the_function_sees_scores_and_targets() -> None:
    lowest = choose_nontarget(SCORES, torch.tensor([0, 1, 0]), lambda scores, target: (-scores).argmax(1))
    assert lowest.tolist() == [1, 0, 2]
    shifted = choose_nontarget(SCORES, torch.tensor([0, 1, 2]), lambda scores, target: (target + 1) % scores.shape[1])
    assert shifted.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("nontarget", "error", "message"),
    [
        ("runnerup", ValueError, "'runnerup' is not known.*'runner_up'"),
        (0, ValueError, "non-target 0 of sample 0 is the target itself"),
        ([1, 2], ValueError, "2 targets for 3 samples"),
        (3, ValueError, r"\[3, 3, 3\] does not exist.*0 to 2"),
        (-1, ValueError, "does not exist"),
        (torch.tensor([[1, 2], [1, 2], [1, 2]]), ValueError, "one class index per sample"),
        (1.5, TypeError, "1.5"),
        (True, TypeError, "True"),
        (lambda scores, target: [1, 2, 1], TypeError, "must return a tensor of 3 class indices, got list"),
        (lambda scores, target: target, ValueError, "is the target itself"),
    ],
)
def test_a_bad_non_target_is_named(nontarget: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        choose_nontarget(SCORES, torch.tensor([0, 1, 0]), nontarget)  # type: ignore[arg-type]


def test_a_single_output_has_no_runner_up() -> None:
    with pytest.raises(ValueError, match="at least two outputs"):
        choose_nontarget(torch.ones(2, 1), torch.tensor([0, 0]))


@pytest.mark.parametrize(
    "target",
    [1, torch.tensor(1), torch.tensor([1]), [1], torch.tensor([1, 1, 1]), [1, 1, 1], np.array([1, 1, 1]), (1,)],
)
def test_every_form_of_a_target_means_the_same(target: object) -> None:
    indices, rest = class_indices(target, SCORES)  # type: ignore[arg-type]
    assert indices.tolist() == [1, 1, 1]
    assert rest is None


def test_tuple_targets_keep_their_place() -> None:
    outputs = torch.arange(48.0).reshape(2, 3, 2, 4)
    indices, rest = class_indices([(0, 1, 2), (2, 0, 3)], outputs)
    assert indices.tolist() == [0, 2]
    assert rest == [(1, 2), (0, 3)]
    choice = choose(outputs, [(0, 1, 2), (2, 0, 3)], "runner_up")
    assert choice.index == [(2, 1, 2), (1, 0, 3)]  # the next highest class at the same place
    assert choice.values(outputs).tolist() == [float(outputs[0, 2, 1, 2]), float(outputs[1, 1, 0, 3])]


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (None, ValueError, r"outputs of shape \(3,\); say which one: target="),
        (3, ValueError, "target 3 of sample 0 does not exist: indices go from 0 to 2"),
        ([0, 1, -4], ValueError, "target -4 of sample 2 does not exist: .* from -1 to -3 counted from the end"),
        ([0, 1], ValueError, "2 targets for 3 samples"),
        ((0, 1), ValueError, r"target \(0, 1\) of sample 0 has 2 indices.*1 axes"),
        (1.0, TypeError, "integer"),
        (torch.tensor([0.5, 0.0, 1.0]), TypeError, "integer.*0.5"),
    ],
)
def test_a_bad_target_is_named(target: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        class_indices(target, SCORES)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 1, 2)])
def test_a_single_output_is_itself_or_its_negative(shape: tuple[int, ...]) -> None:
    outputs = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)
    target = (0, 1) if len(shape) == 3 else None
    flat = outputs[:, 0, 1] if len(shape) == 3 else outputs.reshape(3)
    for word in (None, "auto", "target"):
        assert choose(outputs, target, word).values(outputs).tolist() == flat.tolist()  # type: ignore[arg-type]
    negated = choose(outputs, target, "negated")
    assert negated.values(outputs).tolist() == (-flat).tolist()
    assert negated.describe() == "minus the output"
    for other in ("runner_up", "others", "margin", 1, [0, 0, 0], lambda scores, target: target):
        with pytest.raises(ValueError, match="the model has a single one; nontarget='negated' explains its negative"):
            choose(outputs, target, other)  # type: ignore[arg-type]


def test_target_negated_and_margin() -> None:
    target = [0, 2, 0]
    assert choose(SCORES, target, "target").values(SCORES).tolist() == [3.0, 4.0, -1.0]
    assert choose(SCORES, target, "negated").values(SCORES).tolist() == [-3.0, -4.0, 1.0]
    margin = choose(SCORES, target, "margin")
    assert margin.values(SCORES).tolist() == [1.0, -1.0, 1.0]
    assert margin.nontargets is not None
    assert margin.nontargets.tolist() == [2, 1, 1]
    words = ["logit 0 (a) minus logit 2 (c)", "logit 2 (c) minus logit 1 (b)", "logit 0 (a) minus logit 1 (b)"]
    assert margin.words(3, "abc") == words
    assert margin.legend(1, {2: "cup"}) == ("speaks for logit 2 (cup)", "speaks for logit 1")
    auto = choose(SCORES, target, "auto")
    assert auto.words(2) == ["logit 2, which is not the target 0", "logit 1, which is not the target 2"]


@pytest.mark.parametrize("word", ["target", "runner_up", "others", "negated", "margin"])
def test_of_maps_of_logits_a_class_is_its_sum_over_the_image(word: str) -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    sums = maps.sum((2, 3))
    found = choose(maps, [0, 2], word)  # type: ignore[arg-type]
    assert torch.allclose(found.values(maps), choose(sums, [0, 2], word).values(sums))  # type: ignore[arg-type]
    model = found.around(lambda x: x)
    assert torch.allclose(select(model(maps), found.index), found.values(maps))
    assert "image" in found.words(1)[0]
    pixel = choose(maps, [(0, 1, 2), (2, 0, 3)], word)  # type: ignore[arg-type]
    places = torch.stack([maps[0, :, 1, 2], maps[1, :, 0, 3]])
    assert torch.allclose(pixel.values(maps), choose(places, [0, 2], word).values(places))  # type: ignore[arg-type]
    assert "at (1, 2)" in pixel.words(1)[0]


def test_a_class_of_outputs_with_one_more_axis_stays_a_question() -> None:
    with pytest.raises(ValueError, match=r"target \(1,\) of sample 0 has 1 indices"):  # [B, K, T], or tokens [B, T, K]?
        choose(torch.randn(2, 3, 4), 1, "runner_up")


def test_only_what_is_asked_for_has_to_be_finite() -> None:
    masked = torch.tensor([[3.0, 1.0, -torch.inf, 2.0], [0.0, -torch.inf, 5.0, 4.0]])
    assert choose(masked, [0, 2], "runner_up").nontargets.tolist() == [3, 3]  # type: ignore[union-attr]
    assert choose(masked, [0, 2], "margin").values(masked).tolist() == [1.0, 1.0]
    for target, other, said in (
        (0, [1, 1], "logit 1 of sample 1"),
        ([2, 2], "runner_up", "logit 2 of sample 0"),
        (0, "others", "the mean of all logits but the target 0 of sample 0"),
    ):
        with pytest.raises(ValueError, match=f"{said} is NaN or infinite \\(-inf\\)"):
            choose(masked, target, other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="all outputs of sample 1 but the target's are -inf"):
        choose(torch.tensor([[1.0, 2.0], [1.0, -torch.inf]]), 0, "runner_up")
    with pytest.raises(ValueError, match="logit 1 of sample 0 is NaN"):
        choose(torch.tensor([[1.0, torch.nan, 0.0]]), 0, "runner_up")


def test_others_is_the_mean_of_the_others_at_the_targets_place() -> None:
    assert choose(SCORES, [0, 1, 2], "others").values(SCORES).tolist() == [1.5, 2.0, -1.5]
    deep = torch.stack([SCORES, 10 * SCORES], 2)
    assert choose(deep, (0, 1), "others").values(deep).tolist() == [15.0, 45.0, -25.0]
    assert others_weights(4).sum(1).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("form", [torch.softmax, torch.log_softmax])
def test_softmax_outputs_are_refused_in_every_precision(dtype: torch.dtype, form: object) -> None:
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)).mul(3).to(dtype)
    with pytest.raises(ValueError, match=r"every row.*explain the logits: drop the softmax"):
        check_logits(form(logits, 1))  # type: ignore[operator]
    check_logits(logits)


def test_softmax_over_the_class_axis_of_maps_is_refused() -> None:
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="a softmax"):
        check_logits(maps.softmax(1))
    check_logits(maps.softmax(3))  # sums to 1 along another axis


def test_logits_that_sum_to_one_by_chance_are_let_through() -> None:
    chance = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    check_logits(chance, lambda: chance * 2)
    with pytest.raises(ValueError, match="probabilities"):
        check_logits(chance, lambda: chance.flip(1))


def test_sigmoid_outputs_are_not_a_softmax() -> None:
    check_logits(torch.tensor([[0.9, 0.8], [0.1, 0.3]]))
    check_logits(torch.tensor([[1.0], [1.0]]))  # one column cannot be told


def test_explained_outputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="logit 0 of sample 1 is NaN or infinite"):
        choose(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]), 0, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_combined_outputs_are_a_matrix_product_and_draw_nothing(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 3).to(dtype)
    weights = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, -1.0]], dtype=dtype)
    state = torch.get_rng_state()
    combined = CombinedOutputs(model, weights)
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.ones(4, 2, dtype=dtype)
    assert torch.allclose(combined(x), model(x) @ weights.T)
    assert combined(x).dtype == dtype


def test_combined_outputs_of_maps_mix_the_class_axis_only() -> None:
    weights = torch.tensor([[0.0, 0.5, 0.5]])
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor) -> Tensor:
        return x

    assert torch.allclose(CombinedOutputs(model, weights)(maps)[:, 0], maps[:, 1:].mean(1))


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.bool])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 4)])
def test_class_numbers_are_no_scores(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    name = str(kind).removeprefix("torch.")
    with pytest.raises(ValueError, match=f"the model returns {name}, which are no scores .*after an argmax"):
        check_logits(torch.ones(shape, dtype=kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("classes", [2, 10, 64])
def test_the_runner_up_of_few_numbers_is_that_of_torch(classes: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(classes)
    for number in range(20):
        scores = torch.randn(8, classes, generator=generator).to(dtype)
        scores = scores.round() if number % 2 else scores  # with ties, and zeros of both signs
        scores[0, 0] = (torch.inf, -torch.inf, torch.nan, 0.0)[number % 4]
        target = torch.randint(classes, (8,), generator=generator)
        others = scores.scatter(1, target[:, None], -torch.inf).max(1)
        if bool((others.values == -torch.inf).any()):
            with pytest.raises(ValueError, match="are -inf"):
                choose_nontarget(scores, target)
        else:
            assert torch.equal(choose_nontarget(scores, target), others.indices)


def test_what_was_chosen_is_no_tensor_of_the_users() -> None:
    target, nontarget = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 0])
    choice = choose(SCORES, target, nontarget)
    target.fill_(2), nontarget.fill_(2)
    assert choice.classes.tolist() == [0, 1, 2]
    assert choice.nontargets is not None
    assert choice.nontargets.tolist() == [1, 0, 0]
