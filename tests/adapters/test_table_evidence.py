"""Rows of tables under Captum, Zennit and `relevance`: closed forms, completeness, and a planted absence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from absence_plugins import Column, Explanation, ReferenceSet, SignalKind, TableKind, table_kind
from absence_plugins.captum import AbsenceDeepLift, AbsenceIntegratedGradients
from absence_plugins.core.column_words import describe_columns
from absence_plugins.data.planted import column_missing
from absence_plugins.relevance import relevance
from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient

KIND = TableKind((Column("age"), Column("color", ("red", "blue")), Column("size")))
WEIGHTS = torch.tensor([[2.0, 0.5, -1.5, -3.0], [0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
# One reference each: the nearest is the only one.
REFERENCE = torch.tensor([[3.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
ROW = torch.tensor([[1.0, 1.0, 0.0, 4.0]], dtype=torch.float64)


def linear() -> nn.Linear:
    net = nn.Linear(4, 2, bias=False).double()
    net.weight.data = WEIGHTS.clone()
    return net


def explain(name: str, model: nn.Module, references: ReferenceSet, x: Tensor, target: int) -> Explanation:
    if name == "zennit":
        with AbsenceGradient(model, AbsenceEpsilonGamma(), reference=references) as attributor:
            return attributor.explain(x, torch.eye(2, dtype=x.dtype)[[target]].expand(len(x), 2))
    method: Any = {"ig": AbsenceIntegratedGradients, "deeplift": AbsenceDeepLift}[name]
    # On a linear model every rule of integration is exact, but Captum rounds the Gauss-Legendre weights to 1e-8.
    exact: Any = {"n_steps": 2, "method": "riemann_middle"} if isinstance(model, nn.Linear) else {"n_steps": 40}
    options = exact if name == "ig" else {}
    return method(model, reference=references).explain(x, target=target, **options)


METHODS = ("ig", "deeplift", "zennit")
# Some maps of these tests are about no absence, as the warnings say.
pytestmark = pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")


@pytest.mark.parametrize("name", METHODS)
def test_of_a_linear_model_every_column_has_weight_times_difference(name: str) -> None:
    references = ReferenceSet.from_table(REFERENCE, [1], columns=KIND, k=1)
    found = explain(name, linear(), references, ROW, 0)
    # age: 2 (1 - 3); color: red for blue, 0.5 - (-1.5); size: -3 (4 - 1).
    torch.testing.assert_close(KIND.things(found.attribution), torch.tensor([[-4.0, 2.0, -9.0]]).double())
    # Absent: the lower age and the other color. Evidence for the output is the color's alone: its entries together.
    torch.testing.assert_close(KIND.things(found.absence), torch.tensor([[0.0, 2.0, 0.0]]).double())
    torch.testing.assert_close(found.presence, torch.zeros(1, 4).double())
    assert found.completeness_error is not None
    assert float(found.completeness_error.abs().max()) < 1e-12
    assert describe_columns(found, names=["benign", "malignant"]) == [
        "'size' is 4, above the 1 of the references: holds logit 0 (benign) down by 9",
        "'age' is 1, below the 3 of the references: holds logit 0 (benign) down by 4",
        "'color' is red, not blue as in the references: raises logit 0 (benign) by 2",
    ]


@pytest.mark.parametrize("name", METHODS)
def test_entries_of_a_column_that_contradict_each_other_are_no_evidence(name: str) -> None:
    net = linear()
    net.weight.data[0] = torch.tensor([0.0, 5.0, 5.0, 0.0])  # whether red or blue, the same
    found = explain(name, net, ReferenceSet.from_table(REFERENCE, [1], columns=KIND, k=1), ROW, 0)
    torch.testing.assert_close(found.attribution, torch.tensor([[0.0, 5.0, -5.0, 0.0]]).double())
    assert not found.absence.any()
    assert not found.presence.any()
    assert describe_columns(found) == []


def test_relevance_of_a_linear_model_is_the_same() -> None:
    found = relevance(linear(), ROW, REFERENCE, output=0).attribution
    torch.testing.assert_close(KIND.things(found), torch.tensor([[-4.0, 2.0, -9.0]]).double())


def test_what_is_above_the_reference_is_present() -> None:
    net = linear()
    net.weight.data[0] = torch.tensor([-2.0, 0.0, 0.0, 3.0])
    found = explain("deeplift", net, ReferenceSet.from_table(REFERENCE, [1], columns=KIND, k=1), ROW, 0)
    torch.testing.assert_close(found.absence, torch.tensor([[4.0, 0.0, 0.0, 0.0]]).double())  # a low age raises it
    torch.testing.assert_close(found.presence, torch.tensor([[0.0, 0.0, 0.0, 9.0]]).double())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [KIND, SignalKind()], ids=["table", "signal"])
def test_the_map_of_a_network_sums_to_the_difference(name: str, kind: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh() if name == "ig" else nn.ReLU(), nn.Linear(16, 2)).double()
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    rows[:, 1:3] = torch.eye(2, dtype=torch.float64)[torch.arange(30) % 2]
    labels = torch.randint(0, 2, (30, 2), generator=generator)  # several may be true
    references = ReferenceSet(rows, labels, kind=kind, k=3)
    found = explain(name, net, references, rows[:5] + torch.tensor([0.5, 0, 0, -0.5]), 0)
    assert found.reference_output is not None
    total = found.output - found.reference_output.mean(1)
    torch.testing.assert_close(found.attribution.sum(1), total, rtol=0, atol=1e-6 if name == "ig" else 1e-12)
    assert found.references is not None
    assert found.references.shape == (5, 3, 4)


@pytest.fixture(scope="module")
def planted() -> tuple[nn.Module, ReferenceSet, Tensor, int, int]:
    """The planted table as rows [N, 24], rows in which the key column is blank, and the key."""
    problem = column_missing()
    model = nn.Sequential(nn.Unflatten(1, (1, 1, 24)), problem.model).eval()
    kind = table_kind([f"column {number}" for number in range(24)])
    references = ReferenceSet.from_table(
        problem.pool_images.flatten(1), problem.pool_labels, columns=kind, empty=0, contrast=problem.presence_unit
    )
    rows = problem.images[problem.labels == problem.absence_unit].flatten(1)
    return model, references, rows, int(problem.regions.flatten(1).any(0).nonzero()), problem.absence_unit


@pytest.mark.parametrize("name", METHODS)
def test_a_planted_absence_is_found_in_its_column(name: str, planted: Any) -> None:
    model, references, rows, key, target = planted
    assert len(rows) >= 50
    found = explain(name, model, references, rows, target)
    assert float((found.attribution[:, key] > 0).double().mean()) >= 0.99
    assert float((found.absence.argmax(1) == key).double().mean()) >= 0.99
    share = found.absence[:, key].sum() / found.absence.sum()
    assert float(share) > 0.9
    heaviest = [describe_columns(found, row, only_missing=True)[0] for row in range(len(rows))]
    assert sum(sentence.startswith(f"'column {key}' is 0, below the ") for sentence in heaviest) >= 0.99 * len(rows)
    # The standard map of the same output shows nothing there: the row and the zero baseline agree.
    standard = IntegratedGradients(model).attribute(rows, target=target)
    assert not standard[:, key].any()
    assert standard.any()


def test_what_holds_the_output_down_is_the_same_column(planted: Any) -> None:
    """The non-target view of rows that have the key: its content is negative evidence for the absence unit."""
    model, references, _, key, target = planted
    assert references.labels is not None
    having = references.images[0][references.labels != target][:50]
    found = AbsenceDeepLift(model, nontarget=target, reference=references_of(references)).explain(
        having, target=1 - target
    )
    assert float((found.attribution[:, key] < 0).double().mean()) >= 0.99
    assert float((found.absence.argmax(1) == key).double().mean()) >= 0.99
    assert f"'column {key}'" in describe_columns(found)[0]
    assert "holds logit 1 down" in describe_columns(found)[0]


def references_of(references: ReferenceSet) -> ReferenceSet:
    """The same rows, of which the nearest of the non-target's class are taken."""
    return ReferenceSet(references.images[0], references.labels, kind=references.kind)
