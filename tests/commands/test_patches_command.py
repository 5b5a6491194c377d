"""``absence-plugins patches`` and ``experiment``: pages, numbers, and one clear line for what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands import known_words
from absence_plugins.commands.layers import layers_of
from absence_plugins.data import digits_cnn
from absence_plugins.experiments.imagenet import NETWORKS, Network
from absence_plugins.experiments.registry import EXPERIMENTS

SMALL = ["--units", "0-2", "--images-per-unit", "4", "--quiet"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight small photographs in two folders."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        folder = tmp_path / "photos" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = torch.rand(1, 3, 6, 7, generator=generator)
        save_image(torch.nn.functional.interpolate(coarse, (90, 110), mode="bilinear"), folder / f"{number}.png")
    return tmp_path / "photos"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


@pytest.mark.slow
def test_patches_of_the_bundled_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run("patches", "--layer", "conv3", "--units", "8,0-1", "--show", "2", "--stride", "10", "--quiet")
    assert code == 0, output
    page = (tmp_path / "absence-patches" / "index.html").read_text(encoding="utf-8")
    assert "1,797 images" in page
    assert len(re.findall("<img ", page)) == 4
    results = json.loads((tmp_path / "absence-patches" / "results.json").read_text())["conv3"]
    assert [one["unit"] for one in results["units"]] == [8, 0, 1]
    assert results["patches"]["size"] == 12
    assert results["patches"]["stride"] == 10
    assert len(results["patches"]["images"]) == 898  # one half


def test_patches_of_a_users_model_on_a_folder(photos: Path, tmp_path: Path) -> None:
    options = [
        "--model",
        "torchvision:resnet18",
        "--layer",
        "layer1.0.conv2",
        "--size",
        "64",
        "--patch",
        "32",
        "--stride",
        "16",
    ]
    code, output = run("patches", "photos", *options, *SMALL, "--checkpoint", "state", "--out", "page")
    assert code == 0, output
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "weights of resnet18 are random" in page
    assert (tmp_path / "state" / "layer1.0.conv2" / "rank-00000.safetensors").is_file()
    again = run("patches", "photos", *options, *SMALL, "--checkpoint", "state", "--out", "again")
    assert again[0] == 0
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("page", "again"))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "digits"],
            "--layer is missing; layers whose output is a pre-activation are: conv1, conv2, conv3, linear1",
        ),
        (["--layer", "conv9"], "no layer 'conv9'"),
        (["--layer", "conv3", "--units", "1-x"], "--units '1-x' must be unit numbers"),
        (["--layer", "conv3", "--units", "99"], "has units 0 to 31"),
        (["--layer", "conv3", "--mode", "cut"], "--mode 'cut' must be one of"),
        (["--layer", "conv3", "--protocol", "mine"], "--protocol 'mine' must be one of"),
        (["missing", "--layer", "conv3"], "folder missing does not exist"),
        (["--layer", "x", "--model", "torchvision:resnet18"], "name a folder of images"),
    ],
)
def test_clear_errors_of_patches(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run("patches", *arguments, "--quiet", "--out", "page")
    assert code == 2
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "page").exists()


def test_a_broken_image_is_named(photos: Path, tmp_path: Path) -> None:
    (photos / "class0" / "0.png").write_bytes(b"broken")
    code, output = run(
        "patches", "photos", "--model", "torchvision:resnet18", "--layer", "conv1", *SMALL, "--size", "64"
    )
    assert code == 0, output
    said = "1 of 8 files of photos cannot be read as images and were left out: class0/0.png (not an image)."
    assert f"warning: {said}" in " ".join(output.split())
    assert said in (tmp_path / "absence-patches" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_the_imagenet_quantification_on_small_generated_images(network: str, photos: Path, tmp_path: Path) -> None:
    """Random weights, eight images, few patches: the published layers, modes and reductions run, and the numbers are there."""
    torch.manual_seed(0)
    model = get_model(network, weights=None)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "weights.safetensors"
    )
    options = [
        "--model",
        network,
        "--data",
        "photos",
        "--weights",
        "weights.safetensors",
        "--out",
        "page",
        "--stride",
        "160",
    ]
    code, output = run("experiment", "imagenet", *options, "--units", "0,1", "--images-per-unit", "3", "--quiet")
    assert code == 0, output
    results = json.loads((tmp_path / "page" / "results.json").read_text())
    assert tuple(results) == NETWORKS[network].layers
    for layer in results.values():
        assert layer["overall"]["units"] == 2
        assert set(layer["overall"]["means"]) == {"clean", "lowest", "highest", "random", "median", "blank"}
        assert (layer["patches"]["size"], layer["patches"]["stride"]) == (64, 160)
        assert layer["patches"]["mode"] == NETWORKS[network].mode
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "are random" not in page


@pytest.mark.parametrize("protocol", ["controlled", pytest.param("paper", marks=pytest.mark.slow)])
def test_both_protocols_on_folders(
    protocol: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "resnet18", Network(("conv1", "layer1.0.conv2")))
    monkeypatch.setattr(known_words, "PUBLISHED", ("resnet18",))
    options = ["--model", "resnet18", "--data", "photos", "--protocol", protocol, "--out", "page", "--stride", "80"]
    code, output = run("experiment", "imagenet", *options, "--units", "0,1", "--images-per-unit", "3", "--quiet")
    assert code == 0, output
    results = json.loads((tmp_path / "page" / "results.json").read_text())
    assert list(results) == ["conv1", "layer1.0.conv2"]
    for layer in results.values():
        assert layer["overall"]["protocol"] == protocol
        assert (layer["patches"]["images"] is None) == (protocol == "paper")
    assert "weights of resnet18 are random" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagenet"], "needs --data FOLDER"),
        (["imagenet", "--data", "nowhere"], "folder nowhere does not exist"),
        (
            ["imagenet", "--data", ".", "--model", "alexnet"],
            "none of the published networks: vgg19, resnet50, vit_b_16",
        ),
        (["reichardt", "--weights", "w"], "experiment reichardt takes no --weights; it takes: --seed"),
        (
            ["nothing"],
            "experiment 'nothing' does not exist; there are: ",
        ),
    ],
)
def test_clear_errors_of_experiments(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run("experiment", *arguments, "--quiet", "--out", "page")
    assert code == 2
    assert message in output
    (tmp_path / "file").write_text("mine")
    code, output = run("experiment", "reichardt", "--out", "file", "--quiet")
    assert code == 2
    assert "is an existing file" in output
    assert (tmp_path / "file").read_text() == "mine"


def test_the_command_names_every_experiment() -> None:
    help_text = run("experiment", "--help")[1]
    assert all(name in help_text for name in EXPERIMENTS)


@pytest.mark.slow
def test_units_of_the_digits_network_that_encode_an_absence(tmp_path: Path) -> None:
    from absence_plugins.experiments.digits import run_digits

    page = run_digits(tmp_path / "out", progress=False).read_text(encoding="utf-8")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == layers_of(digits_cnn()) == ["conv1", "conv2", "conv3", "linear1", ""]
    flagged = {layer: result["overall"]["flagged"] for layer, result in results.items()}
    assert sum(flagged.values()) >= 20
    assert f"conv3: {flagged['conv3']} of 32" in page
    for result in results.values():
        for one in result["units"]:
            assert one["flagged"] == (one["q"] <= 0.05 and one["mirror"] > 0)


class Windows(torch.nn.Module):
    """Channels-last maps that no module gives away."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hidden(x.permute(0, 2, 3, 1)).mean((1, 2))  # type: ignore[no-any-return]


def test_one_line_says_what_is_read_and_channels_may_be_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = ["photos", "--model", "test_patches_command:Windows", "--size", "16", "--patch", "8", "--stride", "8"]
    words += ["--layer", "hidden", "--images-per-unit", "4", "--quiet", "--out", "page"]
    code, output = run("patches", *words, "--channels", "last")
    assert code == 0, output
    assert "reading hidden: 3 channels x 16 x 16 positions, mean\n" in output
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "Read: hidden: 3 channels x 16 x 16 positions, mean." in page
    assert len(json.loads((tmp_path / "page" / "results.json").read_text())["hidden"]["units"]) == 3
    code, output = run("patches", *words, "--channels", "middle")
    assert code == 2
    assert "--channels 'middle' must be auto, first or last" in output
    code, output = run("patches", *words, "--units", "7", "--channels", "last")
    assert code == 2
    assert "layer 'hidden' has units 0 to 2, one for each of its 3 channels" in output
