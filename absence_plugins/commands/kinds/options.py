"""What the command ``explain`` was asked for about rows, texts, signals or volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absence_plugins.core.checks import check_distinct
from absence_plugins.core.names import read_number

MOST = 20  # samples on a page, unless more are asked for


@dataclass(frozen=True)
class KindOptions:
    """The options of ``explain`` for rows, texts, signals and volumes, as typed.

    Attributes:
        kind: "table", "text", "signal" or "volume".
        files: that are explained.
        model, weights: as of ``--model`` and ``--weights``.
        references: a file (of sounds a folder), or None: the other samples of the files.
        label: of rows and texts the column with the class, of signals a file of labels.
        rows: which samples, as "0,5,7"; None: the first ``most``.
        most: so many at most.
        categories: columns whose values are categories.
        missing: what an empty cell counts as: "refuse", "median" or "drop".
        rate: samples of a signal per second.
        channels: of a signal or volume, where the file does not say it.
        classes: names of the outputs, in their order.
        target, nontarget, contrast, k, rule, seed: what is asked.
        out: the page's folder.
        command: for the foot of the page.
        progress: show bars.
    """

    kind: str
    files: tuple[Path, ...]
    model: str
    weights: str = "none"
    references: Path | None = None
    label: str | None = None
    rows: str | None = None
    most: int = MOST
    categories: tuple[str, ...] = ()
    missing: str = "refuse"
    rate: float | None = None
    channels: int | None = None
    classes: tuple[str, ...] = ()
    target: str | None = None
    nontarget: str | None = None
    contrast: str | None = None
    k: int | None = None
    rule: str = "epsilon"
    seed: int = 0
    out: Path = Path("absence-explain")
    command: str = ""
    progress: bool = True

    @property
    def file(self) -> Path:
        """The one file that is explained.

        Raises:
            ValueError: several were named.
        """
        if len(self.files) != 1:
            raise ValueError(f"--{self.kind} takes one file, and {len(self.files)} were named")
        return self.files[0]

    def choose(self, numbers: Sequence[int], noun: str) -> tuple[list[int], list[str]]:
        """The places of the samples that are explained, and what to say of the others.

        numbers: that the samples have, counted in the file.

        Raises:
            ValueError: a number that does not exist, or no number.
        """
        if self.rows is not None:
            wanted = read_numbers("--rows", self.rows)
            places = {number: place for place, number in enumerate(numbers)}
            for number in wanted:
                if number not in places:
                    raise ValueError(
                        f"--rows {number}: there are {noun}s {numbers[0]} to {numbers[-1]}, counted from 0"
                    )
            return [places[number] for number in wanted], []
        said = f"The first {self.most} of {len(numbers)} {noun}s are explained (--rows names others, --most more)."
        return list(range(min(self.most, len(numbers)))), [said] * (len(numbers) > self.most)


def read_numbers(option: str, text: str) -> list[int]:
    """Numbers such as 0,5,8-15.

    Raises:
        ValueError: anything else.

    >>> read_numbers("--rows", "0,5,8-10")
    [0, 5, 8, 9, 10]
    """
    found: list[int] = []
    for part in text.split(","):
        ends = [
            number for one in part.strip().split("-", 1) if (number := read_number(one)) is not None and number >= 0
        ]
        if len(ends) != 1 + part.count("-") or ends[-1] < ends[0]:
            raise ValueError(f"{option} {text!r} must be numbers such as 0,5,8-15, counted from 0")
        if ends[-1] - ends[0] > 1_000_000:
            raise ValueError(f"{option} {text!r} names more than a million")
        found += range(ends[0], ends[-1] + 1)
    return check_distinct(option, found)
