"""What is typed wrong is said before torch is imported, by every command; of names that do not exist the nearest."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from absence_plugins.cli import app

# What is typed, by which words it is answered; {} is a folder with photos/, a.png, table.csv and the module nets.
CASES: dict[str, str] = {
    "explian": r"No such command 'explian'",
    "explain a.png --refrences photos": r"No such option: --refrences.*--references",
    "explain b.png": r"image b.png does not exist",
    "explain a.jpg": r"image a.jpg does not exist; there is a.png$",
    "explain a.png --references photo": r"references folder photo does not exist; there is photos",
    "explain a.png --model torchvision:resnet81": r"no classification model 'resnet81'; it has: resnet18, .* and \d+ more",
    "explain a.png --model torchvison:resnet18": r"no such module; did you mean torchvision:resnet18",
    "explain a.png --model resnet18": r"must be torchvision:NAME, timm:NAME",
    "explain a.png --model hf:photos": r"photos has no config.json",
    "explain a.png --model nets/own.py:net": r"write nets.own:net",
    "explain a.png --weights none.pt": r"weights file none.pt does not exist",
    "explain a.png --contrast cat": r"--contrast 'cat' needs --references",
    "explain a.png --method oclusion": r"there are: Occlusion, ",
    "explain a.png --method zennit:epsilon_gama": r"there are: zennit:epsilon_gamma, ",
    "explain a.png --method relevance:epsilom": r"no rule 'epsilom'; there are: epsilon, ",
    "explain a.png --method lucent:layer3:7 --target 1": r"names its unit itself",
    "explain a.png --reference-kind gray": r"--reference-kind 'gray' must be one of grey, ",
    "explain a.png --reference-kind pixels": r"it needs --references FOLDER",
    "explain a.png --steps 5": r"--steps needs --method",
    "explain a.png --steps 0 --method IntegratedGradients": r"--steps 0 must be at least 1",
    "explain a.png --size 0": r"--size 0 must be at least 1",
    "explain a.png --size x": r"--size.*valid int",
    "explain a.png --k 0": r"--k 0 must be at least 1",
    "explain a.png --mean red": r"--mean 'red' must be comma-separated numbers",
    "explain a.png --out a.png": r"a.png is an existing file",
    "patches phots --model nets:net --layer 0": r"folder phots does not exist; there is photos",
    "patches --layer conv3 --units a": r"--units 'a' must be unit numbers",
    "patches --layer conv3 --mode crp": r"--mode 'crp' must be one of crop, mask",
    "patches --layer conv3 --protocol papr": r"--protocol 'papr' must be one of controlled, paper",
    "patches --layer conv3 --reduce avg": r"--reduce 'avg' must be one of mean, max",
    "patches --layer conv3 --channels lst": r"--channels 'lst' must be auto",
    "patches --layer conv3 --patch 0": r"--patch 0 must be at least 1",
    "patches --layer conv3 --images-per-unit 2": r"--images-per-unit 2 must be at least 3",
    "patches --layer conv3 --checkpoint a.png": r"a.png is an existing file",
    "patches --model torchvision:resnet18 --layer fc": r"name a folder of images",
    "label --attributes table.csv": r"name that folder too",
    "label --images photos --labels table.csv --labels-threshold atuo": r"'atuo' must be one number for all concepts, or auto",
    "label --images photos --labels-minus absent": r"say how --labels are read; name that file",
    "label --mode low": r"--mode 'low' must be one of positive, negative",
    "label --images phots": r"images folder phots does not exist; there is photos",
    "label --images photos --attributes tables.csv": r"attributes file tables.csv does not exist; there is table.csv",
    "label --images photos --hypernyms photos": r"hypernyms file photos is a folder",
    "label --model nets:net --layer 0": r"--images must name a folder",
    "label --holdout 2": r"--holdout 2.0 must be between 0 and 1",
    "directions phots --layer layer4": r"images folder phots does not exist",
    "directions photos --layer layer4 --count 1": r"--count 1 must be at least 2",
    "directions photos --layer layer4 --background virtul": r"--background 'virtul' must be one of none, virtual",
    "directions photos --layer layer4 --recipe robst": r"--recipe 'robst' must be one of robust, paper",
    "directions photos --layer layer4 --model torchvision:resnt18": r"it has: resnet18, ",
    "report phots": r"folder phots does not exist",
    "report --model nets:net": r"name a folder of images",
    "report --skip map": r"--skip 'map' is not known; there are: maps, pictures",
    "report --directions 1": r"--directions 1 must be 0 \(none\), or 2 or more",
    "report --attributes table.csv": r"name that folder too",
    "check nets:net b.png": r"image file b.png does not exist",
    "check digit": r"must be torchvision:NAME",
    "check digits --budget -1": r"--budget -1.0 must be at least 0",
    "demo --pairs 0": r"--pairs 0 must be at least 1",
    "demo --out a.png": r"a.png is an existing file",
    "demo --findings 3": r"--findings belongs to demo --photos; of digits it is --pairs",
    "demo --photos --pairs 3": r"--pairs belongs to the demo on digits; with --photos it is --findings",
    "demo --photos --findings 0": r"--findings 0 must be at least 1",
    "experiment digit": r"experiment 'digit' does not exist; there are: digits, ",
    "experiment digits --data photos": r"takes no --data; it takes: --checkpoint, --seed",
    "experiment imagenet": r"needs --data FOLDER",
    "experiment imagenet --data photos --model vgg16": r"none of the published networks: vgg19",
    "experiment debias --data phots": r"data folder phots does not exist",
    "experiment debias --data photos --model resnt18": r"it has: resnet18, ",
    "experiment directions-synthetic --seeds 0": r"--seeds 0 must be at least 1",
    "bench captun": r"bench 'captun' does not exist; there are: captum, ",
    "bench --rounds 0": r"--rounds 0 must be at least 1",
    "bench --device gpu": r"--device 'gpu' must be one of auto, cpu, cuda",
    "bench captum --into page.md": r"--into belongs to bench planted, models, references, directions and kinds",
}
WITHOUT_TORCH = """
import contextlib, io, json, shlex, sys
import typer
sys.modules["torch"] = None  # whoever imports it fails
from absence_plugins.cli import app
command = typer.main.get_command(app)
said = {}
for words in json.load(sys.stdin):
    written, code = io.StringIO(), None
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        try:
            command(shlex.split(words), prog_name="absence-plugins")
        except SystemExit as end:
            code = end.code
    said[words] = (code, " ".join(written.getvalue().replace("\\u2502", " ").split()))
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and output of every case, all in one process that has no torch."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "photos").mkdir()
    (folder / "nets.py").write_text("")
    for name in ("a.png", "table.csv"):
        (folder / name).touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input=json.dumps([*CASES, "--help"]), cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert sorted(path.name for path in Path(folder).iterdir() if path.name != "__pycache__") == [
        "a.png", "nets.py", "photos", "table.csv",
    ]  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("words", CASES)
def test_what_is_typed_wrong_is_said_without_torch(words: str, said: dict[str, tuple[int, str]]) -> None:
    code, text = said[words]
    assert code == 2
    assert re.search(CASES[words], text), text
    assert "torch" not in text.replace("torchvision", "").replace("torchvison", "")


def test_help_needs_no_torch(said: dict[str, tuple[int, str]]) -> None:
    assert said["--help"][0] == 0
    assert "explain" in said["--help"][1]


def test_every_command_has_cases() -> None:
    assert {words.split()[0] for words in CASES} >= {command.callback.__name__ for command in app.registered_commands}
