"""What influence is given: the order of samples, lengths, names, and the global random state."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Subset, TensorDataset, WeightedRandomSampler

from absence_plugins import Unit
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import Logit
from absence_plugins.methods.directions import DirectionPairs, influence, layer_features
from absence_plugins.methods.directions.inputs import batches_of, count_samples

QUICK: dict[str, Any] = {"n_permutations": 20}


def rows_of(model: nn.Module, layer: str, inputs: Any, channels: int) -> DirectionPairs:
    """Two directions drawn at random."""
    rows = torch.randn(2, channels, generator=torch.Generator().manual_seed(0))
    return DirectionPairs.from_directions(rows, layer_features(model, layer, inputs))


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 2, 2), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pairs(net: nn.Sequential, images: Tensor) -> DirectionPairs:
    return rows_of(net, "0", images, 4)


def test_groups_and_outputs_per_sample_need_the_order_of_the_data_set(
    net: nn.Sequential, images: Tensor, pairs: DirectionPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, groups = TensorDataset(images), [number // 4 for number in range(40)]
    expected = influence(pairs, net, "0", images, groups=groups, **QUICK)
    found = influence(pairs, net, "0", DataLoader(data, batch_size=16), groups=groups, **QUICK)
    assert torch.equal(found.p, expected.p)
    some = influence(pairs, net, "0", DataLoader(Subset(data, range(30)), batch_size=16), groups=groups[:30], **QUICK)
    whole = DataLoader(data, batch_size=16, drop_last=True)
    assert some.n_samples == 30
    assert influence(pairs, net, "0", whole, groups=groups[:32], **QUICK).n_samples == 32
    monkeypatch.setattr(sys.modules[influence.__module__], "_Run", lambda *_arguments: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"one per sample, \[32\]"):
        influence(pairs, net, "0", whole, groups=groups, **QUICK)
    own_order = list(range(39, -1, -1))
    loaders = (
        DataLoader(data, batch_size=16, shuffle=True),
        DataLoader(data, batch_size=16, sampler=own_order),
        DataLoader(data, batch_size=16, sampler=WeightedRandomSampler([1.0] * 40, 40)),
        DataLoader(data, batch_sampler=BatchSampler(own_order, 8, drop_last=False)),
        DataLoader(data, batch_sampler=[own_order]),
        DataLoader(data, batch_size=None, sampler=own_order),
    )
    for loader in loaders:
        with pytest.raises(ValueError, match=r"groups= need the samples in the order .*Subset"):
            influence(pairs, net, "0", loader, groups=groups, **QUICK)
        with pytest.raises(ValueError, match="outputs per sample need"):
            influence(pairs, net, "0", loader, outputs=Logit([0, 1] * 20), **QUICK)


def test_samples_are_counted_as_a_loader_yields_them(images: Tensor) -> None:
    data = TensorDataset(images)
    for loader in (
        DataLoader(data, batch_size=16, drop_last=True),
        DataLoader(data, batch_size=16),
        DataLoader(data, batch_size=16, sampler=range(30)),
        DataLoader(data, batch_size=16, sampler=range(30), drop_last=True),
    ):
        assert count_samples(loader) == sum(len(batch[0]) for batch in loader)
    assert count_samples(DataLoader(data, batch_size=None)) is None


def test_too_few_images_or_groups_for_any_significance_are_said(
    net: nn.Sequential, images: Tensor, pairs: DirectionPairs
) -> None:
    options: dict[str, Any] = {"n_permutations": 2000}
    with pytest.warns(AbsenceWarning, match=r"5 images are too few: the least .* is 0.062, .* pass at least 6 images"):
        found = influence(pairs, net, "0", images[:5], **options)
    assert float(found.q.min()) > 0.05
    with pytest.warns(AbsenceWarning, match=r"2 groups .* 0.5, .* at least 6 groups"):
        influence(pairs, net, "0", images, groups=[0, 1] * 20, **options)
    with pytest.warns(AbsenceWarning, match=r"7 images .* 0.094, .* at least 8 images"):  # 6 tests
        influence(pairs, net, "0", images[:7], correction="bonferroni", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        influence(pairs, net, "0", images[:6], **options)
        influence(pairs, net, "0", images[:8], correction="bonferroni", **options)
        influence(pairs, net, "0", images[:3], test="rcav", n_permutations=20)


def test_a_list_of_batches_is_rejected_with_a_remedy_that_works() -> None:
    net = nn.Linear(4, 2)
    lengths = [{"input_ids": torch.zeros(2, length, dtype=torch.long)} for length in (3, 5)]
    for batches in (lengths, lengths[:1], [torch.zeros(2, 4), torch.zeros(3, 4)]):
        with pytest.raises(ValueError, match=r"pass torch.utils.data.DataLoader\(dataset, batch_size=None\), else"):
            next(batches_of(batches, 4, net))
    found = list(batches_of(DataLoader([torch.zeros(2, 4), torch.zeros(3, 4)], batch_size=None), 4, net))  # type: ignore[arg-type]
    assert [len(x) for x in found] == [2, 3]


class Drawing(torch.utils.data.Dataset[Tensor]):
    """Augments at random, in torch and in Python."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Tensor:
        return self.images[number] + torch.randn(()) + random.random()


def test_loaders_and_data_sets_that_draw_leave_the_random_states(
    net: nn.Sequential, images: Tensor, pairs: DirectionPairs
) -> None:
    data = TensorDataset(images)
    for dataset in (DataLoader(data, batch_size=16), DataLoader(data, batch_size=16, shuffle=True), Drawing(images)):
        before = torch.get_rng_state(), random.getstate()
        influence(pairs, net, "0", dataset, **QUICK)
        DirectionPairs(2, recipe="paper", steps=2).fit_model(net, "0", dataset, use_head=False)
        stopped = batches_of(dataset, 16, net)
        next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
    torch.manual_seed(3)
    drawn = torch.cat([batch for batch in batches_of(Drawing(images * 0), 8, net)])[:, 0, 0, 0]  # type: ignore[misc]
    torch.manual_seed(3)
    assert len(drawn.unique()) == 40  # one batch does not draw again what another has drawn
    again = batches_of(DataLoader(data, batch_size=16, shuffle=True), 16, net)
    assert torch.equal(next(again), next(iter(DataLoader(data, batch_size=16, shuffle=True)))[0])  # type: ignore[arg-type]


class Texts(nn.Module):
    """Attention over tokens that are not padded."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.first, self.second = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        counted = attention_mask[..., None].float()
        x = self.first(self.words(input_ids))
        x = x + self.second((F.gelu(x) * counted).sum(1, keepdim=True).expand_as(x))
        return self.last((x * counted).sum(1) / counted.sum(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def texts() -> tuple[Texts, dict[str, Tensor], DirectionPairs]:
    torch.manual_seed(0)
    model, lengths = Texts().eval(), torch.arange(60) % 5 + 3
    batch = {
        "input_ids": torch.randint(0, 20, (60, 7)), "attention_mask": (torch.arange(7) < lengths[:, None]).long()
    }  # fmt: skip
    return model, batch, rows_of(model, "first", batch, 6)


def test_units_in_front_of_the_layer_of_padded_text_are_rejected(texts: Any) -> None:
    model, batch, pairs = texts
    for size in (1, 16):
        with pytest.raises(ValueError, match="'words' does not lie behind layer 'first'"):
            influence(pairs, model, "first", batch, outputs=Unit("words", 3), batch_size=size, **QUICK)
    assert influence(pairs, model, "first", batch, outputs=Unit("second", 3), **QUICK).effect.abs().max() > 0


def test_batches_of_several_lengths_are_those_padded_to_one_length(texts: Any) -> None:
    model, batch, pairs = texts
    lengths = batch["attention_mask"].sum(1)
    order = lengths.argsort(stable=True)
    whole = {name: value[order] for name, value in batch.items()}

    class Collated:
        """Every batch as long as its longest text: those of one length are not padded at all."""

        batch_size = 12

        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for first in range(0, 60, 12):
                some = {name: value[first : first + 12] for name, value in whole.items()}
                longest = int(some["attention_mask"].sum(1).max())
                yield {name: value[:, :longest] for name, value in some.items()}

    for outputs in (None, [Unit("second", 3), 1]):
        expected = influence(pairs, model, "first", whole, batch_size=12, outputs=outputs, **QUICK)
        found = influence(pairs, model, "first", Collated(), outputs=outputs, **QUICK)
        assert torch.allclose(found.effect, expected.effect, atol=1e-6)
        assert torch.equal(found.p, expected.p)


def test_images_of_several_sizes_are_rejected(net: nn.Sequential, images: Tensor, pairs: DirectionPairs) -> None:
    class Sizes:
        batch_size = 20

        def __iter__(self) -> Iterator[Tensor]:
            yield from (images[:20], images[20:, ..., :4])

    with pytest.raises(ValueError, match=r"3 x 3 positions for some images and 3 x 2 for image 20; .*resize"):
        influence(pairs, net, "0", Sizes(), **QUICK)


def test_a_kept_influence_of_tensors_by_name(texts: Any, tmp_path: Path) -> None:
    model, batch, pairs = texts
    expected = influence(pairs, model, "first", batch, **QUICK)
    for _ in range(2):
        found = influence(pairs, model, "first", batch, checkpoint=tmp_path, **QUICK)
        assert torch.equal(found.p, expected.p)
    other = Texts().eval()
    other.load_state_dict(model.state_dict())
    other.last.forward = lambda x: F.linear(x.relu(), other.last.weight, other.last.bias)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="the outputs of the model on the same input differ"):
        influence(pairs, other, "first", batch, checkpoint=tmp_path, **QUICK)
    changed = batch | {"input_ids": batch["input_ids"].flip(0)}
    with pytest.raises(ValueError, match="images differ"):
        influence(pairs, model, "first", changed, checkpoint=tmp_path, **QUICK)
