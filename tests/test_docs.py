"""Every code block of README.md and docs/ runs: each page top to bottom, in one namespace."""

from __future__ import annotations

import doctest
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
]
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>[^\n`]*)\n(?P<code>.*?)^ *(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
CELL = "{code-cell} ipython3"  # of the tutorials, which the docs build runs in a kernel
EXECUTED = {"python", "pycon", CELL}
LONG = {"debias", "directions", "patches", "planted", "report"}  # train or scan for seconds
NEEDS = {"text": "transformers"}  # of the dev extra
# What the docs build runs itself, with an error for a warning (.ci/run): tutorials, and the pages whose pictures it draws.
GALLERIES = re.compile(r"^GALLERIES = (.*)$", re.MULTILINE)
DRAWN = re.findall(r'"([\w-]+\.md)"', "".join(GALLERIES.findall((ROOT / "docs/conf.py").read_text(encoding="utf-8"))))
RUN = [page for page in PAGES if page.parent.name != "tutorials" and page.name not in DRAWN]


@dataclass(frozen=True)
class Block:
    """One fenced block: what is written behind the fence, the code, and its first line's number."""

    info: str
    code: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    for match in FENCE.finditer(page):
        line = page.count("\n", 0, match.start("code")) + 1
        yield Block(match["info"].strip(), textwrap.dedent(match["code"]), line)


def run(page: str, name: str) -> dict[str, Any]:
    """Execute a page's Python blocks in one namespace, which is returned."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.info in ("python", CELL) and ">>> " not in block.code:
            # Blank lines in front, so that a traceback shows the line of the page.
            exec(compile("\n" * (block.line - 1) + block.code, name, "exec"), namespace)
        elif block.info in EXECUTED:
            _check_session(block, namespace, name)
    return namespace


def _check_session(block: Block, namespace: dict[str, Any], name: str) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    session = doctest.DocTestParser().get_doctest(block.code, {}, name, name, block.line - 1)
    session.globs = namespace
    runner = doctest.DocTestRunner(optionflags=flags)
    report: list[str] = []
    if runner.run(session, out=report.append, clear_globs=False).failed:
        pytest.fail("".join(report))


def check_marks(page: str, name: str) -> None:
    """Raise ValueError for a Python block that neither these tests nor the docs build would execute."""
    for block in blocks(page):
        if "py" in block.info and block.info not in EXECUTED:
            raise ValueError(
                f"{name}:{block.line}: block marked {block.info!r}; every Python block is executed "
                f"and marked plainly as one of {sorted(EXECUTED)}"
            )


def test_every_python_block_is_marked_plainly() -> None:
    assert DRAWN
    for page in PAGES:
        check_marks(page.read_text(encoding="utf-8"), page.name)
    for name in DRAWN:  # conf.py runs these alone
        assert {b.info for b in blocks((ROOT / "docs" / name).read_text(encoding="utf-8"))} <= {"python", "text"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=[
                *[pytest.mark.slow] * (page.stem in LONG),
                *[pytest.mark.needs(NEEDS.get(page.stem))] * (page.stem in NEEDS),
            ],
        )
        for page in RUN
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    torch.manual_seed(0)
    np.random.seed(0)
    run(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))


def test_every_picture_of_the_galleries_is_made_by_their_code() -> None:
    """docs/conf.py draws them when the docs are built; in the repository there are none that could go stale."""
    for page in (ROOT / "docs").glob("gallery*.md"):
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"^!\[[^\]]+\]\(_generated/([^)]+)\)$", text, re.MULTILINE)
        made = re.findall(r'figure\.savefig\("([^"]+)"\)', "".join(block.code for block in blocks(text)))
        assert made
        assert sorted(shown) == sorted(made)
        assert page.name in (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")


LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")


def anchors(page: str) -> set[str]:
    """Of the headings of a page, as GitHub and MyST make them."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_links_between_pages_lead_to_a_file_and_a_heading() -> None:
    made = ROOT / "docs" / "_generated"  # pictures that the build of the docs draws
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        for link in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
            target = (page.parent / link["path"]).resolve() if link["path"] else page
            assert target.parent == made or target.exists(), f"{page}: {link[0]}"
            if link["anchor"]:
                assert link["anchor"] in anchors(target.read_text(encoding="utf-8")), f"{page}: {link[0]}"


def test_what_people_search_for_stands_in_a_heading() -> None:
    headings = "\n".join(
        line.lower()
        for page in PAGES
        for line in FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
        if line.startswith("#")
    )
    for words in (
        "my own concept labels", "a hidden unit", "several gpus", "resume", "what red means", "my model is from timm",
        "which references for photographs", "install", "quick start",
    ):  # fmt: skip
        assert words in headings, words


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 120


def test_a_page_is_executed_in_order_and_checked() -> None:
    page = "```python\nx = 1\n```\n\n- item\n\n  ```pycon\n  >>> x + 1\n  {}\n  ```\n"
    run(page.format(2), "right.md")
    with pytest.raises(pytest.fail.Exception, match="Expected"):
        run(page.format(3), "wrong.md")


@pytest.mark.parametrize("info", ["python no-run", "{code-block} python", "py", "{doctest} python"])
def test_a_python_block_cannot_be_left_out(info: str) -> None:
    with pytest.raises(ValueError, match="every Python block is executed"):
        check_marks(f"```{info}\n1 / 0\n```\n", "page.md")
