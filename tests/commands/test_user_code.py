"""Whatever the user's own code raises, wherever: its type, its message, and the last line of its own traceback."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from absence_plugins.cli import app

MODULES = {
    "broken.py": "import numpy as np\nX = np.bool8_gone\ndef build(): pass\n",
    "syntax.py": "def build(:\n    pass\n",
    "first_of_two.py": "from second_of_two import b\ndef a(): pass\n",
    "second_of_two.py": "from first_of_two import a\ndef b(): pass\n",
    "raises_on_import.py": "import sys\nsys.exit('no GPU here')\n",
    "prints.py": """
from torch import nn
print("on import")
class Loud(nn.Linear):
    def forward(self, x):
        print("in forward")
        return super().forward(x)
def build():
    print("in the factory")
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), Loud(12, 3)).eval()
""",
    "nets.py": """
import sys
import torch
from torch import nn
def plain():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)).eval()
class Own(Exception):
    pass
class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = plain(), error
    def forward(self, x):
        if callable(self.error):
            self.error()
        raise self.error
for name, error in {
    "key": KeyError("gone"), "index": IndexError("out of range"), "attribute": AttributeError("no 'foo'"), "zero": ZeroDivisionError(),
    "stop": StopIteration(), "later": NotImplementedError("later"), "mine": RuntimeError("mine"), "own": Own("special"),
    "value": ValueError(), "check": AssertionError(), "leave": SystemExit(3), "leave_well": SystemExit(0),
    "file": FileNotFoundError(2, "No such file", "x.txt"), "call": lambda: sys.exit("enough"), "shape": lambda: torch.ones(2) @ torch.ones(3),
}.items():
    globals()[name] = lambda error=error: Fails(error)
class Hooked(nn.Module):
    def __init__(self, backward):
        super().__init__()
        self.layer = plain()
        self.layer[2].register_forward_hook(self.hook) if not backward else self.layer[2].register_full_backward_hook(self.hook)
    def hook(self, *_):
        raise KeyError("in my hook")
    def forward(self, x):
        return self.layer(x)
def forward_hook():
    return Hooked(False)
def backward_hook():
    return Hooked(True)
class Bent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1
    @staticmethod
    def backward(ctx, slope):
        raise LookupError("in my backward")
class Bends(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = plain()
    def forward(self, x):
        return Bent.apply(self.layer(x))
def factory():
    return {}["nothing"]
def leaves():
    sys.exit(5)
def needs(x):
    return plain()
def half():
    return plain().half()
def bfloat():
    return plain().bfloat16()
def double():
    return plain().double()
""",
}
FORWARD = r"\(nets.py, line \d+, in forward\)$"
CASES = {
    "broken:build": r"module 'broken' fails on import with AttributeError: module 'numpy' has no.*\(broken.py, line 2\)$",
    "syntax:build": r"module 'syntax' fails on import with SyntaxError: invalid syntax \(syntax.py, line 1\)$",
    "first_of_two:a": r"fails on import with ImportError: cannot import name 'a'.*circular import.*\(second_of_two.py, line 1\)$",
    "raises_on_import:a": r"fails on import with SystemExit: no GPU here \(raises_on_import.py, line 2\)$",
    "sys:exit": r"sys:exit fails with SystemExit$",
    "os:getcwd": r"os:getcwd must return a torch.nn.Module, got str$",
    "nets:factory": r"nets:factory fails with KeyError: 'nothing' \(nets.py, line \d+, in factory\)$",
    "nets:leaves": r"nets:leaves fails with SystemExit: 5 \(nets.py, line \d+, in leaves\)$",
    "nets:needs": r"nets:needs is called without arguments, which fails: missing a required argument: 'x'$",
    "nets:": r"'' is no name of a function or model in nets; write module:factory$",
    "nets:plain:b": r"'plain:b' is no name of a function or model in nets; write module:factory$",
    ".nets:plain": r"'.nets' is no name of a module, as in `import nets`; write nets:plain$",
    "nets/a.py:plain": r"write nets.a:plain$",
    "nets:key": rf"KeyError: 'gone' {FORWARD}",
    "nets:index": rf"IndexError: out of range {FORWARD}",
    "nets:attribute": rf"AttributeError: no 'foo' {FORWARD}",
    "nets:zero": rf"ZeroDivisionError {FORWARD}",
    "nets:stop": rf"StopIteration {FORWARD}",
    "nets:later": rf"NotImplementedError: later {FORWARD}",
    "nets:mine": rf"RuntimeError: mine {FORWARD}",
    "nets:own": rf"Own: special {FORWARD}",
    "nets:value": rf"ValueError {FORWARD}",
    "nets:check": rf"AssertionError {FORWARD}",
    "nets:file": rf"FileNotFoundError: \[Errno 2\] No such file: 'x.txt' {FORWARD}",
    "nets:leave": rf"SystemExit: 3 {FORWARD}",
    "nets:leave_well": rf"SystemExit: 0 {FORWARD}",
    "nets:call": r"SystemExit: enough \(nets.py, line \d+, in <lambda>\)$",
    "nets:shape": r"RuntimeError: .*\(nets.py, line \d+, in <lambda>\)$",
    "nets:forward_hook": r"KeyError: 'in my hook' \(nets.py, line \d+, in hook\)$",
    "nets:backward_hook": r"KeyError: 'in my hook' \(nets.py, line \d+, in hook\)$",
    "nets:Bends": r"LookupError: in my backward \(nets.py, line \d+, in backward\)$",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("own code")
    for name, text in MODULES.items():
        (found / name).write_text(text)
    Image.new("RGB", (16, 16), (200, 90, 20)).save(found / "a.png")
    before = Path.cwd()
    os.chdir(found)
    yield found
    os.chdir(before)
    for name in MODULES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.parametrize("model", CASES)
def test_an_error_of_the_users_code_is_said_as_it_is(model: str, folder: Path) -> None:
    method = "Saliency" if model in ("nets:backward_hook", "nets:Bends") else "Occlusion"
    words = ["explain", "a.png", "--model", model, "--size", "16", "--quiet", "--method", method]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("The weights", "Images:", "warning:"))]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert re.search(CASES[model], lines[0]), lines[0]
    assert done.stdout == ""
    assert not (folder / "absence-explain").exists()


@pytest.mark.parametrize("model", ["half", "bfloat", "double"])
def test_the_type_of_the_weights_is_met(model: str, folder: Path) -> None:
    words = ["explain", "a.png", "--model", f"nets:{model}", "--size", "16", "--quiet", "--method", "Saliency"]
    done = CliRunner().invoke(app, [*words, "--out", model])
    assert done.exit_code == 0, done.output
    assert (folder / model / "index.html").is_file()


def test_what_a_module_prints_is_not_the_result(folder: Path) -> None:
    done = CliRunner().invoke(
        app, ["check", "prints:build", "a.png", "--size", "16", "--budget", "0", "--json", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    for said in ("on import", "in the factory", "in forward"):
        assert said in done.stderr
