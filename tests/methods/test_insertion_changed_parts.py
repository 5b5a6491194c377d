"""The insertion test computes only what a patch changes: written a second time with whole images, the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from insertion_nets import SIZE, planted, scenes
from ranked import run_ranks
from torch import Tensor, nn

from absence_plugins.methods.insertion import InsertionResult, insertion_test, measure
from absence_plugins.methods.insertion.pasting import blended, feathered, place, place_elsewhere
from absence_plugins.methods.insertion.plan import draw_elsewhere, make_blocks, make_plan
from absence_plugins.methods.insertion.statistics import ARMS, unit_results
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches, halves
from absence_plugins.methods.patches.result import cut_windows

COUNT = 24


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, step: int = 1) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inner, outer, 3, step, 1), nn.Conv2d(outer, outer, 3, 1, 1)
        self.short, self.relu = nn.Conv2d(inner, outer, 1, step), nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv2(self.relu(self.conv1(x)))) + self.short(x))


class Excited(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Attentive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        found = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return found.transpose(1, 2).reshape(x.shape)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.mean()) > 0 else x


def stem() -> list[nn.Module]:
    return [nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]


# layers in front of the last one, whether only changed parts are computed (up to a gate or norm over positions)
NETS: dict[str, tuple[Any, bool]] = {
    "residual": (lambda: [*stem(), Block(8, 8), Block(8, 12, 2)], True),
    "depthwise": (lambda: [*stem(), nn.Conv2d(8, 8, 3, 1, 2, 2, 8), nn.Hardswish(), nn.Conv2d(8, 12, 1)], True),
    "reflecting": (lambda: [nn.Conv2d(1, 8, 5, 2, 2, padding_mode="reflect"), nn.ReLU(), nn.Conv2d(8, 12, 3)], True),
    "excited": (lambda: [*stem(), Excited(8), nn.Conv2d(8, 12, 3)], True),
    "group norm": (lambda: [*stem(), nn.GroupNorm(2, 8), nn.Conv2d(8, 12, 3)], True),
    "attention": (lambda: [*stem(), Attentive(), nn.Conv2d(8, 12, 3)], False),
    "a decision": (lambda: [*stem(), Deciding(), nn.Conv2d(8, 12, 3)], False),
    "a script": (lambda: [*stem(), torch.jit.script(nn.Sequential(nn.Conv2d(8, 12, 3), nn.ReLU()))], False),
}


def network(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*NETS[name][0](), nn.Conv2d(12, 5, 1))


def scanned(model: nn.Module, layer: str, images: Tensor) -> ExtremePatches:
    chosen = halves(images)[0]
    return find_extreme_patches(
        model, layer, images, k=4, size=SIZE, stride=8, mode="mask", images=chosen, progress=False
    )


def pasted(image: Tensor, patch: Tensor, y: int, x: int) -> Tensor:
    made = image.clone()
    made[:, y : y + SIZE, x : x + SIZE] = blended(image, patch, y, x, feathered(SIZE, SIZE // 8))
    return made


@torch.no_grad()
def second_writing(model: nn.Module, images: Tensor, patches: ExtremePatches, slots: int) -> tuple[Tensor, Tensor]:
    """Values and mirror, every image whole, one at a time, in float64."""
    model = model.double().eval()
    arms, rest, units = ARMS["controlled"], halves(images)[1], range(len(patches.units))
    value = lambda image, unit: model(image[None].double()).mean((2, 3))[0, unit]  # noqa: E731
    clean = torch.stack([torch.stack([value(images[number], unit) for number in rest]) for unit in units])
    where = torch.tensor(rest)[clean.argsort(dim=1, descending=True, stable=True)[:, :slots]]
    plan = make_plan(patches, range(len(units)), where, 0, "controlled")
    pixels = {arm: cut_windows(images, places, SIZE) for arm, places in plan.positions.items()}
    found = torch.empty(len(units), slots, len(arms), dtype=torch.float64)
    for row in units:
        for slot in range(slots):
            image = images[where[row, slot]]
            y, x = place(*image.shape[1:], SIZE, plan.draws[row, slot], False)
            for column, arm in enumerate(arms):
                patch = torch.zeros(1, SIZE, SIZE) if arm == "blank" else None
                patch = pixels[arm][row, plan.choice[arm][row, slot]] if arm in pixels else patch
                found[row, slot, column] = value(image if patch is None else pasted(image, patch, y, x), row)
    places = patches.lowest_apart.positions
    draws, mirror = draw_elsewhere(places, 0), torch.empty(*places.shape[:2], 2, dtype=torch.float64)
    for row, slot in [(row, slot) for row in units for slot in range(places.shape[1])]:
        number, y, x = places[row, slot].tolist()
        other = place_elsewhere(*images.shape[2:], SIZE, y, x, draws[row, slot])
        for column, spot in enumerate(((y, x), other)):
            mirror[row, slot, column] = value(pasted(images[number], torch.zeros(1, SIZE, SIZE), *spot), row)
    return found, mirror


@pytest.mark.parametrize("name", NETS)
def test_it_says_what_whole_images_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WORTH", 0)
    monkeypatch.setattr(measure, "LESS", 1.1)
    monkeypatch.setattr(measure, "CALL", 0)
    followed: list[Any] = []

    def watched(run: Any, changed: Any) -> Any:
        followed.append(real(run, changed))
        return followed[-1]

    real = measure.run_changed
    monkeypatch.setattr(measure, "run_changed", watched)
    images, model = scenes(COUNT, 0), network(name)
    layer = str(len(model) - 1)
    patches = scanned(model, layer, images)
    options: dict[str, Any] = {"images_per_unit": 6, "batch_size": 40, "progress": False}
    found = insertion_test(model, layer, images, patches, **options)
    assert (len(followed) > 3) == NETS[name][1]  # beside the trial
    values, mirror = second_writing(network(name), images, patches, 6)
    scale = float(values.abs().max())
    assert float((found.values.double() - values).abs().max()) < 1e-5 * scale
    sources = make_plan(patches, range(5), found.images, 0, "controlled").sources
    again = unit_results(patches.units, values, sources, mirror, "controlled", "t", 0.05)
    for one, other in zip(found, again, strict=True):
        assert one.flagged == other.flagged
        assert one.p == pytest.approx(other.p, rel=1e-3, abs=1e-9)
        assert one.mirror == pytest.approx(other.mirror, abs=1e-5 * scale)
    monkeypatch.setattr(measure, "WORTH", float("inf"))
    whole = insertion_test(model, layer, images, patches, **options)
    assert [one.flagged for one in whole] == [one.flagged for one in found]
    assert float((found.values - whole.values).abs().max()) < 1e-5 * scale


def test_a_wrong_trial_runs_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the windows of a network not give what whole images give, they are not used."""
    monkeypatch.setattr(measure, "WORTH", 0)
    monkeypatch.setattr(measure, "CALL", 0)
    real = measure.run_changed

    def wrong(run: Any, changed: Any) -> Any:
        found = real(run, changed)
        found.values = found.values * 1.001
        return found

    images, model = scenes(COUNT, 0), network("residual")
    patches = scanned(model, "5", images)
    options: dict[str, Any] = {"images_per_unit": 6, "progress": False}
    monkeypatch.setattr(measure, "run_changed", wrong)
    found = insertion_test(model, "5", images, patches, **options)
    monkeypatch.setattr(measure, "WORTH", float("inf"))
    assert torch.equal(found.values, insertion_test(model, "5", images, patches, **options).values)


def test_images_are_run_in_full_batches_and_each_clean_image_once() -> None:
    """One pass for the clean values, and 5 arms per cell; the mirror's 2 per patch: no image runs twice."""
    images, model = scenes(COUNT, 0), planted()
    patches = scanned(model, "2", images)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    insertion_test(model, "2", images, patches, images_per_unit=8, batch_size=10, progress=False)
    trial = 1 + 2 + 6
    assert sum(sizes) == trial + COUNT // 2 + 5 * 8 * 5 + 5 * 4 * 2
    assert max(sizes) == 10


def test_blocks_hold_whole_images_and_fill_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(9, (6, 7), generator=generator)
    for batch in (1, 10, 30, 1000):
        blocks = make_blocks(table, 5, batch)
        assert [number for block in blocks for number in block.images] == sorted(set(table.flatten().tolist()))
        cells = [cell for block in blocks for cells in block.cells for cell in cells]
        assert sorted(cells) == [(row, slot) for row in range(6) for slot in range(7)]
        for block in blocks:
            amount = 5 * len(block.index[0])
            assert amount <= batch or len(block.images) == 1
            assert all(
                table[cell] == number for number, own in zip(block.images, block.cells, strict=True) for cell in own
            )
    assert len(make_blocks(table, 5, 1000)) == 1


# -- several ranks ----------------------------------------------------------------------------------------------------


class Images(torch.utils.data.Dataset[Any]):
    """Ends a rank at image ``stop`` of those it reads."""

    identity = "scenes"

    def __init__(self, images: Tensor, stop: int = -1) -> None:
        self.images, self.stop, self.read = images, stop, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Tensor:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        if rank == 1 and self.read == self.stop:
            raise OSError("a rank ends here")
        self.read += 1
        return self.images[number]


def test_in_ranks(data: Images, patches: ExtremePatches, folder: Path | None) -> tuple[InsertionResult, int]:
    options: dict[str, Any] = {"images_per_unit": 8, "batch_size": 10, "save_every": 0, "progress": False}
    data.read = 0
    return insertion_test(planted(), "2", data, patches, checkpoint=folder, **options), data.read


test_in_ranks.__test__ = False  # type: ignore[attr-defined]


def same(one: InsertionResult, two: InsertionResult) -> bool:
    return (
        torch.equal(one.values, two.values) and torch.equal(one.images, two.images) and one.to_dict() == two.to_dict()
    )


@pytest.fixture(scope="module")
def shared() -> tuple[Tensor, ExtremePatches, InsertionResult, int]:
    images = scenes(COUNT, 0)
    patches = scanned(planted(), "2", images)
    return images, patches, *test_in_ranks(Images(images), patches, None)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("is_kept", [False, True])
def test_ranks_share_the_work_and_get_the_same_bits(world: int, is_kept: bool, shared: Any, tmp_path: Path) -> None:
    images, patches, expected, read = shared
    found = run_ranks(world, test_in_ranks, Images(images), patches, tmp_path if is_kept else None)
    for one in found:
        assert not isinstance(one, str), one
        assert same(one[0], expected)
        assert one[1] < read
    if is_kept:
        names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
        assert names == [f"insertion-rank-{rank:05d}.safetensors" for rank in range(world)]
        again, few = test_in_ranks(Images(images), patches, tmp_path)
        assert same(again, expected)
        assert few == 1


@pytest.mark.parametrize("stop", [3, 35])
@pytest.mark.parametrize("then", [1, 3])
def test_a_rank_that_ends_is_resumed_by_any_number(stop: int, then: int, shared: Any, tmp_path: Path) -> None:
    images, patches, expected, read = shared
    found = run_ranks(2, test_in_ranks, Images(images, stop), patches, tmp_path)
    assert "RankLost" in found[0]
    assert "a rank ends here" in found[1]
    for one in run_ranks(then, test_in_ranks, Images(images), patches, tmp_path):
        assert not isinstance(one, str), one
        assert same(one[0], expected)
        assert one[1] < read
