"""``absence-plugins explain --signal`` and ``--volume``: arrays and sounds, a planted event, and wrong inputs."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.kinds.read_signals import read_arrays

MODELS = """
import torch
from torch import nn

class Beat(nn.Module):  # class 1 (missing) = 4 - sum of samples 40 to 49 of the first channel
    def forward(self, x):
        x = x if x.dim() == 2 else x[:, 0]
        event = x[:, 40:50].sum(1)
        return torch.stack([event - 4, 4 - event], 1)

class Convolved(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv1d(channels, 1, 1, bias=False)
        self.layer.weight.data.fill_(1.0)
    def forward(self, x):
        event = self.layer(x)[:, 0, 40:50].sum(1)
        return torch.stack([event - 4, 4 - event], 1)

class Blob(nn.Module):
    def forward(self, x):
        event = x[..., 2:5, 2:5, 2:5].flatten(1).sum(1)
        return torch.stack([event - 9, 9 - event], 1)

def beat():
    return Beat(), ["beat", "pause"]

def one():
    return Convolved(1)

def two():
    return Convolved(2), ["beat", "pause"]

def blob():
    return Blob(), ["blob", "nothing"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Signals with noise; the odd ones have an event in samples 40 to 49."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "signal_models.py").write_text(MODELS)
    random = np.random.default_rng(0)
    signals = 0.05 * random.normal(size=(12, 120))
    signals[1::2, 40:50] += 1.0
    np.save("signals.npy", signals.astype(np.float32))
    Path("labels.csv").write_text("label\n" + "pause\nbeat\n" * 6)
    for number, values in enumerate(signals):
        name = Path("sounds", "beat" if number % 2 else "pause", f"{number}.wav")
        name.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(name, 100, (values * 2**14).astype(np.int16))
    volumes = 0.01 * random.normal(size=(8, 8, 8, 8))
    volumes[1::2, 2:5, 2:5, 2:5] += 1.0
    np.save("volumes.npy", volumes)
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments])
    return result.exit_code, " ".join(result.output.split())


def page(*arguments: str) -> str:
    code, output = run(*arguments, "--out", "page", "--quiet")
    assert code == 0, output
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", Path("page/index.html").read_text(encoding="utf-8"))).split())


def test_the_missing_event_is_found_and_borne_out(folder: Path) -> None:
    said = page(
        "signals.npy",
        "--signal",
        "--rate",
        "100",
        "--model",
        "signal_models:beat",
        "--label",
        "labels.csv",
        "--rows",
        "0",
    )
    assert "Signal 0: class 1 (pause)" in said
    assert "nearest of 6 references of class 0 (beat)" in said or "all 6 references of class 0 (beat)" in said
    span = re.search(r"What is missing: ([\d.]+) to ([\d.]+) s", said)
    assert span is not None
    assert 0.38 <= float(span[1]) < float(span[2]) <= 0.52
    assert "The network bears the map out" in said or "bears it out" in said
    assert "The array [12, 120] was read as 12 signals without an axis of channels" in said
    assert "absence-plugins explain signals.npy --signal --rate 100" in said


def test_sounds_in_folders(folder: Path) -> None:
    said = page(
        "sounds/pause/0.wav", "--signal", "--model", "signal_models:beat", "--references", "sounds", "--target", "pause"
    )
    assert "0.wav: class 1 (pause)" in said
    assert re.search(r"What is missing: 0\.[34]\d* to 0\.[45]\d* s", said)
    assert "the model predicts the label of" in said


@pytest.mark.parametrize(("shape", "factory", "more", "said"), [
    ((12, 120), "one", (), "12 signals of one channel"),
    ((6, 2, 120), "two", (), ""),
    ((12, 120), "beat", ("--channels", "1"), "12 signals of one channel"),
])  # fmt: skip
def test_shapes_are_read_as_the_model_takes_them(
    folder: Path, shape: tuple[int, ...], factory: str, more: tuple[str, ...], said: str
) -> None:
    values = np.load("signals.npy")
    if len(shape) == 3:
        values = np.stack([values[:6], values[:6] * 0], 1)
    np.save("shaped.npy", values)
    assert said in page("shaped.npy", "--signal", "--model", f"signal_models:{factory}", "--rows", "0", *more)


def test_one_signal_of_several_channels(folder: Path) -> None:
    from signal_models import Convolved  # type: ignore[import-not-found]

    np.save("one.npy", np.zeros((2, 120)))
    found = read_arrays([Path("one.npy")], "signal", None, Convolved(2))
    assert found.values.shape == (1, 2, 120)
    assert len(found.names) == 1
    np.save("one.npy", np.zeros(120))
    assert read_arrays([Path("one.npy")], "signal", None, torch.nn.Flatten()).values.shape == (1, 120)
    assert read_arrays([Path("one.npy")], "signal", None, Convolved(1)).values.shape == (1, 1, 120)


def test_sounds_are_scaled_to_one(folder: Path) -> None:
    for kind, full in ((np.int16, 2**15), (np.int32, 2**31), (np.uint8, None), (np.float32, 1)):
        values = (
            np.array([0, 64, 128, 255], np.uint8) if full is None else (np.array([-1.0, 0.5, 0.0]) * full).astype(kind)
        )
        wavfile.write("a.wav", 8000, values)
        found = read_arrays([Path("a.wav")], "signal", None, torch.nn.Flatten())
        wanted = [-1.0, -0.5, 0.0, 127 / 128] if full is None else [-1.0, 0.5, 0.0]
        assert found.values.flatten().tolist() == pytest.approx(wanted)
        assert found.rate == 8000
    wavfile.write("a.wav", 8000, np.zeros((5, 2), np.int16))
    assert read_arrays([Path("a.wav")], "signal", None, torch.nn.Flatten()).values.shape == (1, 2, 5)


def test_a_missing_region_of_a_volume(folder: Path) -> None:
    said = page("volumes.npy", "--volume", "--model", "signal_models:blob", "--rows", "0")
    assert "Volume 0: class 1 (nothing)" in said
    assert re.search(r"What is missing: depth [23] to [345], height [23] to [345], width [23] to [345]", said)


REFUSED = {
    "signals.npy --signal": "--signal needs --model module:factory",
    "none.npy --signal --model signal_models:beat": "none.npy does not exist",
    "text.npy --signal --model signal_models:beat": "text.npy is no array that numpy.save wrote",
    "words.npy --signal --model signal_models:beat": "words.npy holds <U",
    "nan.npy --signal --model signal_models:beat": "signal 1 holds NaN or infinite values",
    "deep.npy --signal --model signal_models:beat": "has the shape [1, 1, 1, 1]; signals are [N, C, T]",
    "signals.npy --volume --model signal_models:blob": "has the shape [12, 120]; volumes are [N, C, D, H, W]",
    "signals.npy --signal --model signal_models:two": "the signals have the shape [12, 120], and the model takes 2 channels",
    "signals.npy --signal --model signal_models:beat --references short.npy": "the signals have the shape [120] and the references [60]",
    "signals.npy --signal --model signal_models:beat --label few.csv": "few.csv has 2 labels, and signals.npy 12 samples",
    "a.wav b.wav --signal --model signal_models:beat": "a.wav has 100 samples per second and b.wav 200; resample them",
    "a.wav c.wav --signal --model signal_models:beat": "a.wav has 5 samples and c.wav 7 samples; cut or pad them",
    "a.wav --signal --rate 50 --model signal_models:beat": "--rate 50: the files say 100 samples per second",
    "bad.wav --signal --model signal_models:beat": "bad.wav is no WAV file that can be read",
    "empty --signal --model signal_models:beat": "folder empty has no .wav files",
    "labels.csv --signal --model signal_models:beat": ".csv: --signal reads .npy and .wav files",
    "signals.npy --signal --rate 0 --model signal_models:beat": "--rate 0.0 must be a positive number",
}


@pytest.mark.parametrize("words", REFUSED)
def test_wrong_input_is_one_line(folder: Path, words: str) -> None:
    Path("text.npy").write_text("no array")
    np.save("words.npy", np.array(["a", "b"]))
    np.save("nan.npy", np.array([[1.0] * 60, [np.nan] * 60]))
    np.save("deep.npy", np.zeros((1, 1, 1, 1)))
    np.save("short.npy", np.zeros((3, 60)))
    Path("few.csv").write_text("label\nbeat\npause\n")
    for name, rate, length in (("a", 100, 5), ("b", 200, 5), ("c", 100, 7)):
        wavfile.write(f"{name}.wav", rate, np.zeros(length, np.int16))
    Path("bad.wav").write_bytes(b"RIFF....WAVE")
    Path("empty").mkdir()
    code, output = run(*words.split(), "--out", "page")
    assert code == 2, output
    assert REFUSED[words] in output
    assert "Traceback" not in output


def test_an_array_with_more_channels_than_samples_is_warned_of(folder: Path) -> None:
    np.save("last.npy", np.zeros((5, 120, 3)))
    note = read_arrays([Path("last.npy")], "signal", None, torch.nn.Identity()).notes[0]
    assert "was read as 5 signals of 120 channels, which come first" in note
    assert read_arrays([Path("last.npy")], "signal", 120, torch.nn.Identity()).notes == ()
