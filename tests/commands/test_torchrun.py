"""Whole commands under torchrun: the files are those of one process, and one rank speaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.utils import save_image

pytestmark = pytest.mark.slow


def run(words: str, folder: Path, world: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = (
        f"-m torch.distributed.run --nproc_per_node={world} --rdzv_backend=c10d --rdzv_endpoint=localhost:0".split()
    )
    command = [sys.executable, *(launcher if world > 1 else ()), "-m", "absence_plugins", *words.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    generator = torch.Generator().manual_seed(0)
    for number in range(30):
        path = folder / "images" / ("dark", "light", "middle")[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(1, 32, 32, generator=generator) * (1 + number % 3) / 3, path)
    (folder / "images" / "dark" / "03.png").write_text("no picture")
    return folder


def content(folder: Path, name: str) -> str:
    """A page's or table's text without what differs from run to run: times, folders."""
    return (folder / name).read_text()


@pytest.mark.parametrize(
    ("words", "files", "says"),
    [
        (
            "label --images images --model digits --layer linear1 --batch-size 4",
            ["labels.json", "labels.csv"],
            "linear1: ",
        ),
    ],
)
def test_the_files_are_those_of_one_process_and_one_rank_speaks(
    words: str, files: list[str], says: str, folder: Path
) -> None:
    name = words.split()[0]
    one = run(f"{words} --out {name}-1", folder)
    assert one.returncode == 0, one.stderr
    two = run(f"{words} --out {name}-2 --checkpoint {name}-state", folder, 2)
    assert two.returncode == 0, two.stderr
    for file in files:
        assert content(folder / f"{name}-2", file) == content(folder / f"{name}-1", file)
    assert two.stdout == one.stdout.replace(f"{name}-1", f"{name}-2")
    assert two.stderr.count("03.png") == one.stderr.count("03.png") > 0
    assert two.stderr.count("reading ") == one.stderr.count("reading ")


def test_an_error_of_all_ranks_is_said_once(folder: Path) -> None:
    done = run("label --images images --model digits --layer nowhere --quiet", folder, 2)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "nowhere" in line]
    assert [line.startswith("error: ") for line in lines if not line.startswith("rank 1: ")] == [True]
