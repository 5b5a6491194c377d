"""The score of a map's claims on tables, texts, signals and volumes."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.core.columns import Column
from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.data.planted import PROBLEMS, natural
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.faithfulness.controls import measure_kind_salience

TABLE = TableKind((Column("age"), Column("color", ("red", "blue", "green")), Column("size"), Column("dose")))
TEXT = TextKind({0: "[PAD]", 1: "[CLS]"}, special=(0, 1))
QUIET = {"progress": False, "steps": 8, "draws": 4}


class Linear(nn.Module):
    """u = sum of weights times entries, as logits (u, 0)."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        value = (x * self.weights).flatten(1).sum(1)
        return torch.stack([value, torch.zeros_like(value)], 1)


class Bag(nn.Module):
    """The sum of a value per token."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(values[:, None])
        self.seen: list[Tensor] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.seen.append(ids.clone())
        value = self.embedding(ids)[..., 0].sum(1)
        return torch.stack([value, torch.zeros_like(value)], 1)


def test_columns_are_blanked_whole() -> None:
    """Closed form: two columns hold u down, by 3 and 1; the color by -2 in sum, though one entry of it raises u."""
    weights = torch.tensor([-3.0, 1.0, -3.0, 0.0, 2.0, -1.0], dtype=torch.float64)
    x = torch.tensor([[1.0, 1, 1, 0, 1, 1]], dtype=torch.float64).expand(4, 6).contiguous()
    found = absence_scores(Linear(weights), x, 0, x * weights, kind=TABLE, **QUIET)
    assert found.score == 1
    assert found.curves["map"].tolist() == [0, 3, 5, 6]  # age, color, dose; size raises u and is left
    assert found.thing == "column"
    per_column = torch.tensor([-3.0, -2, 2, -1], dtype=torch.float64).expand(4, 4)
    assert absence_scores(Linear(weights), x, 0, per_column, kind=TABLE, **QUIET).score == 1
    assert absence_scores(Linear(weights), x, 0, -per_column, kind=TABLE, **QUIET).score < 0
    for text in (found.sentence(), found.table(), repr(found)):
        assert "image" not in text
        assert "pixel" not in text
    assert "order of the columns" in found.table()


def test_a_table_of_numbers_is_scored_as_features_are() -> None:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    x, signed = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)
    kind = TableKind(tuple(Column(str(number)) for number in range(9)))
    ours = absence_scores(net, x, 1, signed, kind=kind, **QUIET)
    features = absence_scores(net, x, 1, signed, **QUIET)
    assert ours.score == features.score
    assert torch.equal(ours.areas["best"], features.areas["best"])


def test_the_missing_of_a_table_stands_below_the_reference() -> None:
    """Columns in which the reference is lower are never copied; u falls by 2 and 1 along the map."""
    weights = torch.tensor([-2.0, 0, 0, 0, -1.0, -9.0])
    x = torch.zeros(3, 6)
    reference = torch.tensor([[1.0, 0, 0, 0, 1, -1]]).expand(3, 6).contiguous()
    signed = (x - reference) * weights
    found = absence_scores(Linear(weights), x, 0, signed, view="reference", reference=reference, kind=TABLE, **QUIET)
    assert found.score == 1
    assert found.curves["map"].tolist() == [0, 2, 3]


def test_tokens_are_replaced_as_tokens_and_special_ones_never() -> None:
    values = torch.tensor([0.0, 0, -2, -1, 3, 0, 9])
    net = Bag(values)
    x = torch.tensor([[1, 2, 3, 4, 0, 0], [1, 3, 5, 2, 4, 0]])
    signed = values[x]
    with pytest.raises(ValueError, match="pass empty=, the id of the mask"):
        absence_scores(net, x, 0, signed, kind=TEXT, **QUIET)
    net.seen.clear()
    found = absence_scores(net, x, 0, signed, kind=TEXT, empty=5, **QUIET)
    assert found.score == 1
    assert found.curves["map"].tolist()[-1] == 3
    read = torch.cat(net.seen)
    assert read.dtype == torch.int64
    assert (read[:, 0] == 1).all()
    assert set(read[:, 5].tolist()) == {0}
    # a map of the embedding, and one of the wrong length
    spread = torch.stack([signed + 1, torch.full_like(signed, -1)], -1)
    assert absence_scores(net, x, 0, spread, kind=TEXT, empty=5, **QUIET).score == 1
    with pytest.raises(ValueError, match="attribution has shape"):
        absence_scores(net, x, 0, signed[:, :3], kind=TEXT, empty=5, **QUIET)


def test_missing_tokens_are_those_of_the_reference() -> None:
    values = torch.tensor([0.0, 0, -2, -1, 3, 0, 9])
    x, reference = torch.tensor([[1, 5, 5, 4, 0]]), torch.tensor([[1, 2, 3, 4, 0]])
    signed = values[x] - values[reference]
    net = Bag(values)
    found = absence_scores(net, x, 0, signed, view="reference", reference=reference, kind=TEXT, **QUIET)
    assert (found.score, found.curves["map"].tolist()) == (1, [0, 2, 3])
    pool = ReferenceSet(reference, torch.tensor([1]), k=1, contrast=1, kind=TEXT)
    by_set = absence_scores(net, x, 0, signed, view="reference", reference=pool, **QUIET)
    assert (by_set.score, by_set.thing) == (1, "token")


@pytest.mark.parametrize("view", ["nontarget", "reference"])
def test_a_signal_is_scored_as_an_image_of_one_row(view: str) -> None:
    """The same network on [N, 1, 64] and on [N, 1, 1, 64]: score, control and areas are the same."""
    planted, form = PROBLEMS["signal_missing"](0), natural("signal_missing")
    rows = (form.labels == (form.presence_unit if view == "nontarget" else form.absence_unit)).nonzero().flatten()[:4]
    noise = torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(1))
    reference = None if view == "nontarget" else form.twins[rows]
    image = None if reference is None else reference[:, :, None]
    options = {"view": view, "cell": 2, **QUIET}
    ours = absence_scores(form.model, form.inputs[rows], 1, noise, reference=reference, kind=form.kind, **options)
    images = absence_scores(planted.model, planted.images[rows], 1, noise[:, :, None], reference=image, **options)
    # blocks of an image are two pixels high as well, of which there is one
    for name in ("score", "control_score", "control"):  # the placebo is shifted by other random numbers
        assert getattr(ours, name) == pytest.approx(getattr(images, name), abs=1e-6), name
    assert torch.equal(ours.areas["best"], images.areas["best"])
    assert ours.thing == "span"


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [
        (SignalKind(), (2, 3, 10), 4),
        (SignalKind(), (2, 10), 3),
        (VolumeKind(), (2, 2, 3, 5, 4), 2),
        (VolumeKind(), (2, 3, 5, 4), 2),
        (TextKind({}), (2, 7), 3),
    ],
)
def test_cells_of_a_kind_by_loops(kind: Kind, shape: tuple[int, ...], size: int) -> None:
    """Second writing: which entries a cell has, sums over them, and means over neighbors."""
    generator = torch.Generator().manual_seed(0)
    x = (
        torch.randint(9, shape, generator=generator)
        if isinstance(kind, TextKind)
        else torch.rand(shape, generator=generator)
    )
    cells = Cells.of(x, size, kind)
    assert cells.grid == tuple(-(-side // size) for side in cells.shape)
    signed = torch.randn(shape, generator=generator, dtype=torch.float64)
    things = kind.things(signed)
    places = list(product(*(range(side) for side in cells.grid)))
    for number, place in enumerate(places):
        where = (slice(None), *(slice(at * size, (at + 1) * size) for at in place))
        by_hand = things[where].flatten(1).sum(1)
        torch.testing.assert_close(cells.total_allowed(signed, torch.ones(1, dtype=torch.bool))[:, number], by_hand)
        chosen = torch.zeros(1, len(places), dtype=torch.bool)
        chosen[0, number] = True
        mask = torch.zeros(1, *cells.shape, dtype=torch.bool)
        mask[where] = True
        assert torch.equal(
            cells.pixels(chosen).expand(1, *shape[1:]).reshape(1, *shape[1:]),
            mask.reshape(1, *[1] * (len(shape) - 1 - len(cells.shape)), *cells.shape).expand(1, *shape[1:]),
        )
        near = [
            other for other, at in enumerate(places) if all(abs(a - b) <= 1 for a, b in zip(at, place, strict=True))
        ]
        assert cells.windows(torch.tensor([number]), 1)[0].nonzero().flatten().tolist() == near
        values = torch.randn(1, len(places), generator=generator, dtype=torch.float64)
        assert float(cells.around(values, 1)[0, number]) == pytest.approx(float(values[0, near].mean()))


def test_volumes_lose_blocks() -> None:
    """u is minus the mean of one block of 2 x 2 x 2: the map that names it is the best order."""
    weights = torch.zeros(1, 8, 8, 8)
    weights[0, 2:4, 4:6, 6:8] = -1.0
    x = torch.rand(3, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    found = absence_scores(Linear(weights), x, 0, x * weights, kind=VolumeKind(), cell=2, **QUIET)
    assert (found.score, found.thing, found.cell) == (1, "region", 2)
    without = absence_scores(Linear(weights[0]), x[:, 0], 0, (x * weights)[:, 0], kind=VolumeKind(), cell=2, **QUIET)
    assert without.score == 1


@pytest.mark.parametrize(
    ("kind", "x"),
    [
        (TABLE, torch.rand(3, 6)),
        (TEXT, torch.randint(9, (3, 7))),
        (SignalKind(), torch.rand(3, 12)),
        (SignalKind(), torch.rand(3, 2, 12)),
        (VolumeKind(), torch.rand(3, 2, 4, 5, 6)),
        (VolumeKind(), torch.rand(3, 4, 5, 6)),
    ],
)
def test_controls_that_never_see_the_network(kind: Kind, x: Tensor) -> None:
    shape = tuple(kind.things(torch.zeros_like(x)).shape)
    found = measure_kind_salience(kind, x, torch.zeros_like(x))
    assert len(found) >= 2
    for name, values in found.items():
        assert tuple(values.shape) == shape, name
        assert torch.isfinite(values).all()


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.rand(3, 5), {"kind": TABLE}, "take 6 entries"),
        (torch.rand(3, 6), {"kind": TABLE, "cell": 2}, "cell=2 does not fit a table"),
        (torch.rand(3, 6), {"kind": "table"}, "kind must be a TableKind"),
        (torch.rand(0, 6), {"kind": TABLE}, "at least one table"),
        (torch.rand(3, 4, 5), {}, "or pass kind="),
        (torch.zeros(3, 6), {"kind": TABLE}, "column that differs from blank"),
    ],
)
def test_bad_inputs_are_named(x: Tensor, options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        absence_scores(Linear(torch.ones(x.shape[1:])), x, 0, x, **{**QUIET, **options})  # type: ignore[arg-type]
