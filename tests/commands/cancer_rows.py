"""Rows of breast cancer, a network trained on them, and commands that explain them: shared by the tests of tables."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from typer.testing import CliRunner

from absence_plugins.cli import app

MODELS = """
import numpy as np, torch
from torch import nn
from sklearn.preprocessing import StandardScaler
from absence_plugins import Column

def plain():
    net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    net.load_state_dict(torch.load("net.pt"))
    return net

def scaler():
    kept = np.load("scale.npz")
    found = StandardScaler()
    found.mean_, found.scale_, found.n_features_in_ = kept["mean"], kept["std"], 30
    return found

def build():
    return plain(), scaler(), ["malignant", "benign"]

def unnamed():
    return plain(), scaler()

class Color(nn.Module):  # z = age / 10 - 3 if red: closed form, entries age, blue, red
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1, bias=False)
        self.layer.weight.data = torch.tensor([[0.1, 0.0, -3.0]])
    def forward(self, x):
        return self.layer(x)

color = Color()

def columns():
    return Color(), [Column("age"), Column("color", ("blue", "red"))]

def odd():
    return Color(), object()

class Stopped(Color):  # Ctrl-C while the second row is explained
    def forward(self, x):
        if float(x[0, 0]) == 51:
            raise KeyboardInterrupt
        return super().forward(x)

def stopped():
    return Stopped(), [Column("age"), Column("color", ("blue", "red"))]

def text():
    return "no model"
"""


def write(name: str, head: list[str], rows: list[list[object]], delimiter: str = ",") -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *rows])


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, its scaler, rows and references; trained once, in a second."""
    folder = tmp_path_factory.mktemp("cancer")
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.data))
    train, test = order[:400], order[400:440]
    mean, std = data.data[train].mean(0), data.data[train].std(0)
    inputs = torch.tensor((data.data - mean) / std, dtype=torch.float32)
    truth = torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs[train]), truth[train]).backward()
        optimizer.step()
    torch.save(net.state_dict(), folder / "net.pt")
    np.savez(folder / "scale.npz", mean=mean, std=std)
    for name, places in (("train.csv", train), ("rows.csv", test)):
        head = [*map(str, data.feature_names), "diagnosis"]
        rows = [[*data.data[i].tolist(), str(data.target_names[data.target[i]])] for i in places]
        write(str(folder / name), head, rows)
    (folder / "cancer_models.py").write_text(MODELS)
    return folder


@pytest.fixture
def folder(cancer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory."""
    for path in cancer.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments])
    return result.exit_code, " ".join(result.output.split())


def page(*arguments: str) -> str:
    code, output = run(*arguments, "--out", "page", "--quiet")
    assert code == 0, output
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", Path("page/index.html").read_text(encoding="utf-8"))).split())


USUAL = ("rows.csv", "--table", "--model", "cancer_models:build", "--references", "train.csv", "--label", "diagnosis")


def color(rows: str, references: str, *more: str) -> tuple[int, str]:
    Path("rows2.csv").write_bytes(rows.encode())
    Path("refs.csv").write_text(references, encoding="utf-8")
    return run(
        "rows2.csv",
        "--table",
        "--model",
        "cancer_models:columns",
        "--references",
        "refs.csv",
        "--out",
        "page",
        "--quiet",
        *more,
    )


REFERENCES = "age,color\n10,red\n20,red\n60,blue\n70,blue\n"
