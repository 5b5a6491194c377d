"""Files of weights as people have them, and what is said of those that are none; modules that fail."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.factories import build_model
from absence_plugins.commands.weights import OtherClasses, load_weights

State = dict[str, Tensor]


def net(classes: int = 5, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, classes))


THEIRS, AVERAGE = dict(net(seed=1).state_dict()), dict(net(seed=2).state_dict())


def prefixed(prefix: str, state: State = THEIRS) -> State:
    return {prefix + name: value for name, value in state.items()}


def same(model: nn.Module, state: State) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (THEIRS, "net.pth."),
        ({"state_dict": THEIRS, "epoch": 3}, "entry 'state_dict'."),
        ({"weights of tuesday": THEIRS, "optimizer": {"state": {0: {"exp": torch.ones(3)}}}}, "'weights of tuesday'"),
        ({"model": {"inner": THEIRS}}, "entry 'model/inner'"),
        (prefixed("module."), "without the prefix 'module.'."),
        (prefixed("_orig_mod."), "without the prefix '_orig_mod.'."),
        (prefixed("module._orig_mod."), "without the prefix 'module.' and '_orig_mod.'."),
        ({name.replace("1.", "1._orig_mod."): one for name, one in THEIRS.items()}, "without the prefix '_orig_mod.'."),
        ({"net": prefixed("encoder.body.")}, "without the prefix 'encoder.body.'."),
        (
            {"state_dict": {**prefixed("model."), "criterion.weight": torch.ones(3)}, "hyper_parameters": {"lr": 0.1}},
            "entry 'state_dict', without the prefix 'model.'; left out: criterion.weight.",
        ),
        ({"n_averaged": torch.tensor(3), **prefixed("module.")}, "left out: n_averaged."),
        ({"model": THEIRS, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)}, "entry 'model'."),
        ({name: one for name, one in THEIRS.items() if not name.endswith("num_batches_tracked")}, "net.pth."),
    ],
)
def test_nestings_and_prefixes(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    model = net()
    sentence = load_weights(model, tmp_path / "net.pth")
    assert sentence.endswith(said) or f"{said}." in sentence
    counter = {"1.num_batches_tracked": model[1].num_batches_tracked}
    assert same(model, THEIRS | counter)


@pytest.mark.parametrize(
    "content",
    [
        {"model": THEIRS, "model_ema": prefixed("module.", AVERAGE)},
        {"state_dict": THEIRS, "state_dict_ema": AVERAGE},
        {"state_dict": prefixed("model.") | prefixed("ema_model.module.", AVERAGE)},
    ],
)
def test_a_moving_average_is_taken_and_said(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "net.pth")
    model = net()
    assert "a moving average, EMA); not taken: '" in load_weights(model, tmp_path / "net.pth")
    assert same(model, AVERAGE)


class Compiled(nn.Module):
    """As torch.compile's wrapper names its weights."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner


def test_a_wrapped_model_takes_plain_names(tmp_path: Path) -> None:
    torch.save(THEIRS, tmp_path / "net.pth")
    for model in (nn.DataParallel(net()), Compiled(net())):
        load_weights(model, tmp_path / "net.pth")
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), THEIRS.values(), strict=True))


class Renamed(nn.Sequential):
    """As torchvision's vision transformers: its older names are still understood."""

    def _load_from_state_dict(self, state: State, prefix: str, *more: Any) -> None:
        if f"{prefix}old" in state:
            state[f"{prefix}0.weight"] = state.pop(f"{prefix}old")
        super()._load_from_state_dict(state, prefix, *more)  # type: ignore[arg-type]


def test_names_that_only_the_model_understands(tmp_path: Path) -> None:
    torch.save({"model": {"module.head.weight": torch.ones(1, 3), "module.body.old": torch.eye(3)}}, tmp_path / "a.pth")
    model = nn.ModuleDict({"body": Renamed(nn.Linear(3, 3, bias=False)), "head": nn.Linear(3, 1, bias=False)})
    assert "without the prefix 'module.'" in load_weights(model, tmp_path / "a.pth")
    assert torch.equal(model["body"][0].weight, torch.eye(3))


def test_tied_weights_are_needed_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    save_file({"1.weight": torch.eye(3)}, tmp_path / "tied.safetensors")
    load_weights(model, tmp_path / "tied.safetensors")
    assert torch.equal(model[0].weight, torch.eye(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, "holds no weights, but the entries epoch, lr"),
        ({}, "holds no weights, but an empty dictionary"),
        (torch.ones(3), "holds no weights, but a Tensor"),
        ({"student": THEIRS, "teacher": AVERAGE}, "at 2 places: student, teacher; save the one that is meant"),
        (dict(nn.Linear(2, 2).state_dict()), "names such as weight, bias, the model 0.weight"),
        (THEIRS | {"5.weight": torch.ones(2)}, "1 of them are not in it: 5.weight"),
        (
            {("head." if name[0] == "4" else "body.") + name: one for name, one in THEIRS.items()},
            "2 of the model's 8 names are not in it with the prefix 'body.': 4.weight, 4.bias; "
            "in the way: head.4.weight, head.4.bias",
        ),
        (THEIRS | {"0.weight": torch.ones(4, 1, 3, 3)}, "0.weight is 4 x 1 x 3 x 3 in the file, 4 x 3 x 3 x 3 in the"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_weights(model, tmp_path / "net.pth")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert same(model, before)


def test_another_number_of_classes_is_said(tmp_path: Path) -> None:
    torch.save(net(7).state_dict(), tmp_path / "seven.pth")
    with pytest.raises(OtherClasses, match=r"a model with 7 classes, this one has 5: 4.weight is 7 x 4") as caught:
        load_weights(net(), tmp_path / "seven.pth")
    assert caught.value.classes == 7


def half(path: Path, share: float = 0.5) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def half_zip(path: Path) -> None:
    torch.save(THEIRS, path)
    half(path)


def half_pickle(path: Path) -> None:
    torch.save(THEIRS, path, _use_new_zipfile_serialization=False)
    half(path)


def half_safetensors(path: Path) -> None:
    save_file(THEIRS, path)
    half(path, 0.95)


def script(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(path))


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    ("a.pth", half_zip, "is cut off after"),
    ("a.pth", half_pickle, "is cut off after"),
    ("a.safetensors", half_safetensors, "is cut off after"),
    ("a.bin", half_safetensors, "is cut off after"),
    ("a.pth", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer"),
    ("a.safetensors", lambda path: path.write_text("version https://git-lfs.github.com/s"), "a Git LFS pointer"),
    ("a.safetensors", lambda path: path.write_bytes(b"\x01\x02\x03"), "is no safetensors file"),
    ("a.safetensors", lambda path: torch.save(THEIRS, path), "is no safetensors file"),
    ("a.pth", lambda path: path.write_bytes(b""), "is empty"),
    ("a.pth", lambda path: path.write_text("<!doctype html>"), "is a web page"),
    ("a.pth", lambda path: path.write_text("hello"), "holds no weights: it is neither"),
    ("a.pth", lambda path: path.mkdir(), "is a folder; name a file"),
    ("a.pth", lambda path: torch.save(nn.Linear(1, 1), path), "objects of torch.nn.modules.linear.Linear"),
    ("a.pth", lambda path: path.write_bytes(pickle.dumps(net)), "code are not loaded"),
    ("a.pth", script, "is a TorchScript archive"),
    ("a.zip", lambda path: np.savez(path.open("wb"), a=np.ones(2)), "a zip archive that torch.save did not write"),
]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("name", "write", "message"), BROKEN)
def test_files_that_are_none(tmp_path: Path, name: str, write: Callable[[Path], Any], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError) as caught:
        load_weights(net(), tmp_path / name)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


MODULES = {
    "gone": ("import math\n\nX = math.gone\n", "AttributeError", "gone.py, line 3"),
    "needs": ("import no_such_package\n", "No module named 'no_such_package' (needs.py, line 1)", "needs.py"),
    "typo": ("def build(:\n", "SyntaxError", "typo.py, line 1"),
    "leaves": ("import sys\nsys.exit('no arguments')\n", "SystemExit: no arguments", "leaves.py, line 2"),
    "fails": ("def build():\n    return {}['weights']\n", "KeyError: 'weights'", "fails.py, line 2, in build"),
    "wants": ("def build(k): pass\n", "called without arguments, which fails: missing a required argument: 'k'", ""),
    "number": ("build = 3\n", "must be a torch.nn.Module or a function that returns one, got int", ""),
    "near": ("def builds(): pass\n", "has no 'build'; it has: builds", ""),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_fails_is_shown_as_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, *messages = MODULES[name]
    (tmp_path / f"{name}.py").write_text(code)
    with pytest.raises(ValueError) as caught:
        build_model(name, "build")
    assert all(message in str(caught.value) for message in messages), caught.value


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sys:exit", "sys:exit fails with SystemExit"),
        (".a:b", "'.a' is no name of a module, as in `import a`; write a:b"),
        ("nets/own.py:build", "write nets.own:build"),
        ("own_list:build", "error: IndexError: list index out of range (own_list.py, line 5, in forward)"),
        ("own_shape:build", "cannot be multiplied (1x192 and 5x2) (own_shape.py, line 11, in forward)"),
    ],
)
def test_what_the_users_code_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = spec.partition(":")[0].removeprefix("own_")
    (tmp_path / f"own_{Path(name).name}.py").write_text(
        "from torch import nn\nclass Forward(nn.Linear):\n    def forward(self, x):\n"
        "        empty = []\n        return empty[1]\nclass Shapes(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.fc = nn.Linear(5, 2)\n    def forward(self, x):\n"
        "        return self.fc(x.flatten(1))\ndef build(): return "
        f"{'Shapes()' if name == 'shape' else 'Forward(2, 2)'}\n"
    )
    from torchvision.utils import save_image

    save_image(torch.zeros(3, 8, 8), tmp_path / "a.png")
    result = CliRunner().invoke(app, ["explain", "a.png", "--model", spec, "--size", "8", "--quiet"])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
