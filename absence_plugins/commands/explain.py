"""``absence-plugins explain``: the demo's maps for a user's own model and images."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from absence_plugins import MadeReferences, ReferenceSet
from absence_plugins.commands.check_methods import recommend_method
from absence_plugins.commands.class_names import find_class
from absence_plugins.commands.image_row import explain_row
from absence_plugins.commands.maps.explainers import CaptumMaps, Explainer, check_method, explainer
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pace import Pace, Passes, say_expected, show_forwards
from absence_plugins.commands.pasting import RANDOM_DRAWS
from absence_plugins.commands.photograph_row import RIVALS, count_forwards
from absence_plugins.commands.predictions import class_of, read_outputs
from absence_plugins.commands.provenance import provenance
from absence_plugins.commands.question import Question
from absence_plugins.commands.references import FolderReferences, choose_references
from absence_plugins.commands.rows import add_warnings, is_of_the_system
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.durations import LONG
from absence_plugins.core.files import require_folder
from absence_plugins.core.names import read_number, spell_name
from absence_plugins.core.pooling import PHOTOGRAPH
from absence_plugins.core.randomness import seeded
from absence_plugins.data.folders import describe_frames, find_images
from absence_plugins.data.pictures import count_frames
from absence_plugins.methods.regions.measure import DRAWS
from absence_plugins.methods.regions.result import BEYOND
from absence_plugins.report import Page, Row, write_page
from absence_plugins.report.unit.interrupt import interruptions

HOW_TO_READ = (
    (
        "Standard map",
        "The target's output against a blank image: what is there and raises it (red) or holds it down (blue).",
    ),
    (
        "Non-target map",
        "Another output, explained on the same image. Blue: content that holds it down, that is, what its unit encodes "
        "as absent.",
    ),
    (
        "Reference map",
        "The target's output on the image, against the nearest reference images; without any, against the image itself "
        "with its content taken out (blurred, grey, or inpainted). It sums to the difference of the outputs.",
    ),
    (
        "Absence part",
        "Of the reference map, the places where the references have content and the image has none: evidence for an "
        "absence. Of an image's own reference: what holds the target down.",
    ),
    (
        "Tests in the network",
        "What the map names is copied from the nearest reference, or blanked: the strongest pixels, in photographs the "
        "strongest connected regions, one by one. The control does the same with the same shape at other places, "
        f"{RANDOM_DRAWS} times ({DRAWS} times in photographs). The network bears a map out if the output moves the "
        f"claimed way, and further than in the control by {BEYOND} standard deviations; the strongest of several regions "
        "also further than the strongest of as many regions elsewhere (p of at most 0.05).",
    ),
)
AUTO = "auto"
NONTARGETS = ("runner_up", "others", "margin", "negated")  # words for --nontarget
FAILURES = (ValueError, TypeError, RuntimeError, ArithmeticError, OSError)  # of one image; the others get their maps
REWRITE = 60.0  # seconds after which a page of what is done so far is written
PIXEL_TESTS = Passes(2 * (RANDOM_DRAWS + 2), 0)  # of the two maps of a small image
CHEAP = 10  # passes of a map; only of such methods several non-targets are asked about


@dataclass(frozen=True, eq=False)
class ExplainedImages:
    """What the command found, and where it was written.

    Attributes:
        page: its path.
        count: of images that have maps.
        failed: the others, with the reason.
        borne: per kind of map, how many of them the network bears out.
    """

    page: Path
    count: int
    failed: tuple[tuple[Path, str], ...] = ()
    borne: Mapping[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """In a line.

        >>> ExplainedImages(Path("page"), 2, (), {"non-target": 1}).summary()
        '2 of 2 images explained; the network bears out 1 of 2 non-target maps'
        """
        total = self.count + len(self.failed)
        maps = " and ".join(f"{number} of {self.count} {kind} maps" for kind, number in self.borne.items())
        said = f"{self.count} of {total} image{'s' * (total != 1)} explained"
        return f"{said}; the network bears out {maps}" if maps else said


def explain_images(
    images: Sequence[Path],
    loaded: LoadedModel,
    out: Path,
    *,
    references: ReferenceSet | None = None,
    method: str = AUTO,
    target: int | str | None = None,
    nontarget: int | str | None = None,
    steps: int | None = None,
    seed: int = 0,
    command: str = "",
    notes: Sequence[str] = (),
    progress: bool = True,
) -> ExplainedImages:
    """One row per image: standard, non-target and (with references) reference map, each tested in the network.

    An image that cannot be explained is left out and named, on the page with the reason, and on stderr. Whatever ends
    the work early, the page of what was done is written.

    With method ``lucent:LAYER:UNIT`` one row: the unit's two sides, rendered in ``steps`` steps, beside the images (and
    references) on which it is highest and lowest.

    Args:
        images: files, or folders of them.
        loaded: the model; it and the random state are as before.
        out: folder of the page.
        references: what to compare with; of a :class:`~absence_plugins.commands.references.FolderReferences` those
            are left out that the model itself gives the explained class, and crops of the same photograph. A
            :class:`~absence_plugins.MadeReferences` compares each image with itself. A method that takes none goes
            without.
        method: as in :func:`~absence_plugins.commands.maps.explainers.explainer`; "auto": the first that is right on
            this model, by :func:`~absence_plugins.commands.check.recommend_method`.
        target: class by number or name; None: the predicted class.
        nontarget: class by number or name, "runner_up", "others", "margin" or "negated"; None: the runner-up, of a
            model with one output nothing. Of maps of logits [B, K, H, W] a class means the sum of its logits over the
            image.
        steps: of the methods that have some.
        seed: of the controls and sampled methods.
        command: for the foot of the page.
        notes: what the reader must know of model and references.
        progress: show a bar, and say how long it will take.

    Raises:
        ValueError: a class that does not exist, a method that cannot show absences, references that do not fit, or
            no image that can be explained, with the reasons.
    """
    is_made = references is not None and references.is_made
    read = references.read if isinstance(references, FolderReferences) else None
    images, left_out = _list_images(images)
    notes = (*notes, *(read.notes if read else ()), *left_out)
    if method.lower().startswith("lucent:"):
        from absence_plugins.commands.unit_page import write_unit_page  # asks for Lucent

        references = None if is_made else references
        page, failed = write_unit_page(
            images, loaded, out, references, method, steps, seed, command, notes, progress=progress
        )
        if read is not None:
            read.write(Path(out))
        return ExplainedImages(page, len(images) - len(failed), failed)
    check_method(method, steps, has_references=references is not None and not is_made)
    require_folder(out)
    with seeded(seed):
        first, unreadable = _first_readable(images, loaded)
        if method == AUTO:
            method = recommend_method(loaded.model, first, loaded.preprocessing.empty.expand_as(first))
        chosen = explainer(method, steps)
        references = None if is_made and chosen.refuse_references() else references
        wanted = _Wanted.read(loaded, first, target, nontarget, references)
        rivals, passes = _plan(chosen, first, wanted, references)
        made = _Work(loaded, chosen, references, wanted, seed, Path(out), command, tuple(notes), rivals)
        if progress:
            pace, count = Pace.measure(loaded.model, first), len(images) - unreadable
            if (
                pace.seconds(passes, count) > LONG
            ):  # worth some forwards more: nearly all are of tests, which run faster
                pace = pace.in_fast_way(loaded.model, first, read_outputs)
            say_expected(
                pace.seconds(passes, count),
                f"explaining with {chosen.name}",
                _shorter(chosen, method, len(images), references),
            )
        found = made.explain(images, passes.total, progress=progress)
    if read is not None:
        read.write(Path(out))
    return found


def _list_images(named: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Of files and folders the files, and what was left out of folders and files, in sentences that are warned of,
    too.
    """
    files: list[Path] = []
    notes: list[str] = []
    for path in named:
        if path.is_dir():
            found = find_images(path)
            files += found.files
            notes += found.notes
        else:
            files.append(path)
    frames = [(path, count_frames(path)) for path in files]
    notes += describe_frames([(spell_name(path.name), count) for path, count in frames if count > 1])
    for note in notes:
        warnings.warn(note, AbsenceWarning, stacklevel=3)
    return files, notes


def _plan(chosen: Explainer, first: Tensor, wanted: _Wanted, references: ReferenceSet | None) -> tuple[int, Passes]:
    """How many non-targets are asked about, and about how many passes one image takes."""
    two = chosen.count_passes(first, 0)
    maps = chosen.count_passes(first, references.k if references is not None else 0)
    if max(first.shape[-2:]) <= PHOTOGRAPH:
        return 1, PIXEL_TESTS + maps
    rivals = RIVALS if wanted.nontarget is None and two.total <= 2 * CHEAP else 1
    more = Passes((rivals - 1) * two.forward // 2, (rivals - 1) * two.backward // 2)
    is_made = references is not None and references.is_made
    return rivals, maps + more + Passes(count_forwards(rivals, references is not None, is_made), 0)


def _first_readable(images: Sequence[Path], loaded: LoadedModel) -> tuple[Tensor, int]:
    """The first image that can be read, as the model's input [1, C, H, W], and how many in front of it cannot."""
    reasons: list[tuple[Path, str]] = []
    for path in images:
        try:
            return loaded.preprocessing.normalize(loaded.preprocessing.picture(path))[None], len(reasons)
        except ValueError as error:
            reasons.append((path, str(error)))
    raise ValueError(_reasons(reasons))


def _reasons(failed: Sequence[tuple[Path, str]]) -> str:
    """Why no image could be explained, each reason once."""
    found = list(dict.fromkeys(why for _, why in failed))
    if not found:
        return "no images were named"
    if len(failed) == 1:
        return found[0]
    return f"none of the {len(failed)} images can be explained: {'; '.join(found)}"


def _without_path(why: str, path: Path) -> str:
    """A reason behind the image's name: as in "a.png: not an image" for "photos/a.png is not an image"."""
    named = spell_name(path)
    return why.removeprefix(f"{named} is ").removeprefix(f"{named} ")


def _shorter(chosen: Explainer, method: str, count: int, references: ReferenceSet | None) -> list[str]:
    """Options that shorten the work, the most useful first."""
    found = [] if method.lower().startswith("relevance") else ["--method relevance"]
    found += ["fewer --steps"] if isinstance(chosen, CaptumMaps) and chosen.has_steps else []
    found += [f"a smaller --k (now {references.k})"] if references is not None and references.k > 1 else []
    return found + (["fewer images"] if count > 1 else [])


@dataclass(frozen=True)
class _Wanted:
    """The classes that were asked for, as numbers; None: the predicted one."""

    target: int | None
    nontarget: int | str | None

    @classmethod
    def read(
        cls,
        loaded: LoadedModel,
        x: Tensor,
        target: int | str | None,
        nontarget: int | str | None,
        references: ReferenceSet | None,
    ) -> _Wanted:
        """Look up names, and check what can be known in front of the first map: classes that do not exist."""
        with torch.no_grad():
            count = read_outputs(loaded.model, x).shape[1]
        t = None if target is None else find_class("--target", str(target), loaded.categories, count)
        other = nontarget
        if nontarget is not None and nontarget not in NONTARGETS:
            try:
                other = find_class("--nontarget", str(nontarget), loaded.categories, count)
            except ValueError as error:
                if read_number(str(nontarget)) is not None:
                    raise
                why = str(error).partition(repr(nontarget))[2].lstrip(": ")
                raise ValueError(
                    f"--nontarget {nontarget!r} must be a class index, {', '.join(NONTARGETS[:-1])}, or "
                    f"{NONTARGETS[-1]}, or the name of a class ({why})"
                ) from None
        if t is not None and other == t:
            raise ValueError(f"--nontarget {nontarget} is the target itself; choose another class, or runner_up")
        contrast = references.contrast if references is not None else None
        if t is not None and contrast == t:
            raise ValueError(f"--contrast: class {t} would be compared with itself; name another class than --target")
        return cls(t, other)


@dataclass(frozen=True, eq=False)
class _Work:
    """The images one by one, and the page of what is done."""

    loaded: LoadedModel
    method: Explainer
    references: ReferenceSet | None
    wanted: _Wanted
    seed: int
    out: Path
    command: str
    notes: tuple[str, ...]
    rivals: int
    rows: list[Row] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    borne: dict[str, int] = field(default_factory=dict)

    def explain(self, images: Sequence[Path], passes: int, *, progress: bool) -> ExplainedImages:
        """All images; ``passes``: forwards of each, for the bar."""
        written, cost = time.monotonic(), 0.0
        bar = show_forwards(self.loaded.model, len(images) * passes, "explaining", progress=progress)
        try:
            with interruptions() as stopped, bar as shown:
                for number, path in enumerate(images, 1):
                    shown.set_description(f"explaining {spell_name(path.name)}")
                    self._explain_one(path, say_so=len(images) > 1, progress=progress)
                    if stopped:
                        raise KeyboardInterrupt
                    shown.total = max(int(shown.n), 1) * len(images) // number  # as the images so far
                    if time.monotonic() - written > max(REWRITE, 10 * cost) and self.rows and number < len(images):
                        start = time.monotonic()
                        self._write(len(images))
                        written, cost = time.monotonic(), time.monotonic() - start
        except BaseException as error:
            if self.rows:
                page = self._write(len(images))
                error.add_note(f"{len(self.rows)} of {len(images)} images are done and on the page {page.resolve()}.")
            raise
        if not self.rows:
            raise ValueError(_reasons(self.failed))
        return ExplainedImages(self._write(len(images)), len(self.rows), tuple(self.failed), self.borne)

    def _explain_one(self, path: Path, *, say_so: bool, progress: bool) -> None:
        verdicts: dict[str, bool] = {}
        name = spell_name(path.name)
        try:
            picture = self.loaded.preprocessing.picture(path)
            asked = Question.ask(picture, self.loaded, self.wanted.target, self.wanted.nontarget)
            chosen = None
            if self.references is not None:
                chosen = choose_references(
                    self.references, asked.x, int(asked.own.contrast()[0][0]), int(class_of(asked.outputs)[0])
                )
            if progress:
                for line in (f"{name}: {asked.describe(self.rivals)}", *(chosen.notes if chosen else ())):
                    tqdm.write(line, file=sys.stderr)
            self.rows.append(
                add_warnings(explain_row, name, asked, self.method, chosen, self.seed, verdicts, self.rivals)
            )
        except FAILURES as error:
            if is_of_the_system(error):
                raise
            why = spell_name(" ".join(str(error).split())) or type(error).__name__
            self.failed.append((path, why))
            if say_so:
                tqdm.write(f"skipped {name}: {_without_path(why, path)}", file=sys.stderr)
            return
        for kind, is_borne in verdicts.items():
            self.borne[kind] = self.borne.get(kind, 0) + is_borne

    def _write(self, total: int) -> Path:
        done, missing = len(self.rows), total - len(self.rows) - len(self.failed)
        count = f"{done} image{'s' if done != 1 else ''}" if done == total else f"{done} of {total} images"
        lead = f"{count}, explained with {self.method.name}. Red raises the explained output, blue holds it down."
        if self.references is None:
            lead += " Without --references FOLDER only the non-target map can show an absence."
        elif isinstance(self.references, MadeReferences):
            lead += (
                f" Without --references, each image is compared with itself, {self.references.filling}: that shows "
                "what holds an output down, not what is missing."
            )
        if missing:
            lead += f" The command was stopped in front of the other{'s' if missing > 1 else ''}."
        if self.failed:
            named = "; ".join(f"{spell_name(path.name)}: {_without_path(why, path)}" for path, why in self.failed)
            lead += f"\n\nNot explained: {named.rstrip('.')}."
        has_references = self.references is not None
        page = Page(
            title="What is there, and what is missing",
            lead=lead + "".join(f"\n\n{note}" for note in self.notes),
            rows=tuple(self.rows),
            how_to_read=HOW_TO_READ if has_references else HOW_TO_READ[:2] + HOW_TO_READ[4:],
            provenance=provenance(seed=self.seed, command=self.command),
        )
        return write_page(page, self.out)
