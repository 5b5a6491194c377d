"""The one walk over samples of any kind: each is explained, failures are named, and whatever ends it leaves a page."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tqdm.auto import tqdm

from absence_plugins.commands.explain import FAILURES, REWRITE
from absence_plugins.commands.kinds.finding import HEAD, MISSING, PRESENT, Finding
from absence_plugins.commands.kinds.options import KindOptions
from absence_plugins.commands.kinds.page import write_findings
from absence_plugins.commands.rows import is_of_the_system
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.files import require_folder
from absence_plugins.core.names import spell_name
from absence_plugins.core.randomness import seeded
from absence_plugins.core.table import align
from absence_plugins.report.unit.interrupt import interruptions


class Explained(Protocol):
    """Samples that can be explained one by one."""

    @property
    def noun(self) -> str:
        """What a sample is: "row", "text", "signal" or "volume"."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def name(self, number: int) -> str:
        """Of one sample, as "Row 5"."""
        ...

    def explain(self, number: int) -> Finding:
        """Explain one sample."""
        ...


@dataclass(frozen=True, eq=False)
class ExplainedSamples:
    """What the command found, and where it was written.

    Attributes:
        page: its path.
        noun: what a sample is.
        findings: of the samples that were explained.
        failed: the names of the others, with the reason.
    """

    page: Path
    noun: str
    findings: tuple[Finding, ...]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def borne(self) -> Mapping[str, int]:
        """Of how many samples the network bears out what is missing, and what is there."""
        return count_borne(self.findings)

    def summary(self) -> str:
        """A table, and a line."""
        done, total = len(self.findings), len(self.findings) + len(self.failed)
        said = f"{done} of {total} {self.noun}{'s' * (total != 1)} explained; the network bears out what is missing in "
        said += f"{self.borne['missing']}, and what is there in {self.borne['present']}"
        return "\n".join([*align([HEAD, *(one.line() for one in self.findings)], left=(0, 1, 2, 5, 6)), said])


def explain_samples(
    samples: Explained, options: KindOptions, *, title: str, notes: Sequence[str] = ()
) -> ExplainedSamples:
    """Explain all samples, and write the page.

    A sample that cannot be explained is left out and named, on the page with the reason, and on stderr. Whatever ends
    the work early, the page of what was done is written.

    Raises:
        ValueError: no sample can be explained, with the reasons.
    """
    out = require_folder(options.out)
    with seeded(options.seed):
        walk = _Walk(samples, out, title, tuple(notes), options.seed, options.command)
        return walk.run(progress=options.progress)


@dataclass(frozen=True, eq=False)
class _Walk:
    samples: Explained
    out: Path
    title: str
    notes: tuple[str, ...]
    seed: int
    command: str
    findings: list[Finding] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def run(self, *, progress: bool) -> ExplainedSamples:
        written, cost, total = time.monotonic(), 0.0, len(self.samples)
        bar = tqdm(total=total, desc="explaining", unit=self.samples.noun, disable=not progress)
        try:
            with interruptions() as stopped, bar:
                for number in range(total):
                    self._explain_one(number, say_so=total > 1)
                    bar.update()
                    if stopped:
                        raise KeyboardInterrupt
                    if time.monotonic() - written > max(REWRITE, 10 * cost) and self.findings and number + 1 < total:
                        start = time.monotonic()
                        self._write()
                        written, cost = time.monotonic(), time.monotonic() - start
        except BaseException as error:
            if self.findings:
                page = self._write()
                done = f"{len(self.findings)} of {total} {self.samples.noun}s"
                error.add_note(f"{done} are done and on the page {page.resolve()}.")
            raise
        if not self.findings:
            reasons = list(dict.fromkeys(why for _, why in self.failed))
            many = f"none of the {total} {self.samples.noun}s can be explained: " if total > 1 else ""
            raise ValueError(f"{many}{'; '.join(reasons)}")
        return ExplainedSamples(self._write(), self.samples.noun, tuple(self.findings), tuple(self.failed))

    def _explain_one(self, number: int, *, say_so: bool) -> None:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", AbsenceWarning)
                found = self.samples.explain(number)
        except FAILURES as error:
            if is_of_the_system(error):
                raise
            why = spell_name(" ".join(str(error).split())) or type(error).__name__
            self.failed.append((self.samples.name(number), why))
            if say_so:
                tqdm.write(f"skipped {self.samples.name(number)}: {why}", file=sys.stderr)
            return
        said = dict.fromkeys(str(warning.message) for warning in caught)
        self.findings.append(replace(found, notes=(*found.notes, *(f"{text}." for text in said))))

    def _write(self) -> Path:
        done, total = len(self.findings), len(self.samples)
        missing = total - done - len(self.failed)
        noun = self.samples.noun
        count = f"{done if done == total else f'{done} of {total}'} {noun}{'s' * (total != 1)}"
        lead = [f"{count}, compared with real references by exact relevance."]
        if missing:
            lead[0] += f" The command was stopped in front of the other{'s' * (missing > 1)}."
        if self.failed:
            lead.append(f"Not explained: {'; '.join(f'{name}: {why}' for name, why in self.failed).rstrip('.')}.")
        borne = count_borne(self.findings)
        verdict = (
            f"The network bears out what is missing in {borne['missing']} of {done}, and what is there in "
            f"{borne['present']}."
        )
        return write_findings(self.findings, self.out, self.title, lead, self.notes, self.seed, self.command, verdict)


def count_borne(findings: Sequence[Finding]) -> dict[str, int]:
    """In how many samples the network bears out what is missing, and what is there."""
    return {
        part: sum(part in one.tests and one.tests[part].is_borne for one in findings) for part in (MISSING, PRESENT)
    }
