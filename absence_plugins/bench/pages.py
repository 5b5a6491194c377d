"""Tables of the bench in Markdown pages: what stands between two marks is replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path


def require_marks(pages: Sequence[Path], marks: Sequence[str]) -> None:
    """Raise ValueError unless every page is a file with a begin and an end of one of these marks."""
    for page in pages:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        if not any(_pattern(mark).search(text) for mark in marks):
            raise ValueError(f"{page} holds no <!-- {marks[0]}: begin --> ... <!-- {marks[0]}: end -->; add both lines")


def replaced(page: str, mark: str, content: Callable[[], str]) -> str:
    r"""The page with ``content()`` between the marks.

    >>> replaced("<!-- bench x: begin -->\nold\n<!-- bench x: end -->", "bench x", lambda: "new")
    '<!-- bench x: begin -->\n\nnew\n\n<!-- bench x: end -->'
    """
    return _pattern(mark).sub(lambda found: f"{found[1]}\n{content()}\n\n{found[2]}", page)


def _pattern(mark: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {mark}: begin[^>]*-->\n).*?(<!-- {mark}: end -->)", re.DOTALL)
