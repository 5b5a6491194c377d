"""File and class names of any bytes and script through a command, its page and its copied command line."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from absence_plugins.cli import app

NAMES = [b"a\nb caf\xe9.png", "-x\u202egnp.png".encode(), "\u732b 'q\" <script>$HOME\x1b[31m.png".encode()]
NETS = """
import torch
from torch import nn
def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 3)).eval()
"""
SETTING = ["--model", "nets:tiny", "--size", "16", "--method", "Occlusion", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("odd names")
    (found / "nets.py").write_text(NETS)
    for number, name in enumerate(NAMES):
        with open(os.path.join(os.fsencode(found), name), "wb") as file:
            Image.new("RGB", (16, 16), (20 * number, 90, 200 - 15 * number)).save(file, "png")
    before = Path.cwd()
    os.chdir(found)
    yield found
    os.chdir(before)
    sys.modules.pop("nets", None)


def run(words: list[str]) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_command_copied_from_its_page_makes_the_same_page(folder: Path) -> None:
    out = "p\udce4ge 'of' \u732b"
    run(["explain", *SETTING, "--out", out, "--", *map(os.fsdecode, NAMES)])
    page = folder / out / "index.html"
    first = page.read_text(encoding="utf-8")
    copied = [html.unescape(text) for text in re.findall(r'data-copy="(absence-plugins [^"]*)"', first)]
    assert len(copied) == len(NAMES) + 1
    words = []
    for line in copied:  # a row's has its heading as a comment behind it
        script = 'absence-plugins() { printf "%s\\0" "$@"; }\n' + line
        pasted = subprocess.run(["bash", "-c", script.encode()], capture_output=True, check=True)
        words.append([os.fsdecode(word) for word in pasted.stdout.split(b"\0")[:-1]])
    assert all(one == words[0] for one in words)
    page.unlink()
    run(words[0])
    assert page.read_text(encoding="utf-8") == first
    for shown in ("b caf\\xe9.png", "-x\\u202egnp.png", "\u732b &#39;q&#34; &lt;script&gt;$HOME\\x1b[31m.png"):
        assert shown in first
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", first)


@pytest.mark.parametrize("setting", [{"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
def test_a_terminal_that_cannot_show_a_name_ends_no_command(folder: Path, setting: dict[str, str]) -> None:
    """Nothing is run, so that it is quick: what is printed at the end of a command and in an error."""
    program = (
        "import typer; from absence_plugins.cli.app import app, clear_errors, say\n"
        "@app.command()\ndef end(name: str):\n    with clear_errors():\n"
        "        print(name); say(name); raise ValueError(f'image {name} does not exist')\n"
        "app()"
    )
    name = "caf\udce9 \u732b \x1b[31m"
    done = subprocess.run(
        [sys.executable, "-c", program, "end", name], env=os.environ | setting, capture_output=True, check=False
    )
    assert done.returncode == 2, done.stderr.decode(errors="replace")
    assert done.stdout.count(b"\n") == 1
    assert b"error: image caf" in done.stderr
    assert b"\\x1b[31m" in done.stderr
