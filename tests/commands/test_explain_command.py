"""The command line: pages for a user's own model, and one clear line for everything that is wrong."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins import __version__
from absence_plugins.cli import app
from absence_plugins.commands.class_folders import match_folders
from absence_plugins.commands.explain import explain_images
from absence_plugins.commands.maps.explainers import CaptumMaps, explainer, input_method, method_arguments
from absence_plugins.commands.models import load_model
from absence_plugins.commands.references import load_references
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.data.folders import find_images

FACTORY = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

def softmax():
    return nn.Sequential(tiny(), nn.Softmax(1))

def averaged():
    return nn.Sequential(tiny(), nn.Softmax(1), nn.ReLU())

def single():
    return nn.Sequential(tiny(), nn.Linear(3, 1))

class Named(nn.Sequential):
    def forward(self, x):
        return {"logits": super().forward(x)}

def named():
    return Named(*tiny())

def labels():
    return nn.Sequential(tiny(), nn.Sigmoid())

def segmenter():
    return nn.Conv2d(3, 3, 3, padding=1)

def broken():
    raise KeyError("no file")

def text():
    return "not a model"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digit images, references in classes, a color photo, a module with models; the working directory."""
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    for digit in (3, 8, 9):
        (tmp_path / "references" / str(digit)).mkdir(parents=True)
        for number, image in enumerate(digits.train_images[digits.train_labels == digit][:9]):
            save_image(image, tmp_path / "references" / str(digit) / f"{number}.png")
    save_image(digits.test_images[digits.test_labels == 3][0], tmp_path / "three.png")
    pixels = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    save_image(pixels, tmp_path / "photo.png")
    (tmp_path / "own_models.py").write_text(FACTORY)
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def explained(*arguments: str) -> str:
    code, output = run("explain", *arguments, "--quiet", "--out", "page")
    assert code == 0, output
    path = Path(output.strip().splitlines()[-1])
    assert path.name == "index.html"
    return path.read_text(encoding="utf-8")


def test_digits_with_references(folder: Path) -> None:
    page = explained("three.png", "--model", "digits", "--references", "references", "--contrast", "8", "--k", "4")
    for expected in (
        "Standard map: class 3",
        "Non-target map",
        "Reference map: class 3",
        "Its absence part",
        "The nearest reference",
        "The smallest missing set",
        "Switched off",
    ):
        assert expected in page
    assert page.count("<img ") == 9


def test_silent_units_are_counted_and_what_they_are_worth(folder: Path) -> None:
    """Second writing: the head is linear, so a silent unit is worth minus its weight times its value on the reference."""
    page = explained("three.png", "--model", "digits", "--references", "references", "--contrast", "8", "--k", "1")
    found = re.search(
        r"Of 64 units in front of linear2, (\d+) are silent .*?silence is worth (\S+) of the (\S+) by", page
    )
    assert found is not None
    model = digits_cnn()
    loaded = load_model("digits")
    prepared = loaded.preprocessing
    x = prepared.normalize(prepared.picture(folder / "three.png"))[None]
    reference = load_references(folder / "references", loaded, k=1, contrast=8).nearest(x)[:, 0]
    with torch.no_grad():
        here, there = (model[:-1](one)[0] for one in (x, reference))
        target = int(model(x).argmax())
        silent = (here == 0) & (there > 0)
        worth = -(model.linear2.weight[target] * there)[silent].sum()
        total = (model(x) - model(reference))[0, target]
    assert int(found[1]) == int(silent.sum())
    assert float(found[2]) == pytest.approx(float(worth), abs=0.006)
    assert float(found[3]) == pytest.approx(float(total), abs=0.006)


def test_the_target_is_switched_off_below_its_rival(folder: Path) -> None:
    page = explained("three.png", "--model", "digits", "--references", "references", "--contrast", "8", "--k", "1")
    found = re.search(r"takes class 3 from (\S+) to (\S+), below the second highest output as it was: (\S+) root", page)
    assert found is not None
    prepared = load_model("digits").preprocessing
    with torch.no_grad():
        outputs = digits_cnn()(prepared.normalize(prepared.picture(folder / "three.png"))[None])[0]
    assert float(found[1]) == pytest.approx(float(outputs[3]), abs=0.006)
    assert float(found[2]) <= float(outputs.topk(2).values[1]) + 0.006
    assert 0.01 <= float(found[3]) < 0.3


def test_own_factory_weights_and_method(folder: Path) -> None:
    save_file(load_model("own_models:tiny").model.state_dict(), folder / "tiny.safetensors")
    page = explained("photo.png", "--model", "own_models:tiny", "--weights", "tiny.safetensors", "--size", "24",
                     "--method", "Occlusion", "--target", "1", "--nontarget", "2")  # fmt: skip
    assert "class 1" in page
    assert "class 2" in page


@pytest.mark.parametrize("nontarget", ["others", "runner_up", "0"])
def test_nontarget_choices(folder: Path, nontarget: str) -> None:
    page = explained(
        "photo.png",
        "--model",
        "own_models:tiny",
        "--size",
        "24",
        "--target",
        "1",
        "--nontarget",
        nontarget,
        "--method",
        "DeepLift",
    )
    assert ("the mean of the others" in page) == (nontarget == "others")


def test_the_standard_map_of_a_single_logit_is_signed() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    net[1].weight.data = torch.tensor([[1.0, -1.0, 2.0, 0.0]])
    for name, expected in (("Saliency", [1.0, -1.0, 2.0, 0.0]), ("InputXGradient", [3.0, -3.0, 6.0, 0.0])):
        found = CaptumMaps(input_method(name)).standard(
            net, torch.full((1, 1, 2, 2), 3.0), 0, 1, torch.zeros(1, 1, 2, 2)
        )
        assert found.flatten().tolist() == expected


@pytest.mark.parametrize("method", ["relevance", "zennit:EpsilonGamma"])
def test_models_that_return_an_object(folder: Path, method: str) -> None:
    page = explained("photo.png", "--model", "own_models:named", "--size", "24", "--target", "1", "--method", method)
    assert "class 1" in page


def test_grad_cam_of_a_single_output() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 1, bias=False))
    net[0].weight.data[:], net[2].weight.data[:] = 2.0, 1.0
    x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    assert torch.allclose(explainer("GradCam").standard(net, x, 0, 1, torch.zeros_like(x)), 2 * x)


def test_a_single_output(folder: Path) -> None:
    page = explained("photo.png", "--model", "own_models:single", "--size", "24")
    assert "no other one to explain" in page
    assert "Non-target map:" not in page
    options = ("--nontarget", "negated", "--method", "InputXGradient")
    page = explained("photo.png", "--model", "own_models:single", "--size", "24", *options)
    assert "Non-target map: minus the output" in page


def test_labels_behind_a_sigmoid(folder: Path) -> None:
    options = ("--size", "24", "--target", "1", "--method", "InputXGradient")
    page = explained("photo.png", "--model", "own_models:labels", *options)
    assert "labels that are no rivals" in page
    assert "Non-target map:" not in page
    page = explained("photo.png", "--model", "own_models:labels", *options, "--nontarget", "2")
    assert "Non-target map: class 2, which is not the target class 1" in page


def test_maps_of_logits_and_the_margin(folder: Path) -> None:
    options = ("--size", "24", "--target", "1", "--nontarget", "margin", "--method", "InputXGradient")
    page = explained("photo.png", "--model", "own_models:segmenter", *options)
    assert re.search(r"Non-target map: class 1 \(sum over the image\) minus class [02] \(sum over the image\)", page)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_torchvision_models_build_without_weights(name: str) -> None:
    first, second = (load_model(f"torchvision:{name}") for _ in range(2))
    assert first.preprocessing.size == 224
    assert len(first.categories) == 1000
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "image missing.png does not exist"),
        (["own_models.py"], "own_models.py is not an image"),
        (["three.png", "--target", "10"], "--target 10 does not exist: the model has 10 outputs"),
        (["three.png", "--nontarget", "10"], "class indices go from 0 to 9"),
        (
            ["three.png", "--nontarget", "second"],
            "--nontarget 'second' must be a class index, runner_up, others, margin, or negated",
        ),
        (["three.png", "--target", "3", "--nontarget", "3"], "is the target itself"),
        (["three.png", "--method", "Deconvolution"], "not a method that shows absences"),
        (["three.png", "--references", "nowhere"], "references folder nowhere does not exist"),
        (["three.png", "--references", "references", "--contrast", "7"], "0 reference samples of class 7"),
        (["three.png", "--references", "references", "--method", "Saliency"], "no baseline to compare with"),
        (["three.png", "--weights", "nowhere.pt"], "weights file nowhere.pt does not exist"),
        (["three.png", "--weights", "DEFAULT"], "--weights DEFAULT is for torchvision models"),
        (["three.png", "--mean", "a"], "--mean 'a' must be comma-separated numbers"),
        (["three.png", "--mean", "0.5,0.5"], "--mean has 2 values for 1 channels"),
        (["three.png", "--std", "0"], "--std 0.0 must be above 0"),
        (["three.png", "--model", "torchvision:resnet"], "no classification model 'resnet'"),
        (
            ["three.png", "--model", "nocolon"],
            "must be torchvision:NAME, timm:NAME, hf:FOLDER, module:factory, or digits",
        ),
        (["three.png", "--model", "no_such_module:x"], "module 'no_such_module' cannot be imported"),
        (["three.png", "--model", "own_models:nothing"], "has no 'nothing'"),
        (["three.png", "--model", "own_models:broken"], "own_models:broken fails with KeyError: 'no file'"),
        (["three.png", "--model", "own_models:text"], "must return a torch.nn.Module, got str"),
        (["photo.png", "--model", "own_models:averaged", "--size", "24"], "drop the softmax"),
        (
            ["three.png", "--method", "relevance:delta"],
            "there is no rule 'delta'; there are: alpha_beta, epsilon, lower_gamma",
        ),
        (["three.png", "--out", "three.png"], "existing file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, arguments: list[str], message: str) -> None:
    model = [] if "--model" in arguments else ["--model", "digits"]
    code, output = run("explain", *arguments, *model, "--quiet", *([] if "--out" in arguments else ["--out", "page"]))
    assert code == 2
    assert message in " ".join(output.split())
    assert "Traceback" not in output
    assert not (folder / "page").exists()


class Bomb:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, ("exploded", "w"))


@pytest.mark.parametrize(
    "save", [lambda bomb, path: torch.save(bomb, path), lambda bomb, path: path.write_bytes(pickle.dumps(bomb))]
)
def test_weights_never_execute_code(folder: Path, save: object) -> None:
    save(Bomb(), folder / "bomb.pt")  # type: ignore[operator]
    code, output = run("explain", "three.png", "--model", "digits", "--weights", "bomb.pt", "--quiet")
    assert code == 2
    assert "files that contain code are not loaded" in output
    assert not (folder / "exploded").exists()


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), folder / "other.pt")
    code, output = run("explain", "three.png", "--model", "digits", "--weights", "other.pt", "--quiet")
    assert code == 2
    assert "do not fit the model" in output


def test_references_keep_their_classes(folder: Path) -> None:
    loaded = load_model("digits")
    references = load_references(folder / "references", loaded, k=3, contrast=8)
    assert sorted(set(references.labels.tolist())) == [3, 8, 9]
    x = loaded.preprocessing.normalize(loaded.preprocessing.picture(folder / "three.png"))[None]
    assert set(references.labels[references.nearest_indices(x, target=3)[0]].tolist()) == {8}


def test_folder_names_are_numbers_categories_or_an_order(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "a.png")
    names = find_images(tmp_path).classes
    assert match_folders(names, (), 2).classes == {"cat": 0, "dog": 1}
    assert match_folders(names, (), 3).classes == {"cat": None, "dog": None}, "not as many folders as outputs"
    assert match_folders(names, ("dog", "eel", "Cat")).classes == {"cat": 2, "dog": 0}
    assert match_folders(names, ("dog", "eel"), 2).classes == {"cat": None, "dog": 0}


@pytest.mark.parametrize(
    "name",
    [
        "DeepLift",
        "GradientShap",
        "KernelShap",
        "LRP",
        "InputXGradient",
        "GuidedBackprop",
        "Saliency",
        "DeepLiftShap",
        "captum:lime",
    ],
)
@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_every_input_method_runs(folder: Path, name: str) -> None:
    model_before = digits_cnn().state_dict()
    loaded = load_model("digits")
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    references = (
        None if input_method(name)._traits.no_reference else load_references(folder / "references", loaded, k=2)
    )
    explain_images([folder / "three.png"], loaded, folder / "page", references=references, method=name, progress=False)
    assert torch.equal(state, torch.random.get_rng_state())
    assert numpy_state == np.random.get_state()[1].tolist()
    first = (folder / "page" / "index.html").read_bytes()
    torch.rand(1), np.random.rand()
    explain_images([folder / "three.png"], loaded, folder / "page", references=references, method=name, progress=False)
    assert (folder / "page" / "index.html").read_bytes() == first, "the same seed makes the same page"
    assert all(torch.equal(value, model_before[key]) for key, value in loaded.model.state_dict().items())


def test_windows_and_blocks_cover_the_image() -> None:
    x = torch.zeros(1, 3, 20, 28)
    mask = method_arguments(input_method("ShapleyValueSampling"), x)["feature_mask"]
    assert mask.shape == (1, 3, 20, 28)
    assert (mask[0, 0] == mask[0, 2]).all()
    assert len(mask.unique()) == 10 * 14
    assert method_arguments(input_method("Occlusion"), x)["sliding_window_shapes"] == (3, 2, 2)


def test_help_is_quick_and_version_is_printed() -> None:
    assert run("--version") == (0, f"absence-plugins {__version__}\n")
    code, output = run("--help")
    assert code == 0
    for command in ("demo", "explain", "bench"):
        assert command in output


def test_the_page_says_what_was_assumed(folder: Path) -> None:
    page = explained("photo.png", "--size", "32", "--method", "Saliency")
    assert "The weights of resnet18 are random" in page
    assert "The gradient: what a brighter pixel would do." in page
    (folder / "references" / "3").rename(folder / "references" / "three")
    page = explained("three.png", "--model", "digits", "--references", "references", "--k", "2", "--method", "DeepLift")
    assert "folders: 8 is class 8, 9 is class 9; no class of the model, so that their images count as" in page
    assert "what it predicts: three" in page


def test_the_page_says_where_the_network_does_not_bear_a_map_out(folder: Path) -> None:
    """References on which the output is as high: for a 0 nothing is missing in a 3 that other threes have."""
    (folder / "threes").mkdir()
    (folder / "references" / "3").rename(folder / "threes" / "3")
    options = ("--model", "digits", "--references", "threes", "--k", "8", "--method", "DeepLift")
    page = explained("three.png", "--target", "0", *options)
    assert "references on which the explained output is not lower" in page
    assert "does not bear the map out" in page or "no more than chance" in page


def test_a_model_that_ends_in_a_softmax(folder: Path) -> None:
    options = ("photo.png", "--size", "24", "--target", "0", "--method")
    for method in ("relevance", "InputXGradient", "zennit:epsilon_gamma"):
        page = explained(*options, method, "--model", "own_models:softmax")
        assert page.count("Note: the model ends in a softmax over axis 1; its input, the logits, is explained.") == 1
        own = explained(*options, method, "--model", "own_models:tiny")
        fact = re.search(r"Output of .*?</d[dt]>\s*(<dd>.*?</dd>)?", own, re.S)
        assert fact is not None
        assert fact.group() in page
