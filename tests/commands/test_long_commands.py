"""Commands that end early: Ctrl-C, exhausted memory, a full disk. What is kept, what is said, and that it goes on."""

from __future__ import annotations

import errno
import inspect
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.cli.endings import Running, ending
from absence_plugins.commands import label_page
from absence_plugins.commands.image_folder import FolderImages
from absence_plugins.commands.models import load_model
from absence_plugins.core import files
from absence_plugins.core.units import Layer
from absence_plugins.experiments import digits as digit_absences
from absence_plugins.experiments.debias import digits as debias
from absence_plugins.experiments.debias.digits import Setting
from absence_plugins.experiments.registry import EXPERIMENTS, taken
from absence_plugins.methods.directions import DirectionPairs

FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Flatten(), nn.LazyLinear(2))

class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        torch.empty(10**15)
        return self.layer(x)
"""
PATCHES = ("patches photos --model {}:net --layer 2 --size 24 --patch 8 --stride 8 --batch-size 18 --images-per-unit 4 "
           "--show 1 --quiet").split()  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Sixteen small photographs in two classes, and a module with small networks; the module's name."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for number in range(16):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 24, 24, generator=generator) * (0.5 + 0.5 * (number % 2)), path)
    module = f"nets_{abs(hash(request.node.nodeid))}"  # a module is imported once per process
    (tmp_path / f"{module}.py").write_text(FACTORY.replace("nn.LazyLinear(2)", "nn.Linear(3 * 24 * 24, 2)"))
    return module


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, error: type[BaseException]) -> None:
    """The ``call``-th call of a function raises; until the monkeypatch is undone."""
    real, calls = getattr(owner, name), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


def command_in(output: str) -> list[str]:
    """The command that a message tells to type."""
    line = re.search(r"^  absence-plugins (.*)$", output, re.MULTILINE)
    assert line, output
    return shlex.split(line[1])


def results(folder: str, name: str = "results.json") -> Any:
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_stopped_patches_go_on_with_the_command_that_is_said(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [word.format(photos) for word in PATCHES]
    assert run(*command, "--checkpoint", "other", "--out", "expected")[0] == 0
    words = [*command, "--checkpoint", "my state", "--out", "page"]
    for call in (4, 14, 24):  # in the scan, where the images are chosen, and in the pasting
        with monkeypatch.context() as patched:
            stop_at(patched, FolderImages, "__getitem__", call, KeyboardInterrupt)
            code, output = run(*words)
        assert code == 130
        lines = output.splitlines()
        lines = lines[lines.index("stopped.") :]  # what is said of the model comes first, then of the layer
        assert lines[:2] == ["stopped.", "What was done is kept in my state. The same command resumes from there:"]
        assert command_in(output) == words
        assert not Path("page").exists()
    assert (Path("my state") / "2" / "insertion-rank-00000.safetensors").is_file()
    assert run(*command_in(output))[0] == 0
    assert results("page") == results("expected")


def test_without_a_checkpoint_the_message_adds_one(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word.format(photos) for word in PATCHES]
    with monkeypatch.context() as patched:
        stop_at(patched, FolderImages, "__getitem__", 4, KeyboardInterrupt)
        code, output = run(*words)
    assert code == 130
    assert "Nothing of the work is kept. With --checkpoint FOLDER" in output
    assert command_in(output) == [*words, "--checkpoint", "absence-patches-state"]
    with monkeypatch.context() as patched:
        stop_at(patched, FolderImages, "__getitem__", 4, KeyboardInterrupt)
        code, output = run(*command_in(output))
    assert (code, "is kept in absence-patches-state" in output) == (130, True)


def test_stopped_labels_go_on(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_page, "OTHERS", 1)  # on the page, which is drawn three times
    command = (
        f"label --model {photos}:net --layer 2 --size 24 --images photos --batch-size 3 --length 1 --quiet"
    ).split()
    assert run(*command, "--out", "expected")[0] == 0
    words = [*command, "--out", "page", "--checkpoint", "state"]
    with monkeypatch.context() as patched:
        stop_at(patched, Layer, "reduced", 4, KeyboardInterrupt)
        code, output = run(*words)
    assert code == 130
    assert command_in(output) == words
    with monkeypatch.context() as patched:
        stop_at(patched, Layer, "reduced", 4, MemoryError)  # three of six batches are there, so there is no fourth
        assert run(*words)[0] == 0
        stop_at(patched, Layer, "reduced", 1, MemoryError)  # and now none
        assert run(*words)[0] == 0
    assert results("page", "labels.json") == results("expected", "labels.json")
    code, output = run(*words, "--reduce", "max")
    assert code == 2
    assert "belongs to another labelling: reduce is 'mean' there and 'max' here" in output


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_stopped_directions_go_on(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (f"directions photos --model {photos}:net --layer 0 --size 24 --count 2 --batch-size 4 --quiet").split()
    assert run(*command, "--out", "expected", "--checkpoint", "other")[0] == 0
    words = [*command, "--out", "page", "--checkpoint", "state"]
    from absence_plugins.commands import directions as directions_model

    with monkeypatch.context() as patched:
        stop_at(patched, directions_model, "layer_features", 3, KeyboardInterrupt)
        assert run(*words)[0] == 130
    with monkeypatch.context() as patched:
        stop_at(patched, directions_model, "layer_features", 3, MemoryError)  # two of four batches are there
        stop_at(patched, directions_model, "directions_page", 1, KeyboardInterrupt)
        code, output = run(*words)
    assert code == 130, output
    with monkeypatch.context() as patched:
        stop_at(patched, DirectionPairs, "fit", 1, MemoryError)  # the pairs are there
        code, output = run(*words)
        assert code == 0, output
    assert results("page") == results("expected")
    with pytest.raises(ValueError, match="belongs to another run: side is 'auto' there and 'output' here"):
        directions_model.model_directions(
            Path("photos"), load_model(f"{photos}:net", size=24), Layer("0", side="output"), "page",
            directions_model.Fit(2, batch_size=4), checkpoint=Path("state"), progress=False,
        )  # fmt: skip


def test_the_stopped_debias_experiment_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(debias, "SEEDS", 1)
    monkeypatch.setattr(debias, "Setting", partial(Setting, epochs=1, modes=()))
    command = ["experiment", "debias", "--quiet"]
    assert run(*command, "--out", "expected")[0] == 0
    with monkeypatch.context() as patched:
        stop_at(patched, debias, "train", 1, KeyboardInterrupt)
        code, output = run(*command)
        assert (code, "Nothing of the work is kept. To begin again" in output) == (130, True)
        stop_at(patched, debias, "train", 2, KeyboardInterrupt)  # counted anew
        code, output = run(*command)
    assert (code, "is kept in absence-debias" in output) == (130, True)
    assert len(list(Path("absence-debias", "trainings").glob("*.safetensors"))) == 1
    with monkeypatch.context() as patched:
        stop_at(patched, debias, "train", 2, MemoryError)  # one of two is missing
        assert run(*command_in(output))[0] == 0
    assert results("absence-debias") == results("expected")
    pages = [
        re.findall('src="data:[^"]*"', Path(out, "index.html").read_text()) for out in ("absence-debias", "expected")
    ]
    assert pages[0] == pages[1] != []
    monkeypatch.setattr(debias, "Setting", partial(Setting, epochs=2, modes=()))
    code, output = run(*command)
    assert code == 2
    assert "another training: epochs is 1 there and 2 here; name another folder, or delete it" in " ".join(
        output.split()
    )
    Path("absence-debias", "trainings", "training.json").write_text("{")
    code, output = run(*command)
    assert (code, "training.json is damaged" in output) == (2, True)


def test_the_digits_experiment_takes_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(digit_absences, "layers_page", lambda *given, **_: seen.update(scan=given[2]) or tmp_path)
    assert run("experiment", "digits", "--checkpoint", str(tmp_path / "state"), "--out", str(tmp_path / "out"))[0] == 0
    assert seen["scan"].checkpoint == tmp_path / "state"


@pytest.mark.slow
def test_a_process_that_is_interrupted_at_any_time_goes_on(photos: str, tmp_path: Path) -> None:
    words = [word.format(photos) for word in PATCHES]
    words[words.index("--stride") + 1] = "1"
    script = f"from absence_plugins.cli import app; app({[*words, '--checkpoint', 'state']!r})"
    codes = []
    for number in range(2):
        process = subprocess.Popen([sys.executable, "-c", script], text=True, stderr=subprocess.PIPE)
        before = _saved(tmp_path)
        while process.poll() is None and _saved(tmp_path) == before and not (number == 0 and Path("state/2").is_dir()):
            time.sleep(0.02)
        time.sleep(0.05 * number)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
        codes.append(process.returncode)
        assert process.returncode == 0 or (process.returncode == 130 and "is kept in state" in errors), errors
    assert 130 in codes
    assert run(*words, "--checkpoint", "state")[0] == 0
    assert run(*words, "--out", "expected")[0] == 0
    assert results("absence-patches") == results("expected")


def _saved(folder: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted((folder / "state").rglob("*.safetensors"))]


# -- exhausted memory -------------------------------------------------------------------------------------------------


def test_what_torch_says_when_memory_ends_comes_with_options_that_exist(photos: str) -> None:
    words = [word.format(photos).replace(":net", ":Hungry") for word in PATCHES]
    words[words.index("--layer") + 1] = "layer"
    code, output = run(*words)
    assert code == 2
    assert "error: memory is exhausted. Try a smaller --batch-size (now 18); or fewer --units" in output
    assert "or a smaller --size" in output
    assert command_in(output) == [*words, "--checkpoint", "absence-patches-state"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. "),
    ],
    ids=["python", "cuda", "torch", "worker"],
)
def test_every_way_in_which_memory_ends_is_known(error: Exception) -> None:
    found = ending(error, Running(("label",), {"size": None, "workers": 0, "out": Path("page")}))
    assert found == (
        2,
        [
            "error: memory is exhausted. Try a smaller --size of the images.",
            "Nothing of the work is kept. To begin again:",
            "  absence-plugins label",
        ],
    )


def test_a_smaller_batch_is_other_work_for_a_state(tmp_path: Path) -> None:
    (tmp_path / "scan.json").touch()
    options = {"batch_size": 128, "checkpoint": tmp_path}
    _, lines = ending(MemoryError(), Running(("patches",), options, state=tmp_path)) or (0, [])
    assert "--batch-size (now 128), with a new --checkpoint" in lines[0]
    assert lines[1].startswith(f"What was done is kept in {tmp_path}.")


def test_every_remedy_is_an_option_of_its_command() -> None:
    for registered in app.registered_commands:
        callback: Any = registered.callback
        name = callback.__name__
        shown = " ".join(run(name, "--help")[1].split())
        for words in [(name,)] if name != "experiment" else [(name, one) for one in EXPERIMENTS]:
            options = taken(words[1]) if name == "experiment" else inspect.signature(callback).parameters
            found = ending(MemoryError(), Running(words, dict.fromkeys(options)))
            assert found is not None
            for option in re.findall(r"--[a-z-]+", "\n".join(found[1])):
                assert option in shown, (words, found)


# -- a full disk ------------------------------------------------------------------------------------------------------


def full_disk(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space for files whose name has ``path`` in it."""
    real = files.os.replace

    def refused(draft: Path, final: Path) -> None:
        if path in Path(final).name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(draft, final)

    monkeypatch.setattr(files.os, "replace", refused)


@pytest.mark.parametrize("name", ["row-02-panel", "index.html", "results.json", "insertion-rank"])
def test_a_full_disk_is_named_and_the_former_page_stays(
    name: str, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*(word.format(photos) for word in PATCHES), "--checkpoint", "state"]
    assert run(*words, "--seed", "1", "--checkpoint", "former")[0] == 0
    before = {path: path.read_bytes() for path in Path("absence-patches").iterdir() if path.is_file()}
    with monkeypatch.context() as patched:
        full_disk(name, patched)
        code, output = run(*words)
    assert code == 2
    folder = tmp_path / ("state/2" if name.startswith("insertion") else "absence-patches")
    folder = folder / "figures" if name.startswith("row") else folder
    assert f"error: no space left in {folder}, while writing {name[:9]}" in output
    assert "is kept in state. The same command resumes from there" in output
    assert not list(tmp_path.rglob("*.part"))
    for path, content in before.items():
        if name != "results.json" or path.name != "index.html":  # the page is written before the numbers
            assert path.read_bytes() == content
    assert run(*command_in(output))[0] == 0
    assert results("absence-patches")["2"]["patches"]["seed"] == 0


# -- everything else --------------------------------------------------------------------------------------------------


def test_bad_input_stays_one_line_and_a_mistake_of_the_program_shows_itself() -> None:
    nothing = Running((), {})
    assert ending(ValueError("--k 0 must be at least 1"), nothing) == (2, ["error: --k 0 must be at least 1"])
    assert ending(KeyError("unit"), nothing) is None
    shared = RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)")
    assert "/dev/shm" in (ending(shared, nothing) or (0, [""]))[1][0]


def test_of_several_ranks_one_says_that_it_was_stopped(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    stop_at(monkeypatch, FolderImages, "__getitem__", 1, KeyboardInterrupt)
    assert run(*(word.format(photos) for word in PATCHES)) == (130, "")
