"""The bundled digits and the network trained on them."""

from __future__ import annotations

import builtins
import random
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.data.train import accuracy, main, train_digits_cnn

pytest.importorskip("sklearn")


def assert_random_state_untouched(action: Callable[[], object]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    action()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_images_are_digits_between_zero_and_one() -> None:
    data = load_digits()
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        assert images.shape == (len(labels), 1, 32, 32)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.min() == 0
        assert images.max() == 1
        assert labels.unique().tolist() == list(range(10))
    # the background is black: the frame of the images is mostly empty
    assert (data.train_images[..., :, 0] == 0).float().mean() > 0.9


def test_upscaling_is_the_plain_bilinear_formula() -> None:
    """Output pixel i samples the original at (i + 0.5) / 4 - 0.5, clamped to its range."""
    from sklearn.datasets import load_digits as sklearn_digits

    data = load_digits()
    position = ((np.arange(32) + 0.5) / 4 - 0.5).clip(0, 7)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(8)))  # [32, 8]
    expected = torch.from_numpy(weights @ (sklearn_digits().images / 16) @ weights.T)
    found = torch.cat([data.train_images, data.test_images]).squeeze(1).double()
    match = torch.cdist(found.flatten(1), expected.flatten(1)).argmin(1)
    assert len(match.unique()) == len(expected)  # each original occurs once
    torch.testing.assert_close(found, expected[match], rtol=0, atol=1e-6)


def test_split_is_fixed_stratified_and_disjoint() -> None:
    torch.manual_seed(1)
    first = load_digits()
    torch.manual_seed(2)
    second = load_digits()
    for name, tensor in first.to_dict().items():
        assert torch.equal(tensor, second.to_dict()[name])
    total = len(first.train_labels) + len(first.test_labels)
    assert total == 1797
    train, test = first.train_labels.bincount(), first.test_labels.bincount()
    assert torch.equal(test, (train + test) // 4)
    distance = torch.cdist(first.test_images.flatten(1), first.train_images.flatten(1))
    assert distance.min() > 0.1


def test_shipped_network_is_accurate() -> None:
    data = load_digits()
    assert accuracy(digits_cnn(), data.test_images, data.test_labels) >= 0.97


def test_network_is_made_to_be_explained() -> None:
    model = digits_cnn()
    assert not any(module.training for module in model.modules())
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    modules = list(model)
    assert len(set(map(id, modules))) == len(modules)
    assert all(not list(module.children()) for module in modules)
    assert isinstance(modules[-1], nn.Linear)  # logits, not probabilities
    assert all(weight.requires_grad for weight in model.parameters())


def test_weights_file_is_small() -> None:
    packed = resources.files("absence_plugins.data").joinpath("digits_cnn.safetensors")
    assert len(packed.read_bytes()) <= 250_000


def test_networks_share_nothing() -> None:
    first, second = digits_cnn(), digits_cnn()
    with torch.no_grad():
        first.linear2.bias.zero_()
    assert second.linear2.bias.abs().sum() > 0


def test_untrained_network_depends_on_its_seed_only() -> None:
    first, again, other = (digits_cnn(pretrained=False, seed=s).conv1.weight for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_added_strokes_hurt_more_than_added_pixels() -> None:
    """The encoded absence: a 3 with the strokes of a near 8 is less of a 3."""
    data, model = load_digits(), digits_cnn()
    threes = data.test_images[data.test_labels == 3]
    eights = data.train_images[data.train_labels == 8]
    near = eights[torch.cdist(threes.flatten(1), eights.flatten(1)).argmin(1)]
    missing = near > threes + 0.25
    with_strokes = torch.where(missing, near, threes)
    with_pixels = threes.clone()
    generator = torch.Generator().manual_seed(0)
    for image, reference, mask in zip(with_pixels, near, missing, strict=True):
        background = (image.flatten() == 0).nonzero().flatten()
        order = torch.randperm(len(background), generator=generator)
        place = background[order[: int(mask.sum())]]
        image.view(-1)[place] = reference[mask][: len(place)]
    with torch.no_grad():
        clean, strokes, pixels = (model(x)[:, 3] for x in (threes, with_strokes, with_pixels))
    assert (clean - strokes).mean() > 5 * (clean - pixels).mean().abs()
    assert (strokes < pixels).float().mean() >= 0.95


def test_global_random_state_is_untouched() -> None:
    assert_random_state_untouched(load_digits)
    assert_random_state_untouched(digits_cnn)
    assert_random_state_untouched(lambda: digits_cnn(pretrained=False))
    assert_random_state_untouched(lambda: train_digits_cnn(epochs=1, progress=False))


def test_training_refuses_zero_epochs() -> None:
    with pytest.raises(ValueError, match="epochs=0 must be at least 1"):
        train_digits_cnn(epochs=0)


def test_missing_scikit_learn_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_sklearn(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "sklearn":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load_digits()


@pytest.mark.slow
def test_training_again_gives_the_shipped_network(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_digits()
    shipped = accuracy(digits_cnn(), data.test_images, data.test_labels)
    threads = torch.get_num_threads()
    try:
        main(["--out", str(tmp_path / "again.safetensors")])
    finally:
        torch.set_num_threads(threads)
    printed = float(capsys.readouterr().out.split()[2].rstrip(";"))
    assert printed == pytest.approx(shipped, abs=0.005)
    assert (tmp_path / "again.safetensors").stat().st_size <= 250_000
