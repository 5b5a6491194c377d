"""The wheel holds what belongs in it, and works where only torch, or not even torch, is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("captum", "zennit", "lucent", "matplotlib", "jinja2", "torchvision", "PIL", "timm", "transformers", "skimage")
pytestmark = [pytest.mark.slow, pytest.mark.needs("setuptools")]

# Modules that fail when they are imported, as if they were not installed.
BLOCKED = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.path.insert(0, {place!r})
sys.path[:] = [each for each in sys.path if each]
sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in repr(each)]
{code}
import absence_plugins
assert absence_plugins.__file__.startswith({place!r}), absence_plugins.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree, as building writes into it."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    shutil.copytree(ROOT / "absence_plugins", tree / "absence_plugins", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", str(folder), str(tree)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel alone is installed."""
    folder = tmp_path_factory.mktemp("bare")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(place: Path, code: str, *blocked: str, folder: Path) -> str:
    """What the code prints where the named packages are missing."""
    program = BLOCKED.format(blocked=set(blocked), place=str(place), code=code)
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_package_is_in_it(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("absence_plugins/")}
    files = (path for path in (ROOT / "absence_plugins").rglob("*") if path.is_file())
    wanted = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert held == wanted
    assert {"absence_plugins/py.typed", "absence_plugins/data/digits_cnn.safetensors"} <= held
    templates = {name.rpartition("/")[2] for name in held if "/report/pages/templates/" in name}
    assert {"page.html.jinja", "page.css", "page.js"} <= templates


def test_nothing_else_is_in_it(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops == {"absence_plugins", f"absence_plugins-{wheel.name.split('-')[1]}.dist-info"}


def test_what_it_says_of_itself(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        about = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    said = Parser().parsestr(about["METADATA"])
    assert said["Name"] == "absence-plugins"
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Requires-Python"] == ">=3.11"
    required = [text for text in said.get_all("Requires-Dist") if "extra ==" not in text]
    assert {text.partition(">")[0] for text in required} >= {"torch", "numpy", "typer"}
    assert not {text.partition(">")[0] for text in required} & set(EXTRAS)
    assert {"captum", "zennit", "lucent", "report", "all"} <= set(said.get_all("Provides-Extra"))
    assert said.get_payload().lstrip().startswith("#"), "the README"
    assert "absence-plugins = absence_plugins.cli:app" in about["entry_points.txt"]
    assert "default_maps" in about["entry_points.txt"]
    assert "LICENSE" in about


def test_it_imports_without_extras_and_the_core_works(place: Path, tmp_path: Path) -> None:
    code = """
import torch
import absence_plugins.core, absence_plugins.relevance
from absence_plugins import Unit
net = torch.nn.Sequential(torch.nn.Linear(2, 1))
print(absence_plugins.__version__, Unit("0", 0).values(net, torch.ones(1, 2)).shape)
"""
    assert "torch.Size([1])" in run(place, code, *EXTRAS, folder=tmp_path)


def test_it_imports_and_helps_without_torch(place: Path, tmp_path: Path) -> None:
    code = """
import absence_plugins
from absence_plugins.cli import app
try:
    app(["--help"], prog_name="absence-plugins")
except SystemExit as end:
    assert end.code == 0
"""
    said = run(place, code, "torch", *EXTRAS, folder=tmp_path)
    assert "explain" in said
    assert "bench" in said


@pytest.mark.parametrize("host", ["captum", "zennit", "lucent"])
def test_a_missing_host_is_one_line_with_the_remedy(place: Path, tmp_path: Path, host: str) -> None:
    code = f"""
try:
    import absence_plugins.{host}
except ImportError as error:
    print(error)
"""
    assert f'pip install "absence-plugins[{host}]"' in run(place, code, *EXTRAS, folder=tmp_path)
