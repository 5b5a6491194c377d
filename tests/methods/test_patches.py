"""The patch search against a brute-force one, its edge cases, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches, halves
from absence_plugins.methods.patches import scan as scan_module

QUIET: dict[str, Any] = {"progress": False}


def net(channels: int = 3, units: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, units, 2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(999, 2),
    )  # fmt: skip  (the last layer fits no input: nothing may run behind the layer that is asked for)


def photos(count: int = 7, channels: int = 3, height: int = 12, width: int = 15) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def brute_force(
    body: Any, images: Any, k: int, size: int, stride: int, mode: str = "crop", largest: bool = True, reduce: Any = None
) -> tuple[Tensor, Tensor]:
    """Every window one by one, then one full sort per unit."""
    rows = []
    for number, image in enumerate(images):
        for y in range(0, image.shape[1] - size + 1, stride):
            for x in range(0, image.shape[2] - size + 1, stride):
                window = image[:, y : y + size, x : x + size]
                if mode == "mask":
                    full = torch.zeros_like(image)
                    full[:, y : y + size, x : x + size] = window
                    window = full
                with torch.no_grad():
                    value = body(window[None])[0]
                value = value.flatten(1).mean(1) if reduce is None else reduce(value)
                rows.append(((number, y, x), value))
    scores, positions = [], []
    for unit in range(len(rows[0][1])):
        order = sorted(rows, key=lambda row: ((-1 if largest else 1) * float(row[1][unit]), row[0]))[:k]
        scores.append([float(row[1][unit]) for row in order])
        positions.append([row[0] for row in order])
    return torch.tensor(scores), torch.tensor(positions)


def agree(found: ExtremePatches, body: Any, images: Any, k: int, size: int, stride: int, **options: Any) -> None:
    for side, largest in ((found.highest, True), (found.lowest, False)):
        scores, positions = brute_force(body, images, k, size, stride, largest=largest, **options)
        assert torch.allclose(side.scores, scores, atol=1e-6)
        assert torch.equal(side.positions, positions)


@pytest.mark.parametrize("mode", ["crop", "mask"])
@pytest.mark.parametrize(
    ("channels", "size", "stride", "batch_size"), [(3, 5, 2, 128), (1, 4, 3, 7), (3, 6, 5, 1), (1, 12, 1, 3)]
)
def test_equal_to_brute_force(channels: int, size: int, stride: int, batch_size: int, mode: str) -> None:
    """Grayscale, non-square images, a stride that does not divide, windows as high as the image."""
    model, images = net(channels), photos(channels=channels)
    found = find_extreme_patches(
        model, "2", images, k=6, size=size, stride=stride, mode=mode, batch_size=batch_size, **QUIET
    )
    agree(found, model[:3], images, 6, size, stride, mode=mode)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000))
def test_ties_go_to_the_lower_position(k: int, size: int, stride: int, batch_size: int, seed: int) -> None:
    """Integer pixels and a summing unit: scores are exact, and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-1, 2, (4, 1, 7, 8), generator=generator).float()
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    model[0].weight.data = torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1)

    def total(value: Tensor) -> Tensor:
        return value.flatten(1).amax(1)

    found = find_extreme_patches(
        model, "0", images, k=k, size=size, stride=stride, batch_size=batch_size, reduce="max", **QUIET
    )
    for side, largest in ((found.highest, True), (found.lowest, False)):
        scores, positions = brute_force(model, images, k, size, stride, largest=largest, reduce=total)
        assert torch.equal(side.scores, scores)
        assert torch.equal(side.positions, positions)


def test_more_patches_than_an_image_or_the_data_set_has() -> None:
    model, images = net(), photos(3)
    found = find_extreme_patches(model, "2", images, k=1000, size=10, stride=2, **QUIET)
    assert found.highest.scores.shape == (5, 3 * 2 * 3)
    agree(found, model[:3], images, 1000, 10, 2)


def test_the_best_patch_of_every_image() -> None:
    """Of every image the first of its best windows; and of these the k best."""
    images = torch.randint(-1, 2, (9, 1, 7, 8), generator=torch.Generator().manual_seed(0)).float()
    model = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False))
    model[0].weight.data = torch.tensor([[[1.0, 1.0], [-1.0, 2.0]], [[0.0, 1.0], [1.0, -3.0]]])[:, None]
    found = find_extreme_patches(model, "0", images, k=4, size=3, stride=1, batch_size=70, reduce="max", **QUIET)
    for side, largest in ((found.highest_apart, True), (found.lowest_apart, False)):
        for unit in range(2):
            best = []
            for number, image in enumerate(images):
                scores, places = brute_force(
                    model, image[None], 1, 3, 1, largest=largest, reduce=lambda v: v.flatten(1).amax(1)
                )
                best.append((float(scores[unit, 0]) * (-1 if largest else 1), (number, *places[unit, 0, 1:].tolist())))
            expected = sorted(best)[:4]
            assert side.scores[unit].tolist() == [value * (-1 if largest else 1) for value, _ in expected]
            assert [tuple(place) for place in side.positions[unit].tolist()] == [place for _, place in expected]


def test_units_and_images_may_be_chosen() -> None:
    model, images = net(), photos()
    found = find_extreme_patches(model, "2", images, k=3, size=5, stride=2, units=[4, 1], images=[5, 2], **QUIET)
    every = find_extreme_patches(model, "2", images[[2, 5]], k=3, size=5, stride=2, **QUIET)
    assert torch.equal(found.lowest.scores, every.lowest.scores[[4, 1]])
    assert torch.equal(found.lowest.positions[..., 0], torch.tensor([2, 5])[every.lowest.positions[[4, 1], :, 0]])
    assert (found.units, found.images, found.row(1)) == ((4, 1), (2, 5), 1)
    with pytest.raises(ValueError, match="unit 3 was not scanned; there are: 4, 1"):
        found.row(3)


def test_images_of_different_sizes() -> None:
    model = net()
    images = [photos(1, height=6 + number, width=9)[0] for number in range(4)]
    found = find_extreme_patches(model, "2", images, k=4, size=5, stride=1, **QUIET)
    agree(found, model[:3], images, 4, 5, 1)
    with pytest.raises(ValueError, match="different shapes"):
        find_extreme_patches(model, "2", images, k=4, size=5, stride=1, mode="mask", **QUIET)


class Tokens(nn.Module):
    """[B, 16, 6] tokens of 3x3 patches of a 12x12 image; any other size fails, as in a ViT."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block = nn.Linear(27, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.reshape(len(x), 3, 4, 3, 4, 3).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 16, 27)
        return self.block(torch.tanh(self.embed(patches))).mean(1)


@pytest.mark.parametrize(
    ("reduce", "read"),
    [
        ("mean", lambda v: v.mean(0)),
        ("max", lambda v: v.amax(0)),
        ("min", lambda v: v.amin(0)),
        ("cls", lambda v: v[0]),
    ],
)
def test_tokens_with_masked_windows(reduce: str, read: Any) -> None:
    model, images = Tokens(), photos(4, width=12)

    def body(x: Tensor) -> Tensor:
        patches = x.reshape(len(x), 3, 4, 3, 4, 3).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 16, 27)
        return model.block(torch.tanh(model.embed(patches)))

    found = find_extreme_patches(model, "block", images, k=5, size=5, stride=3, mode="mask", reduce=reduce, **QUIET)
    agree(found, body, images, 5, 5, 3, mode="mask", reduce=read)


@pytest.mark.parametrize(
    ("reduce", "read"), [("max", lambda v: v.flatten(1).amax(1)), ("min", lambda v: v.flatten(1).amin(1))]
)
def test_other_reductions_of_maps(reduce: str, read: Any) -> None:
    model, images = net(), photos(3)
    found = find_extreme_patches(model, "2", images, k=3, size=5, stride=2, reduce=reduce, **QUIET)
    agree(found, model[:3], images, 3, 5, 2, reduce=read)


def test_items_with_labels_and_outputs_without_positions() -> None:
    model, digits = digits_cnn(), load_digits()
    data = torch.utils.data.TensorDataset(digits.test_images[:5], digits.test_labels[:5])
    found = find_extreme_patches(model, "", data, k=2, size=20, stride=6, mode="mask", **QUIET)
    agree(found, model, digits.test_images[:5], 2, 20, 6, mode="mask", reduce=lambda value: value)


def test_a_vision_transformer() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=5).eval()
    layer = "encoder.layers.encoder_layer_1.mlp.3"
    images, seen = photos(3, height=32, width=32), []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: seen.append(output.clone())
    )

    def body(x: Tensor) -> Tensor:
        model(x)
        return seen.pop()

    scores, positions = brute_force(body, images, 4, 16, 8, "mask", False, lambda value: value.amin(0))
    handle.remove()
    found = find_extreme_patches(model, layer, images, k=4, size=16, stride=8, mode="mask", reduce="min", **QUIET)
    assert torch.allclose(found.lowest.scores, scores, atol=1e-5)
    assert torch.equal(found.lowest.positions, positions)


# -- nothing more than asked for --------------------------------------------------------------------------------------


def test_the_forward_ends_at_the_layer_and_nothing_is_left_behind() -> None:
    model = net().train()
    calls: list[int] = []
    model[4].register_forward_hook(lambda *_: calls.append(1))
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    find_extreme_patches(model, "2", photos(), k=2, size=5, stride=2, **QUIET)
    assert len(calls) <= 1  # the first forward finds out how often the layer runs
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    assert torch.equal(before[0], torch.get_rng_state())
    assert all(torch.equal(value, before[1][name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))


def test_a_layer_that_runs_twice_is_read_at_its_last_run() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.relu(self.conv(x)))

    model, images = Twice(), photos(3)
    found = find_extreme_patches(model, "conv", images, k=3, size=5, stride=3, **QUIET)
    agree(found, model, images, 3, 5, 3)


def test_a_model_that_needs_contiguous_values() -> None:
    """On the CPU windows go in with channels last; where a model cannot take that, they do not."""

    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.dense = nn.Conv2d(3, 4, 2), nn.Linear(4 * 16, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.dense(self.conv(x).view(len(x), -1))

    model, images = Viewing(), photos(3)
    found = find_extreme_patches(model, "dense", images, k=3, size=5, stride=3, **QUIET)
    agree(found, model, images, 3, 5, 3, reduce=lambda value: value)


class Failing(torch.utils.data.Dataset[Any]):
    """Reads images one by one; number ``bad`` raises."""

    def __init__(self, images: Tensor, bad: int = -1) -> None:
        self.images, self.bad, self.read = images, bad, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        if index == self.bad:
            raise OSError("unreadable")
        self.read += 1
        return self.images[index]


def test_hooks_are_gone_after_an_error() -> None:
    model = net()
    with pytest.raises(OSError, match="unreadable"):
        find_extreme_patches(model, "2", Failing(photos(), 4), k=2, size=5, stride=2, **QUIET)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_scan_holds_no_pixels_and_reads_every_image_once() -> None:
    data = Failing(photos(9))
    found = find_extreme_patches(net(), "2", data, k=3, size=5, stride=2, batch_size=30, **QUIET)
    assert data.read == 9 + 1  # the first one also tells how large images are
    sides = (found.highest, found.lowest, found.highest_apart, found.lowest_apart, found.sample)
    tensors = [part for side in sides for part in (side.scores, side.positions)]
    assert sum(tensor.numel() for tensor in tensors) < 5 * 4 * (4 * 3 + scan_module.SAMPLED)
    high, low = found.cut()
    assert high.shape == low.shape == (5, 3, 3, 5, 5)
    number, y, x = found.lowest.positions[2, 1].tolist()
    assert torch.equal(low[2, 1], data.images[number, :, y : y + 5, x : x + 5])


def test_the_sample_is_random_windows_with_their_values() -> None:
    model, images = net(), photos()
    options: dict[str, Any] = {"k": 3, "size": 5, "stride": 2, **QUIET}
    found = find_extreme_patches(model, "2", images, **options)
    scores, positions = found.sample.scores, found.sample.positions
    assert bool((scores.diff(dim=1) >= 0).all())
    pixels = found.sample.cut(images, [3])[0]
    with torch.no_grad():
        assert torch.allclose(model[:3](pixels)[:, 3].mean((1, 2)), scores[3], atol=1e-6)
    assert len({tuple(place) for place in positions[0].tolist()}) == positions.shape[1] > 100
    again = find_extreme_patches(model, "2", images, batch_size=1, **options)
    assert torch.equal(again.sample.positions[0].sort(0).values, positions[0].sort(0).values)
    other = find_extreme_patches(model, "2", images, seed=1, **options)
    assert other.sample.positions.shape != positions.shape or not torch.equal(other.sample.positions, positions)


def test_bf16_finds_nearly_the_same_with_exact_scores() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 12, 3))
    images = photos(12, height=30, width=30)
    options: dict[str, Any] = {"k": 4, "size": 12, "stride": 2, **QUIET}
    exact = find_extreme_patches(model, "2", images, **options)
    fast = find_extreme_patches(model, "2", images, precision="bf16", **options)
    assert torch.allclose(fast.highest.scores, exact.highest.scores, atol=1e-5)
    assert torch.equal(fast.lowest.positions, exact.lowest.positions)
    assert torch.allclose(
        fast.lowest_apart.scores, exact.lowest_apart.scores, atol=1e-2
    )  # another window may be an image's best


# -- kept and shown ---------------------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path: Path) -> None:
    images = photos()
    found = find_extreme_patches(net(), "2", images, k=3, size=5, stride=2, images=range(4), **QUIET)
    again = ExtremePatches.load(found.save(tmp_path / "folder"))
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["patches.json", "patches.safetensors"]
    assert again.to_dict() == found.to_dict()
    assert repr(again) == repr(found)
    with pytest.raises(ValueError, match="pass the data set"):
        again.cut()
    assert torch.equal(again.cut(images)[1], found.cut()[1])
    with pytest.raises(ValueError, match="holds no patches"):
        ExtremePatches.load(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is an existing file"):
        found.save(tmp_path / "file")
    with pytest.raises(ValueError, match="is this the scanned data set"):
        again.cut(photos(height=6, width=6))


def test_a_figure_of_a_unit() -> None:
    found = find_extreme_patches(net(), "2", photos(), k=3, size=5, stride=2, **QUIET)
    figure = found.figure(4)
    assert len(figure.axes) == 6
    assert figure.axes[0].get_xlabel() == f"{float(found.highest.scores[4, 0]):.3g}"
    assert figure.axes[3].get_xlabel() == f"{float(found.lowest.scores[4, 0]):.3g}"


def test_halves_are_disjoint_and_complete() -> None:
    first, second = halves(range(11), 3)
    assert sorted(first + second) == list(range(11))
    assert (len(first), len(second)) == (5, 6)
    assert halves(range(11), 3) == (first, second) != halves(range(11), 4)
