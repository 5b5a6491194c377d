"""Minimal missing sets: closed forms, certificates computed a second time, what is refused."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from absence_plugins import Column, ReferenceSet, SignalKind, TableKind, TextKind, Unit, VolumeKind
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.memory_layout import PLAIN, Way
from absence_plugins.core.outputs import Logit
from absence_plugins.methods.missing import MissingSet, Search, cut_pieces, exhaustive_set, missing_set, sufficient_set
from absence_plugins.methods.missing.questions import Question, call_class
from absence_plugins.methods.missing.search import find_prefix

FAST = Search(budget=0, proof=0)
LAST = torch.channels_last


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    rows = torch.tensor(weight, dtype=torch.float64)
    layer = nn.Linear(rows.shape[1], rows.shape[0], dtype=torch.float64)
    layer.weight.data = rows
    layer.bias.data = torch.tensor(bias or [0.0] * len(rows), dtype=torch.float64)
    return layer.eval()


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Function(nn.Module):
    """A function of one input as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.function(x)
        return value


def lead(logits: Tensor, target: int) -> float:
    others = torch.cat([logits[:target], logits[target + 1 :]])
    return float((logits[target] - others.max()).detach())


def check_by_hand(found: MissingSet, model: nn.Module, x: Tensor, reference: Tensor, margin: float = 0.0) -> None:
    """The certificate a second time, piece by piece, with the labels alone."""
    target = int(model(x)[0].argmax())
    labels = found.given.pieces.labels.expand(x.shape[1:])
    can_change = found.given.place < found.pieces

    def value(members: tuple[int, ...]) -> float:
        image = x.clone()
        for label in members:
            where = (labels == label) & can_change
            image[0][where] = reference[0][where]
        with torch.no_grad():
            return lead(model(image)[0].double(), target)

    assert found.before == pytest.approx(value(()), abs=1e-4)
    assert found.after == pytest.approx(value(found.members), abs=1e-4)
    assert value(found.members) < -margin
    for member, certified in zip(found.members, found.certificate.tolist(), strict=True):
        left = value(tuple(one for one in found.members if one != member))
        assert left >= -margin - 1e-5
        assert certified == pytest.approx(left, abs=1e-4)
    assert found.is_minimal
    assert found.verify(model)


# -------------------------------------------------------------------------------------------------- closed forms


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_of_a_linear_network_the_set_is_the_shortest_prefix_of_the_contributions(seed: int, entries: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = linear(torch.randn(2, entries, generator=generator).tolist(), [1.0, 0.0])
    x = torch.rand(1, entries, generator=generator, dtype=torch.float64)
    reference = x + torch.rand(1, entries, generator=generator, dtype=torch.float64)
    target = int(model(x).argmax())
    weight = model.weight[target] - model.weight[1 - target]
    gains = (-(weight * (reference - x))[0]).detach().sort(descending=True).values
    need = float((model(x)[0, target] - model(x)[0, 1 - target]).detach())
    totals = gains.clamp(min=0).cumsum(0)
    if int(model(reference).argmax()) == target:
        with pytest.raises(ValueError, match="decides for class"):
            missing_set(model, x, reference)
        return
    for search in (FAST, Search(order="effects", budget=0, proof=0)):
        found = missing_set(model, x, reference, search=search)
        assert len(found) == int((totals <= need).sum()) + 1
        check_by_hand(found, model, x, reference)


def test_the_evidence_is_the_relevance_of_every_piece() -> None:
    model = linear([[2.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
    found = missing_set(model, rows([1.0, 0.0, 0.0]), rows([1.0, 1.0, 1.0]))
    assert found.scores.tolist() == [3.0, 1.0]  # entries 1 and 2; entry 0 does not differ
    assert (found.before, found.after, found.whole) == (2.0, -1.0, -2.0)
    assert found.members == (1,)
    assert found.pieces == 2
    assert found.mask.tolist() == [False, True, False]
    assert found.image.tolist() == [[1.0, 1.0, 0.0]]
    assert found.decided == (0, 1)


def test_both_parts_of_a_conjunction_are_needed() -> None:
    """Logit 1 = 4 relu(a + b - 1): neither alone does anything, so no greedy choice by single effects sees them."""
    model = nn.Sequential(
        linear([[1.0, 1.0, 0.0, 0.0]], [-1.0]), nn.ReLU(), linear([[0.0], [4.0]], [1.0, 0.0])
    ).eval()  # fmt: skip
    x, reference = rows([0.0, 0.0, 0.0, 0.0]), rows([1.0, 1.0, 1.0, 1.0])
    for search in (Search(), FAST):
        found = missing_set(model, x, reference, search=search)
        assert sorted(found.members) == [0, 1]
        assert found.certificate.tolist() == [1.0, 1.0]
        check_by_hand(found, model, x, reference)
    assert missing_set(model, x, reference).is_smallest


def test_a_prefix_that_crosses_the_bound_and_back_is_found() -> None:
    """u(S) = 1, -1, 1, -1 for one, two, ... pieces: bisection over the prefixes would find the third or the first."""
    steps = torch.tensor([1.0, -1.0, 1.0, -1.0])
    model = Function(lambda x: torch.stack([steps[x.sum(1).long()], torch.zeros(len(x))], 1))
    found = missing_set(
        model,
        torch.zeros(1, 3),
        torch.ones(1, 3),
        search=Search(order=torch.tensor([[3.0, 2.0, 1.0]]), budget=0, proof=0),
    )
    assert found.members == (0,)
    pasting_labels = found.given.labels
    assert pasting_labels == (0, 1, 2)


def test_prefixes_are_asked_about_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear([[0.0] * 8, [1.0] * 8], [4.5, 0.0])
    found = missing_set(model, rows([0.0] * 8), rows([1.0] * 8), search=FAST)
    assert len(found) == 5
    from absence_plugins.methods.missing.pasting import Pasting

    pasting = Pasting(found.given, model, batch_size=2)
    assert find_prefix(pasting, torch.arange(8.0)).tolist() == [False] * 3 + [True] * 5
    assert pasting.forwards == [6]  # three batches of two


def test_two_small_ones_are_left_out_for_a_better_one() -> None:
    """Relevance puts the pieces of a saturated pair first; the exchange finds the single piece that does it alone."""

    def logits(x: Tensor) -> Tensor:
        pair = torch.relu(x[:, 0] + x[:, 1] - 0.5)
        return torch.stack([torch.ones(len(x), dtype=x.dtype), 0.9 * pair + 1.2 * x[:, 2] ** 2], 1)

    model, x, reference = Function(logits), rows([0.0, 0.0, 0.0]), rows([1.0, 1.0, 1.0])
    assert missing_set(model, x, reference, search=Search(proof=0)).members == (2,)


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_against_all_subsets(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 3)).double().eval()
    x, others = torch.rand(1, 9).double(), 5 * torch.rand(50, 9).double() - 2
    target = int(model(x).argmax())
    reference = others[model(others).argmax(1) != target][:1]

    def falls(members: tuple[int, ...]) -> bool:
        image = x.clone()
        image[:, list(members)] = reference[:, list(members)]
        return lead(model(image)[0], target) < 0

    smallest = next(size for size in range(1, 10) if any(map(falls, combinations(range(9), size))))
    quick = missing_set(model, x, reference, paste="all", search=Search(proof=0))
    check_by_hand(quick, model, x, reference)
    assert len(quick) == smallest
    proven = exhaustive_set(quick, model)
    assert (len(proven), proven.least, proven.is_smallest, proven.gap) == (smallest, smallest, True, 0)
    assert missing_set(model, x, reference, paste="all").is_smallest


def test_the_exhaustive_search_ends_where_its_budget_does_and_says_how_far_it_came() -> None:
    model = linear([[0.0] * 12, [1.0] * 12], [4.5, 0.0])
    found = missing_set(model, rows([0.0] * 12), rows([1.0] * 12), search=FAST)
    assert (len(found), found.least, found.is_smallest) == (5, 1, False)
    part = exhaustive_set(found, model, most=12 + 66)
    assert (len(part), part.least, part.gap) == (5, 3, 2)
    assert "at least 3 of the 12 entries" in part.sentence()
    whole = exhaustive_set(found, model)
    assert whole.is_smallest
    assert whole.forwards > part.forwards > found.forwards


# -------------------------------------------------------------------------------------------------- questions


def test_a_margin_is_a_stricter_question() -> None:
    model = linear([[0.0] * 4, [1.0] * 4], [1.5, 0.0])
    x, reference = rows([0.0] * 4), rows([1.0] * 4)
    assert [len(missing_set(model, x, reference, margin=margin)) for margin in (0.0, 0.5, 1.0, 2.0)] == [2, 3, 3, 4]
    with pytest.raises(ValueError, match=r"all 4 entries of reference 0 together bring .* to -2.5 only, not below -3"):
        missing_set(model, x, reference, margin=3.0)


def test_a_foil_is_the_only_rival() -> None:
    model = linear([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0]], [1.0, 0.0, 0.0])
    x, reference = rows([0.0, 0.0]), rows([1.0, 1.0])
    assert missing_set(model, x, reference).members == (0,)
    found = missing_set(model, x, reference, foil=2)
    assert found.members == (1,)
    assert found.sentence({0: "cup", 2: "bowl"}).startswith("Cup and not bowl because this entry is missing: entry 1.")


def test_an_output_falls_by_at_least_the_margin() -> None:
    model = linear([[1.0, 0.0, 0.0], [0.0, -2.0, -3.0]])
    x, reference = rows([1.0, 0.0, 0.0]), rows([1.0, 1.0, 1.0])
    for output in (1, Logit(1), Unit("", 1)):
        found = missing_set(model, x, reference, output=output, margin=5.0)
        assert sorted(found.members) == [1, 2]
        assert (found.before, found.after, found.given.question.bound) == (0.0, -5.0, -5.0)
        assert found.decided == (None, None)
        assert len(missing_set(model, x, reference, output=output, margin=3.0)) == 1  # reached exactly
        assert found.verify(model)
    with pytest.raises(ValueError, match="say by how much the output must fall"):
        missing_set(model, x, reference, output=1)


def test_a_hidden_unit_can_be_asked_about() -> None:
    model = nn.Sequential(linear([[-1.0, -2.0], [1.0, 1.0]]), nn.ReLU(), linear([[1.0, 1.0]])).eval()
    found = missing_set(model, rows([0.0, 0.0]), rows([1.0, 1.0]), output=Unit("1", 0), margin=1.5)
    assert found.members == (1,)
    assert (found.before, found.after) == (0.0, -2.0)  # in front of the rectifier


def test_the_sign_is_the_decision_of_a_single_output() -> None:
    model = linear([[-2.0, 1.0]], [0.5])
    found = missing_set(model, rows([0.0, 0.0]), rows([1.0, 1.0]))
    assert (found.members, found.before, found.after) == ((0,), 0.5, -1.5)
    other = missing_set(linear([[2.0, 1.0]], [-0.5]), rows([0.0, 0.0]), rows([1.0, 0.0]))
    assert (other.members, other.before, other.after) == ((0,), 0.5, -1.5)
    assert "minus the output is 0.5" in other.sentence().lower()


def test_the_logits_in_front_of_a_softmax_are_read() -> None:
    model = nn.Sequential(linear([[0.0, 0.0], [3.0, 1.0]], [2.0, 0.0]), nn.Softmax(1)).eval()
    with pytest.warns(AbsenceWarning, match="softmax"):
        found = missing_set(model, rows([0.0, 0.0]), rows([1.0, 1.0]))
    assert (found.before, found.after) == (2.0, -1.0)
    labels = nn.Sequential(linear([[0.0, 0.0], [3.0, 1.0]], [2.0, 0.0]), nn.Sigmoid()).eval()
    with pytest.raises(ValueError, match="independent labels"), pytest.warns(AbsenceWarning):
        missing_set(labels, rows([0.0, 0.0]), rows([1.0, 1.0]))


def test_of_several_references_the_one_that_needs_fewest_pieces() -> None:
    model = linear([[0.0] * 3, [1.0] * 3], [1.5, 0.0])
    references = rows([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.0, 2.0, 0.0])
    found = missing_set(model, rows([0.0] * 3), references)
    assert (found.given.number, found.members) == (2, (1,))
    with pytest.raises(ValueError, match="no reference does it"):
        missing_set(model, rows([0.0] * 3), references[:, [0, 0, 0]] * 0.9 + rows([0.0, 0.0, 0.1]), margin=5.0)


def test_only_what_x_lacks_is_pasted_unless_that_is_not_enough() -> None:
    """Logit 0 is held up by content of x that the reference has not."""
    model = linear([[2.0, 0.0], [0.0, 1.0]], [0.0, 0.1])
    x, reference = rows([1.0, 0.0]), rows([0.0, 1.0])
    found = missing_set(model, x, reference)
    assert (found.given.paste, found.members) == ("all", (0,))
    assert "because of this entry, which is different in the reference" in found.sentence()
    with pytest.raises(ValueError, match=r"what is taken away counts as well .* pass paste='all'"):
        missing_set(model, x, reference, paste="content")
    stronger = missing_set(model, x, rows([0.0, 3.0]))
    assert (stronger.given.paste, stronger.members) == ("content", (1,))


def test_blank_is_measured_from_empty() -> None:
    model = linear([[0.0, 0.0], [-1.0, 1.0]], [1.0, 1.5])
    x, reference = rows([-1.0, -1.0]), rows([1.0, -1.0])
    assert missing_set(model, x, reference, empty=-1.0, paste="content").members == (0,)
    with pytest.raises(ValueError, match="reference 0 has no content that x lacks"):
        missing_set(model, x, reference, paste="content")


# -------------------------------------------------------------------------------------------------- presence


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_sufficient_set_of_a_linear_network(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = linear([[0.0] * 6, torch.randn(6, generator=generator).tolist()])
    x, reference = (torch.randn(1, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    target = int(model(x).argmax())
    if int(model(reference).argmax()) == target:
        return
    sign = 1 if target else -1
    gains = (sign * model.weight[1] * (x - reference)[0]).detach().sort(descending=True).values
    need = -sign * float(model(reference)[0, 1].detach())
    found = sufficient_set(model, x, reference)
    assert len(found) == int((gains.clamp(min=0).cumsum(0) <= need).sum()) + 1
    assert found.what == "sufficient"
    assert found.before < 0 < found.after
    assert found.is_minimal
    assert found.verify(model)
    image = reference.clone()
    image[:, list(found.members)] = x[:, list(found.members)]
    assert int(model(image).argmax()) == target


def test_a_sufficient_set_of_an_output_comes_near_its_value() -> None:
    model = linear([[1.0, 2.0, 4.0]])
    found = sufficient_set(model, rows([1.0, 1.0, 1.0]), rows([0.0, 0.0, 0.0]), output=0, margin=1.5)
    assert sorted(found.members) == [1, 2]
    assert (found.before, found.after, found.given.question.bound) == (0.0, 6.0, 5.5)
    assert "are enough" in found.sentence()


# -------------------------------------------------------------------------------------------------- pieces and kinds


def test_pieces_of_images() -> None:
    x = torch.zeros(1, 3, 4, 6)
    assert cut_pieces(x).labels.flatten().tolist() == list(range(24))
    assert cut_pieces(x, 3).labels.tolist() == [[0, 0, 0, 1, 1, 1]] * 3 + [[2, 2, 2, 3, 3, 3]]
    given_labels = torch.arange(24).view(4, 6) // 7
    assert cut_pieces(x, given_labels).thing == "region"
    assert cut_pieces(torch.zeros(1, 1, 4, 4, 4), 2).labels[2, 0, 3] == 5
    with pytest.raises(ValueError, match=r"pieces have shape \(4, 4\), the places of the input \(4, 6\)"):
        cut_pieces(x, given_labels[:, :4])
    with pytest.raises(TypeError, match="must be integers"):
        cut_pieces(x, given_labels.float())
    with pytest.raises(ValueError, match="50176 pixels, more than 4096; pass larger pieces"):
        cut_pieces(torch.zeros(1, 3, 224, 224))
    with pytest.raises(ValueError, match="of vectors leave it out"):
        cut_pieces(torch.zeros(1, 5), 2)


def test_a_pixel_changes_in_all_its_channels_and_a_region_as_a_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(2, 27, generator=generator).double()
    model = nn.Sequential(nn.Flatten(), linear((weight * torch.tensor([[-1.0], [1.0]])).tolist(), [3.0, 0.0])).eval()
    x, reference = torch.zeros(1, 3, 3, 3).double(), torch.zeros(1, 3, 3, 3).double()
    reference[0, 1] = 1.0  # one channel alone differs
    found = missing_set(model, x, reference)
    assert found.thing == "pixel"
    assert found.mask.shape == (3, 3, 3)
    assert torch.equal(found.mask[0] | found.mask[2], torch.zeros(3, 3, dtype=torch.bool))  # these are equal anyway
    labels = torch.tensor([[7, 7, 7], [8, 8, 8], [9, 9, 9]])
    regions = missing_set(model, x, reference, pieces=labels)
    assert set(regions.members) <= {7, 8, 9}
    assert "region 9" in regions.sentence() or "region 8" in regions.sentence() or "region 7" in regions.sentence()
    check_by_hand(regions, model, x, reference)


def test_columns_are_named_with_both_values_and_a_category_moves_as_one() -> None:
    kind = TableKind((Column("age", mean=40, std=10, unit="years"), Column("color", ("red", "blue")), Column("other")))
    model = linear([[0.0] * 4, [1.0, 0.0, 3.0, 0.0]], [2.0, 0.0])
    references = ReferenceSet(rows([1.0, 0.0, 1.0, 0.0]), kind=kind, k=1)
    found = missing_set(model, rows([0.0, 1.0, 0.0, 0.0]), references)
    assert (found.thing, found.members) == ("column", (1,))
    assert found.mask.tolist() == [False, True, True, False]
    assert found.sentence().startswith("0 and not 1 because this column is missing: color (red, there blue). ")
    assert found.evidence.tolist() == [3.0]
    assert "age (40 years, there 50 years)" not in found.table()


def test_tokens_are_named_by_what_stands_where() -> None:
    kind = TextKind({0: "", 1: "not", 2: "good", 3: "very"}, special=(0,))
    model = nn.Sequential(nn.Embedding(4, 1), nn.Flatten(), linear([[0.0] * 3, [0.0, 1.0, 0.0]], [1.0, 0.0])).eval()
    model[0].weight.data = torch.tensor([[0.0], [2.0], [0.5], [0.0]], dtype=torch.float64)
    x, reference = torch.tensor([[2, 3, 2]]), torch.tensor([[3, 1, 3]])
    found = missing_set(model, x, ReferenceSet(reference, kind=kind, k=1))
    assert (found.thing, found.members, found.image.tolist()) == ("token", (1,), [[2, 1, 2]])
    assert "because this token is missing: 'not' in place of 'very' at 1." in found.sentence()
    assert missing_set(model, x, reference).given.paste == "all"  # numbers without a kind have no content
    with pytest.raises(ValueError, match="pass a ReferenceSet with kind="):
        missing_set(model, x, reference, paste="content")


def test_spans_and_voxels() -> None:
    weight = [[0.0] * 16, [float(place // 4 == 2) for place in range(16)]]
    model = nn.Sequential(nn.Flatten(), linear(weight, [2.5, 0.0])).eval()
    signal = ReferenceSet(torch.ones(1, 2, 8).double(), kind=SignalKind(rate=4.0), k=1)
    found = missing_set(model, torch.zeros(1, 2, 8).double(), signal, pieces=4)
    assert (found.thing, found.members) == ("span", (0,))  # both channels of the first four samples
    assert found.names == ("0 to 1 s",)
    volume = ReferenceSet(torch.ones(1, 1, 4, 2, 2).double(), kind=VolumeKind(), k=1)
    found = missing_set(model, torch.zeros(1, 1, 4, 2, 2).double(), volume)
    assert (found.thing, sorted(found.members)) == ("voxel", [8, 9, 10])
    assert found.names[0].startswith("voxel at (2, ")


# -------------------------------------------------------------------------------------------------- never silently wrong


def test_what_is_refused() -> None:
    model = linear([[2.0, 0.0], [0.0, 1.0]])
    x, reference = rows([1.0, 0.0]), rows([1.0, 3.0])
    nan = rows([float("nan"), 0.0])
    with pytest.raises(ValueError, match="decides for class 0 on x and on the reference"):
        missing_set(model, x, rows([2.0, 1.0]))
    with pytest.raises(ValueError, match="all references"):
        sufficient_set(model, x, rows([2.0, 1.0], [3.0, 0.0]))
    with pytest.raises(ValueError, match="x holds NaN"):
        missing_set(model, nan, reference)
    with pytest.raises(ValueError, match="the reference holds NaN"):
        missing_set(model, x, nan)
    with pytest.raises(ValueError, match=r"images\[:1\]"):
        missing_set(model, torch.cat([x, x]), reference)
    with pytest.raises(ValueError, match=r"the reference has shape \(1, 3\)"):
        missing_set(model, x, rows([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match="reference must be a tensor"):
        missing_set(model, x, [1.0, 2.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="foil=0 is what the model decides for"):
        missing_set(model, x, reference, foil=0)
    with pytest.raises(ValueError, match="foil"):
        missing_set(model, x, reference, output=1, margin=1.0, foil=1)
    with pytest.raises(ValueError, match="margin=-1"):
        missing_set(model, x, reference, margin=-1.0)
    with pytest.raises(ValueError, match="paste='some'"):
        missing_set(model, x, reference, paste="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order='best'"):
        Search(order="best")
    with pytest.raises(ValueError, match="finite evidence of x's shape"):
        missing_set(model, x, reference, search=Search(order=torch.zeros(3)))
    with pytest.raises(TypeError, match="output must be"):
        missing_set(model, x, reference, output="cup", margin=1.0)
    with pytest.raises(ValueError, match="two logits of x are equal"):
        missing_set(linear([[1.0, 0.0], [1.0, 1.0]]), x, reference)


def test_probabilities_are_refused_and_logits_that_sum_to_one_by_chance_are_not() -> None:
    model = linear([[0.0, 0.0], [2.0, 0.0]], [1.0, 0.0])
    assert len(missing_set(model, rows([0.0, 0.0]), rows([1.0, 1.0]))) == 1
    with pytest.raises(ValueError, match="probabilities"):
        missing_set(Function(lambda x: torch.stack([1 - x[:, 0], x[:, 0]], 1)), rows([0.1, 0.0]), rows([0.9, 1.0]))


def test_training_mode_and_chance_are_refused() -> None:
    x, reference = rows([1.0, 0.0]), rows([1.0, 3.0])
    model = nn.Sequential(linear([[2.0, 0.0], [0.0, 1.0]]), nn.Dropout()).train()
    with pytest.raises(ValueError, match=r"1 \(Dropout\) is in training mode .* call model.eval\(\)"):
        missing_set(model, x, reference)
    assert model.training
    model.eval()
    assert missing_set(model, x, reference).members == (1,)
    noisy = nn.Sequential(model[0], Function(lambda values: values + torch.rand_like(values)))
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="draws at random in evaluation mode"):
        missing_set(noisy.eval(), x, reference)
    assert torch.equal(state, torch.get_rng_state())


def test_an_output_that_is_infinite_half_way_is_refused() -> None:
    def logits(x: Tensor) -> Tensor:
        return torch.stack([torch.full((len(x),), 1.5), x.sum(1) + torch.where(x.sum(1) == 1, torch.inf, 0.0)], 1)

    with pytest.raises(ValueError, match="NaN or infinite on a half-pasted input"):
        missing_set(Function(logits), torch.zeros(1, 2), torch.ones(1, 2), search=Search(order="effects"))


def test_an_operation_without_relevance_names_the_other_order() -> None:
    model = Function(lambda x: torch.stack([x.sort(1).values[:, 0] + 1, x.sum(1)], 1))
    with pytest.raises(ValueError, match="order='effects'"):
        missing_set(model, torch.zeros(1, 3), torch.ones(1, 3))
    assert len(missing_set(model, torch.zeros(1, 3), torch.ones(1, 3), search=Search(order="effects"))) == 2


def test_model_and_inputs_stay_as_they_were() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x, reference = torch.zeros(1, 4), torch.full((1, 4), 3.0)
    if int(model(x).argmax()) == int(model(reference).argmax()):
        model[2].weight.data.neg_()
    before = [x.clone(), reference.clone(), *(one.clone() for one in model.parameters())]
    state = torch.get_rng_state()
    found = missing_set(model, x, reference, paste="all")
    again = missing_set(model, x, reference, paste="all")
    assert torch.equal(state, torch.get_rng_state())
    after = [x, reference, *model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(one.grad is None for one in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert found.to_dict() == again.to_dict()


def test_verify_notices_another_network() -> None:
    model = linear([[2.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
    found = missing_set(model, rows([1.0, 0.0, 0.0]), rows([1.0, 1.0, 1.0]))
    assert found.verify(model)
    model.weight.data[1, 1] = 3.2
    assert not found.verify(model)
    model.weight.data[1, 1] = 1.0
    assert not found.verify(model)


# -------------------------------------------------------------------------------------------------- the result


def test_the_result_says_it_all() -> None:
    model = linear([[2.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
    found = missing_set(model, rows([1.0, 0.0, 0.0]), rows([1.0, 1.0, 1.0]))
    assert found.sentence() == (
        "0 and not 1 because this entry is missing: entry 1. Logit 0 minus the highest other logit is 2 before and -1 "
        "with it; it cannot be left out, and no smaller set does it with this reference."
    )
    assert found.sentence(["cup", "bowl"]).startswith("Cup and not bowl because")
    assert json.loads(json.dumps(found.to_dict()))["certificate"] == [2.0]
    assert repr(found).startswith("MissingSet(missing: 1 of 2 entries, u 2 -> -1, bound 0, smallest, ")
    assert "entry 1" in found.table()
    assert len(found.figure().axes) == 1
    assert call_class(1, ["cup", "bowl"]) == "bowl"
    assert Question(target=1).words({1: "bowl"}) == "logit bowl minus the highest other logit"


def test_the_figure_of_an_image_outlines_the_set() -> None:
    model = nn.Sequential(nn.Flatten(), linear([[0.0] * 9, [1.0] * 9], [1.5, 0.0])).eval()
    x, reference = torch.zeros(1, 1, 3, 3).double(), torch.zeros(1, 1, 3, 3).double()
    reference[0, 0, 1] = 1.0
    found = missing_set(model, x, reference)
    figure = found.figure()
    assert len(figure.axes) == 3
    sides = figure.axes[2].collections[0].get_segments()
    assert len(sides) == 6  # two neighboring pixels
    assert {tuple(point) for side in sides for point in side} >= {(-0.5, 0.5), (-0.5, 1.5)}
    assert "lead -0.5" in figure.axes[2].get_title()


def test_a_search_in_the_fast_way_has_the_certificate_of_the_network_as_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)).eval()
    for layer in (net[0], net[4]):  # how red, green, blue an image is
        layer.weight.data = (torch.eye(3) + 0.1 * torch.randn(3, 3, generator=generator)).view_as(layer.weight)
        layer.bias.data.zero_()
    x, reference = (torch.rand(1, 3, 8, 8, generator=generator) for _ in range(2))
    x[:, 0] += 1
    reference[:, 1] += 1
    seen: list[bool] = []  # whether each forward was in channels last
    net.register_forward_pre_hook(lambda _net, given: seen.append(given[0].is_contiguous(memory_format=LAST)))
    found = []
    for way in (PLAIN, Way(LAST, is_direct=True)):
        seen.clear()
        search = Search(budget=0, proof=0, batch_size=4, way=way)
        found.append(missing_set(net, x, reference, pieces=2, paste="all", search=search))
        assert any(seen) is (way != PLAIN)
        assert not any(seen[-2:])  # the certificate
    plain, fast = found
    assert len(plain) >= 2
    assert fast.members == plain.members
    assert (fast.before, fast.after, fast.whole) == (plain.before, plain.after, plain.whole)
    assert torch.equal(fast.certificate, plain.certificate)
