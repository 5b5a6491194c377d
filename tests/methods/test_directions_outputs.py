"""Outputs of every kind in influence, per sample too; what cannot be read is rejected before the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Direction, Layer, Unit
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import Logit, Margin, Others
from absence_plugins.methods.directions import DirectionPairs, head_of, influence, layer_features
from absence_plugins.methods.directions.effects import choose_places, draw_numbers
from absence_plugins.methods.directions.inputs import batches_of, vary
from absence_plugins.methods.directions.significance import flip_signs

pytestmark = pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")


class Net(nn.Module):
    """Maps [B, 4, 3, 3] -> maps [B, 5, 3, 3] -> 3 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.later, self.last = nn.Conv2d(1, 4, 2, 2), nn.Conv2d(4, 5, 1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.later(self.front(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pairs(net: Net, images: Tensor) -> DirectionPairs:
    rows = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    return DirectionPairs.from_directions(rows, layer_features(net, "front", images))


QUICK: dict[str, Any] = {"n_permutations": 20}


def test_a_layer_stands_for_all_its_units(net: Net, images: Tensor, pairs: DirectionPairs) -> None:
    units = [Unit("later", k) for k in range(5)]
    one_by_one = influence(pairs, net, "front", images, outputs=[*units, 1], **QUICK)
    found = influence(pairs, net, "front", images, outputs=[Layer("later"), 1], **QUICK)
    assert found.outputs == one_by_one.outputs == (*(f"later:{k}" for k in range(5)), "class 1")
    assert torch.allclose(found.effect, one_by_one.effect, atol=1e-6)
    alone = influence(pairs, net, "front", images, outputs=Layer("later", reduce="max"), **QUICK)
    assert alone.outputs == tuple(f"later:{k} (max)" for k in range(5))
    assert not torch.allclose(alone.effect, one_by_one.effect[:, :5])


def test_every_kind_against_its_own_value(net: Net, images: Tensor, pairs: DirectionPairs) -> None:
    """The effect of a kind is the mean change of its value in images of features, moved one by one here."""
    vector = torch.randn(5, generator=torch.Generator().manual_seed(2))
    outputs = [
        *(Margin(0, 2), Others(1), Logit(0, sign=-1), Unit("later", 3, position=(1, 2)), Unit("", 2)),
        *(Unit("later", 0, side="input"), Direction("later", vector, 0.5, "mine"), pairs.units("front")[0]),
    ]
    found = influence(pairs, net, "front", images, outputs=outputs, **QUICK)
    assert found.outputs == (
        *("logit 0 minus logit 2", "the mean of all logits but 1", "minus logit 0", "unit 3 of later at (1, 2)"),
        *("output 2", "later:0 (input)", "mine", "direction 0 of front"),
    )
    classes = influence(pairs, net, "front", images, **QUICK).effect
    units = influence(pairs, net, "front", images, outputs=[Layer("later"), Layer("front")], **QUICK).effect
    assert torch.allclose(found.effect[:, 0], classes[:, 0] - classes[:, 2], atol=1e-5)
    assert torch.allclose(found.effect[:, 1], (classes[:, 0] + classes[:, 2]) / 2, atol=1e-5)
    assert torch.allclose(found.effect[:, 2], -classes[:, 0], atol=1e-6)
    assert torch.allclose(found.effect[:, 4], classes[:, 2], atol=1e-6)
    assert torch.allclose(found.effect[:, 5], units[:, 5], atol=1e-6)
    assert torch.allclose(found.effect[:, 6], units[:, :5] @ vector.double(), atol=1e-4)
    assert torch.allclose(found.effect[:, 7], units[:, 5:] @ pairs.decoding[:, 0].double(), atol=1e-4)


def test_outputs_of_each_sample(net: Net, images: Tensor, pairs: DirectionPairs) -> None:
    index = [k % 3 for k in range(len(images))]
    classes = [influence(pairs, net, "front", images[k::3], outputs=[k], seed=0, **QUICK) for k in range(3)]
    assert all(one.n_samples in (13, 14) for one in classes)
    found = influence(pairs, net, "front", images, outputs=[Logit(index)], batch_size=7, **QUICK)
    whole = influence(pairs, net, "front", images, outputs=[Logit(index)], **QUICK)
    assert torch.allclose(found.effect, whole.effect, atol=1e-6)
    same = influence(pairs, net, "front", images, outputs=[Logit([2] * len(images)), 2], **QUICK)
    assert torch.equal(same.effect[:, 0], same.effect[:, 1])


def test_a_class_of_one_output_moves_in_rcav(net: Net, images: Tensor, pairs: DirectionPairs) -> None:
    """A probability is among all classes, whichever are asked for; a single logit rises with its own."""
    every = influence(pairs, net, "front", images, test="rcav", **QUICK)
    one = influence(pairs, net, "front", images, test="rcav", outputs=[1], **QUICK)
    assert torch.equal(one.effect[:, 0], every.effect[:, 1])
    assert bool(one.effect.any())
    single = nn.Sequential(net.front, nn.Flatten(), nn.Linear(36, 1))
    assert bool(influence(pairs, single, "0", images, test="rcav", **QUICK).effect.any())
    units = influence(pairs, net, "front", images, test="rcav", outputs=[Unit("later", 0)], **QUICK)
    assert bool(units.effect.any())


@pytest.mark.parametrize("test", ["step", "rcav"])
def test_the_size_of_a_batch_does_not_matter(net: Net, images: Tensor, pairs: DirectionPairs, test: Any) -> None:
    found = [influence(pairs, net, "front", images, test=test, batch_size=size, **QUICK) for size in (40, 7)]
    assert torch.allclose(found[0].effect, found[1].effect, atol=1e-6)


def test_a_kept_influence_belongs_to_its_work(
    net: Net, images: Tensor, pairs: DirectionPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is enough; effects are not computed twice, and another question, model or data is told."""
    first = influence(pairs, net, "front", images, outputs=[0, 1], checkpoint=tmp_path, **QUICK)
    with monkeypatch.context() as patched:
        module = sys.modules[influence.__module__]
        for name in ("step_effects", "count_places"):
            patched.setattr(module, name, lambda *_arguments, **_options: pytest.fail("computed twice"))
        again = influence(pairs, net, "front", images, outputs=[0, 1], checkpoint=tmp_path, batch_size=9, **QUICK)
    assert torch.equal(again.effect, first.effect)
    assert torch.equal(again.p, first.p)
    for change, words in (
        ({"outputs": [0, 2]}, "explained is"),
        ({"outputs": [0, Direction("later", torch.ones(5), name="class 1")]}, "explained is"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"step": 2.0}, "step is"),
        ({"test": "rcav"}, "test is"),
    ):
        with pytest.raises(ValueError, match=words):
            influence(pairs, net, "front", images, **({"outputs": [0, 1]} | QUICK | change), checkpoint=tmp_path)
    other = torch.cat([images[:-1], images[:1]])
    with pytest.raises(ValueError, match="image 39 is another one"):
        influence(pairs, net, "front", other, outputs=[0, 1], checkpoint=tmp_path, **QUICK)


@pytest.mark.parametrize("test", ["step", "rcav"])
def test_a_kill_anywhere_resumes_to_the_same_bits(
    net: Net, images: Tensor, pairs: DirectionPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: Any
) -> None:
    options = {"test": test, "batch_size": 16, **QUICK}
    expected = influence(pairs, net, "front", images, **options)
    module = sys.modules[influence.__module__]
    name = "step_effects" if test == "step" else "rcav_scores"
    real = getattr(module, name)
    for stop in (1, 2, 3):
        calls: list[int] = []

        def stops(*arguments: Any, stop: int = stop, calls: list[int] = calls) -> Any:
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(module, name, stops)
        with pytest.raises(KeyboardInterrupt):
            influence(pairs, net, "front", images, checkpoint=tmp_path / str(stop), **options)
        monkeypatch.setattr(module, name, real)
        found = influence(pairs, net, "front", images, checkpoint=tmp_path / str(stop), **options)
        assert torch.equal(found.effect, expected.effect)
        assert torch.equal(found.p, expected.p)


def test_what_cannot_be_read_is_rejected_before_the_work(
    net: Net, images: Tensor, pairs: DirectionPairs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = sys.modules[influence.__module__]
    monkeypatch.setattr(module, "step_effects", lambda *_arguments: pytest.fail("work was done"))
    for outputs, words in (
        ([3], "output"),
        ([Unit("later", 5)], "there is no unit 5"),
        ([Unit("nowhere", 0)], "no layer 'nowhere'"),
        ([Direction("later", torch.ones(4))], "4 weights"),
    ):
        with pytest.raises(ValueError, match=words):
            influence(pairs, net, "front", images, outputs=outputs, **QUICK)
    with pytest.raises(ValueError, match="n_permutations=20 can reject nothing"):
        influence(pairs, net, "front", images, correction="bonferroni", **QUICK)
    with pytest.raises(TypeError, match="iterator, which can be read only once"):
        influence(pairs, net, "front", iter([images]), **QUICK)
    with pytest.raises(TypeError, match="class number"):
        influence(pairs, net, "front", images, outputs=["later:1"], **QUICK)  # type: ignore[list-item]
    shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=8, shuffle=True)
    with pytest.raises(ValueError, match="the loader shuffles"):
        influence(pairs, net, "front", shuffled, checkpoint=tmp_path, **QUICK)


def test_values_that_are_no_numbers(net: Net, images: Tensor, pairs: DirectionPairs) -> None:
    broken = images.clone()
    broken[30] = torch.nan
    with pytest.raises(ValueError, match="class 0 of image 30 is NaN or infinite"):
        influence(pairs, net, "front", broken, **QUICK)


def test_a_lot_of_effects_are_announced(net: Net, images: Tensor, pairs: DirectionPairs, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.modules[influence.__module__], "MEMORY", 1e-9)
    with pytest.warns(AbsenceWarning, match=r"the effects of 40 images on 6 pairs .* outputs= of the classes"):
        influence(pairs, net, "front", images, **QUICK)


def test_positions_are_drawn_by_their_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.0001, 3.0, 1.0], dtype=torch.float64)
    allowed = torch.tensor([[True, True, True]]).expand(4000, 3)
    rows, chosen = choose_places(allowed, weights, draw_numbers(generator, 4000, 1)[:, 0, 0])
    assert len(rows) == 4000
    assert float((chosen == 1).double().mean()) == pytest.approx(0.75, abs=0.02)
    edge = torch.tensor([1 - 2**-53, 0.0], dtype=torch.float64)
    rows, chosen = choose_places(torch.tensor([[True, False], [False, True]]), weights[:2], edge)
    assert (rows.tolist(), chosen.tolist()) == ([0, 1], [0, 1])
    one = draw_numbers(torch.Generator().manual_seed(3), 6, 4)
    generator = torch.Generator().manual_seed(3)
    parts = [draw_numbers(generator, count, 4) for count in (1, 2, 3)]
    assert torch.equal(torch.cat(parts), one)


def test_sign_flips_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from absence_plugins.methods.directions import significance

    each = torch.randn(30, 3, 5, generator=torch.Generator().manual_seed(0))
    whole = flip_signs(each, 300, torch.Generator().manual_seed(1))
    monkeypatch.setattr(significance, "COLUMNS", 4)
    parts = flip_signs(each, 300, torch.Generator().manual_seed(1))
    assert torch.allclose(parts[0], whole[0])
    assert torch.equal(parts[1], whole[1])


def test_sign_flips_do_not_depend_on_the_units() -> None:
    each = torch.rand(5, 1, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    expected = flip_signs(each, 2000, torch.Generator().manual_seed(1))[1]
    assert float(expected.min()) > 0.04  # the least possible is 2 / 2^5
    for unit in (1e8, 1e-13, 1e-40):
        found = flip_signs(each * unit, 2000, torch.Generator().manual_seed(1))[1]
        assert torch.equal(found, expected)


def test_images_of_a_group_count_once(net: Net, images: Tensor, pairs: DirectionPairs) -> None:
    """Every image ten times over: as many groups as images give their p again; without groups p falls."""
    ten, groups = images.repeat(10, 1, 1, 1), torch.arange(40).repeat(10)
    each = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    alone = flip_signs(each, 500, torch.Generator().manual_seed(1))
    grouped = flip_signs(each.repeat(10, 1, 1), 500, torch.Generator().manual_seed(1), groups=groups)
    assert torch.allclose(grouped[0], alone[0])
    assert torch.equal(grouped[1], alone[1])
    naive = flip_signs(each.repeat(10, 1, 1), 500, torch.Generator().manual_seed(1))
    assert float(naive[1].mean()) < float(alone[1].mean()) / 2
    found = influence(pairs, net, "front", ten, groups=[f"patient {k}" for k in groups.tolist()], **QUICK)
    assert bool((found.p >= influence(pairs, net, "front", ten, **QUICK).p - 1e-12).all())
    for bad, words in ((groups[:5], "one per sample"), ([0] * 400, "one group")):
        with pytest.raises(ValueError, match=words):
            influence(pairs, net, "front", ten, groups=bad, **QUICK)
    with pytest.raises(ValueError, match="groups= needs test='step'"):
        influence(pairs, net, "front", ten, groups=groups, test="rcav", **QUICK)


class Named(nn.Module):
    """Takes tensors by name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        assert labels is None
        return {"logits": self.net(pixel_values)}


def test_inputs_by_name(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Named().eval()
    labels = torch.zeros(40)

    class Items(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            return {"pixel_values": images[index], "labels": labels[index], "name": "a"}

    pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, "net.front", images)
    expected = influence(pairs, model, "net.front", images, **QUICK)
    for dataset in ({"pixel_values": images}, Items()):
        named = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, "net.front", dataset)
        assert torch.equal(named.decoding, pairs.decoding)
        assert torch.equal(influence(pairs, model, "net.front", dataset, **QUICK).effect, expected.effect)
    pictures = [next(batches_of([{"image": image, "label": 1} for image in images], 4, model.net))]
    assert torch.equal(pictures[0], images[:4])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="image tensors"):
        list(batches_of([("a",)], 4, model))


def test_other_inputs_keep_their_form() -> None:
    ids = {"input_ids": torch.tensor([[5, 2, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    other = vary(ids)
    assert not isinstance(other, Tensor)
    assert other["input_ids"].tolist() == [[1, 3, 0]]
    assert other["attention_mask"].tolist() == [[1, 1, 0]]
    assert head_of(nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(9, 2)), "0", ids["input_ids"])
