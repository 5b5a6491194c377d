"""The published setting on a folder: it trains, logs, goes on where it was stopped, and says what is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.models import load_model
from absence_plugins.experiments.debias.folder import COLUMNS, FolderSetting, run_folder, two_outputs

QUICK = FolderSetting("resnet18", size=32, epochs=2, batch_size=4, rate=1e-3, modes=("none", "both"), strengths=(10.0,))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten dark and ten bright pictures."""
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        folder = tmp_path / "data" / ("benign", "malignant")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        save_image(0.5 * torch.rand(3, 40, 36, generator=generator) + 0.5 * (number % 2), folder / f"{number}.png")
    return tmp_path / "data"


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_model_of_ones_own_is_trained(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "debias_own_net.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = [
        "experiment",
        "debias",
        "--data",
        "data",
        "--model",
        "debias_own_net:build",
        "--size",
        "16",
        "--epochs",
        "1",
    ]
    done = CliRunner().invoke(app, [*words, "--quiet", "--out", "my page"])
    assert done.exit_code == 0, done.output
    command = "experiment debias --data data --model debias_own_net:build --epochs 1 --size 16"
    assert command in (tmp_path / "my page" / "index.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "my page" / "results.json").read_text())["chosen"].keys() == {
        "none",
        "presence",
        "both",
    }


@pytest.mark.slow
def test_every_mode_is_trained_and_logged(data: Path, tmp_path: Path) -> None:
    random = torch.get_rng_state()
    page = run_folder(tmp_path / "out", data, QUICK, progress=False).read_text(encoding="utf-8")
    assert torch.equal(torch.get_rng_state(), random)
    for words in ("16 training and 4 validation images of benign and malignant", "No prior", "Prior: both, weight 10"):
        assert words in page
    for name in ("none-0", "both-10"):
        rows = logged(tmp_path / "out" / name)
        assert tuple(rows[0]) == COLUMNS
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert all(
            0 <= float(row[f"{where} {k}"]) <= 1
            for row in rows
            for where in ("biased", "inverted", "unbiased")
            for k in (0, 1)
        )
    assert float(logged(tmp_path / "out" / "none-0")[0]["prior"]) == 0
    assert float(logged(tmp_path / "out" / "both-10")[0]["prior"]) > 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["chosen"] == {"none": 0.0, "both": 10.0}


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    run_folder(tmp_path / "whole", data, QUICK, progress=False)
    run_folder(tmp_path / "parts", data, replace(QUICK, epochs=1), progress=False)
    assert len(logged(tmp_path / "parts" / "both-10")) == 1
    run_folder(tmp_path / "parts", data, QUICK, progress=False)
    whole, parts = (load_file(tmp_path / name / "both-10" / "state.safetensors") for name in ("whole", "parts"))
    assert {name.partition(".")[0] for name in whole} == {"model", "optimizer", "log"}
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert logged(tmp_path / "whole" / "both-10") == logged(tmp_path / "parts" / "both-10")
    with pytest.raises(ValueError, match=r"another training: rate is 0\.001 there and 1\.0 here"):
        run_folder(tmp_path / "parts", data, replace(QUICK, rate=1.0), progress=False)


def test_train_and_val_may_be_given(data: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / part).symlink_to(data, target_is_directory=True)
    from dataclasses import replace

    page = run_folder(tmp_path / "out", tmp_path / "split", replace(QUICK, epochs=1, modes=("none",)), progress=False)
    assert "20 training and 20 validation images" in page.read_text(encoding="utf-8")


def test_the_last_dense_layer_is_exchanged_and_nothing_drawn() -> None:
    from torchvision.models import resnet18, vit_b_16

    before = torch.get_rng_state()
    with torch.device("meta"):
        models: list[Any] = [resnet18(weights=None), vit_b_16(weights=None)]
    assert two_outputs(models[0], 0).fc.out_features == 2
    assert two_outputs(models[1], 0).heads.head.out_features == 2
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="no dense layer"):
        two_outputs(torch.nn.Sequential(torch.nn.ReLU()), 0)


def test_a_vision_transformer_is_built_for_the_size_asked_for() -> None:
    with torch.device("meta"):
        loaded = load_model("torchvision:vit_b_16", size=32)
        assert loaded.preprocessing.size == 32
        assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
        with pytest.raises(ValueError, match="image_size"):
            load_model("torchvision:vit_b_16", "DEFAULT", size=32)


@pytest.mark.slow
def test_a_vision_transformer_is_trained(data: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    run_folder(tmp_path / "out", data, replace(QUICK, model="vit_b_16", epochs=1, modes=("both",)), progress=False)
    (row,) = logged(tmp_path / "out" / "both-10")
    assert float(row["prior"]) > 0
    assert float(row["inside"]) > 0
    (tmp_path / "out" / "both-10" / "state.safetensors").unlink()  # a gigabyte


@pytest.mark.slow
def test_the_command_and_what_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["experiment", "debias", *arguments, "--quiet", "--out", "page"])
        return done.exit_code, done.output

    options = ["--model", "resnet18", "--size", "32", "--epochs", "1"]
    code, output = run("--data", "data", *options, "--strengths", "10")
    assert code == 0, output
    assert "weights of resnet18 are random" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    for arguments, message in (
        (["--data", "nowhere"], "folder nowhere does not exist"),
        (["--data", "data/benign"], "must have two subfolders"),
        (["--data", "data", "--model", "nothing"], "no classification model 'nothing'"),
        (["--model", "resnet18"], "--model belongs to --data FOLDER"),
    ):
        code, output = run(*arguments)
        assert code == 2
        assert message in output
