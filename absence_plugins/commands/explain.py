"""``absence-plugins explain``: the demo's maps for a user's own model and images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins import ReferenceSet
from absence_plugins.commands.maps.explainers import Explainer, explainer
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pasting import PixelTest, insert_missing, remove_suppressor
from absence_plugins.commands.provenance import provenance
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_integer
from absence_plugins.core.choices import Choice, choose
from absence_plugins.core.files import require_folder
from absence_plugins.core.outputs import class_sums, shrunk
from absence_plugins.core.randomness import seeded
from absence_plugins.core.scores import logits_of
from absence_plugins.report import Page, Panel, Row, write_page

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
        "The target's output on the image, against the nearest reference images. It sums to the difference of the "
        "outputs.",
    ),
    (
        "Absence part",
        "Of the reference map, the places where the references have content and the image has none: evidence for an "
        "absence.",
    ),
    (
        "Pixel tests",
        "The strongest pixels are copied from the nearest reference, or blanked; the control does the same at random "
        "places, 32 times.",
    ),
)

HOW_TO_READ_UNIT = (
    (
        "Drives it up, drives it down",
        "Two pictures that begin as the same noise and are changed step by step; one raises the unit's value, the "
        "other lowers it. "
        "Feature visualization usually shows only the first.",
    ),
    ("Real", "The images on which the value is highest and lowest; at most half of the images on each side."),
    (
        "What the second picture says",
        "It shows what the unit is held down by: what it encodes as absent, where the unit is otherwise active. It is "
        "no proof: "
        "a picture far outside the real values may show what no real image has.",
    ),
)


def explain_images(
    images: Sequence[Path],
    loaded: LoadedModel,
    out: Path,
    *,
    references: ReferenceSet | None = None,
    method: str = "relevance",
    target: int | None = None,
    nontarget: int | str | None = None,
    steps: int = 256,
    seed: int = 0,
    command: str = "",
    notes: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """One row per image: standard, non-target and (with references) reference map, each tested on pixels.

    With method ``lucent:LAYER:UNIT`` one row: the unit's two sides, rendered in ``steps`` steps, beside the images (and
    references) on which it is highest and lowest.

    target: class index; None: the predicted class. nontarget: class index, "runner_up", "others", "margin" or
    "negated"; None: the runner-up, of a model with one output nothing. Of maps of logits [B, K, H, W] a class means the
    sum of its logits over the image. ``notes``: what the reader must know of model and references. Returns the page's path; the model and the
    random state are as before.

    Raises:
        ValueError: a class that does not exist, a model that ends in softmax, a method that cannot show
            absences, references that do not fit.
    """
    if method.lower().startswith("lucent:"):
        return _unit_page(images, loaded, out, references, method, steps, seed, command, notes, progress=progress)
    chosen = explainer(method)
    if references is not None and chosen.refuse_references():
        raise ValueError(f"--method {method} takes no --references: {chosen.refuse_references()}")
    require_folder(out)
    pictures = [loaded.preprocessing.picture(Path(path)) for path in images]
    with seeded(seed):
        rows = [
            _add_warnings(_row, Path(path).name, picture, loaded, chosen, references, target, nontarget, seed)
            for path, picture in tqdm(list(zip(images, pictures, strict=True)), desc="explaining", disable=not progress)
        ]
    page = Page(
        title="What is there, and what is missing",
        lead=f"{len(rows)} image{'s' if len(rows) != 1 else ''}, explained with {chosen.name}. Red raises the explained output, blue holds it down."
        + (
            ""
            if references is not None
            else " Without --references FOLDER only the non-target map can show an absence."
        )
        + "".join(f"\n\n{note}" for note in notes),
        rows=tuple(rows),
        how_to_read=HOW_TO_READ if references is not None else HOW_TO_READ[:2] + HOW_TO_READ[4:],
        provenance=provenance(seed=seed, command=command),
    )
    return write_page(page, Path(out))


def _unit_page(
    images: Sequence[Path],
    loaded: LoadedModel,
    out: Path,
    references: ReferenceSet | None,
    method: str,
    steps: int,
    seed: int,
    command: str,
    notes: Sequence[str],
    *,
    progress: bool,
) -> Path:
    """The page of ``lucent:LAYER:UNIT``."""
    from absence_plugins.commands.maps.lucent import SMALL, UnitName, unit_row

    unit = UnitName.parse(method)
    check_integer("--steps", steps)
    require_folder(out)
    pictures = torch.stack([loaded.preprocessing.picture(Path(path)) for path in images])
    if references is not None:
        pictures = torch.cat([pictures, _picture(references.images[0], loaded)])
    row = _add_warnings(
        partial(unit_row, steps=steps, seed=seed, progress=progress),
        loaded.model,
        unit,
        pictures,
        loaded.preprocessing.normalize,
    )
    lead = (
        f"{unit.shown[0].upper()}{unit.shown[1:]}: what raises it and what lowers it, as pictures optimized with "
        "Lucent, each beside the real images on which it is highest and lowest. Values are those before the "
        "nonlinearity; a convolution's channel counts with its mean over the image."
    )
    if loaded.preprocessing.size < SMALL:
        lead += f" Images below {SMALL} pixels a side are optimized without random shifts and rotations."
    if references is None:
        lead += "\n\nThe real images are only those named on the command line; --references FOLDER adds more."
    page = Page(
        title="What raises a unit, and what suppresses it",
        lead=lead + "".join(f"\n\n{note}" for note in notes),
        rows=(row,),
        how_to_read=HOW_TO_READ_UNIT,
        provenance=provenance(seed=seed, command=command),
    )
    return write_page(page, Path(out))


def _add_warnings(row: Callable[..., Row], *arguments: Any) -> Row:
    """A row whose sentence ends with what the adapters warned of: the page is read without its console."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AbsenceWarning)
        made = row(*arguments)
    said = list(dict.fromkeys(str(warning.message) for warning in caught))
    return replace(made, sentence=" ".join([made.sentence, *(f"Note: {text}." for text in said)]))


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked about one image: the target's output, and another one that its content may hold down.

    x: the input [1, C, H, W]. own, other: the two outputs; other is None where the model has a single one. asked: the
    other one as a method takes it, a class or a word.
    """

    picture: Tensor
    loaded: LoadedModel
    x: Tensor
    outputs: Tensor
    own: Choice
    other: Choice | None
    asked: int | str

    @classmethod
    def ask(cls, picture: Tensor, loaded: LoadedModel, target: int | None, nontarget: int | str | None) -> _Question:
        """Choose target and non-target. Raises ValueError for a target that does not exist, and outputs that are no
        logits.
        """
        x = loaded.preprocessing.normalize(picture)[None]
        with torch.no_grad():
            outputs = _outputs(loaded.model, x)
            columns = outputs if outputs.dim() == 2 else class_sums(outputs)
            count = columns.shape[1]
            t = int(columns.argmax(1)) if target is None else target
            if not 0 <= t < count:
                raise ValueError(f"--target {t} does not exist: the model has {count} outputs, 0 to {count - 1}")
            own = choose(outputs, t, None, lambda: _outputs(loaded.model, *shrunk((x,))))
            if nontarget is None:
                nontarget = "auto"
            other = None if count == 1 and nontarget == "auto" else choose(outputs, t, nontarget)  # type: ignore[arg-type]
        is_class = other is not None and other.kind == "nontarget" and other.nontargets is not None
        asked = int(other.nontargets[0]) if is_class else str(nontarget)  # type: ignore[union-attr, index]
        return cls(picture, loaded, x, outputs, own, other, asked)

    @property
    def target(self) -> int:
        """The target's number; of a single output 0."""
        return int(self.own.classes[0])

    @property
    def blank(self) -> Tensor:
        """An image without content [C, H, W]."""
        return self.loaded.preprocessing.empty.expand_as(self.x[0])

    @property
    def label(self) -> str:
        """The target's name."""
        return "the output" if self.own.single else self.loaded.name(self.target)

    @property
    def other_label(self) -> str:
        """The other output's name."""
        assert self.other is not None
        if self.other.kind == "nontarget":
            return self.loaded.name(int(self.asked))
        if self.other.kind == "margin":
            assert self.other.nontargets is not None
            return f"{self.label} minus {self.loaded.name(int(self.other.nontargets[0]))}"
        return "the mean of the others" if self.other.kind == "others" else f"minus {self.label}"

    def read_target(self, images: Tensor) -> Tensor:
        """The target's output [N]."""
        return self._read(self.own, images)

    def read_other(self, images: Tensor) -> Tensor:
        """The other output [N]."""
        assert self.other is not None
        return self._read(self.other, images)

    def _read(self, choice: Choice, images: Tensor) -> Tensor:
        every = torch.zeros(len(images), dtype=torch.long)
        return choice.of_samples(every).values(_outputs(self.loaded.model, images))

    def signed(self, attribution: Tensor, title: str, caption: str, label: str) -> Panel:
        """A map of the output called ``label`` over the picture."""
        positive, negative = f"raises {label}", "holds it down"
        return Panel(
            "signed", attribution[0], title, caption, underlay=self.picture, positive=positive, negative=negative
        )


def _row(
    name: str,
    picture: Tensor,
    loaded: LoadedModel,
    method: Explainer,
    references: ReferenceSet | None,
    target: int | None,
    nontarget: int | str | None,
    seed: int,
) -> Row:
    asked = _Question.ask(picture, loaded, target, nontarget)
    label = asked.label
    count = asked.outputs.shape[1]
    standard = method.standard(loaded.model, asked.x, asked.target, count, asked.blank[None])
    panels = [
        Panel("image", picture, "The image", name),
        asked.signed(standard, f"Standard map: {label}", method.standard_caption, label),
    ]
    facts = [(f"Output of {label}", f"{float(asked.own.values(asked.outputs)):.2f}")]
    sentences = []
    last = []
    if asked.other is None:
        sentences.append("The model has one output, so there is no other one to explain.")
    else:
        panel, fact, sentence, tested = _other(asked, method, seed)
        panels.append(panel)
        facts.append(fact)
        sentences.append(sentence)
        last.append(tested)
    if references is not None:
        found, test = _compare(asked, method, references, seed)
        panels += found
        sentences.append(
            f"Pasting in the {test.pixels} missing pixels that the absence part names changes the output of {label} "
            f"by {test.change:+.2f}; "
            f"the same pixels at random places change it by {test.random_change:+.2f}. "
            f"{_verdict(test, test.random_change - test.change)}"
        )
        facts.append(("Pasting what is missing", f"{test.change:+.2f}, random {test.random_change:+.2f}"))
    return Row(f"{name}: {label}", " ".join(sentences), tuple(panels), tuple(facts + last))


def _other(asked: _Question, method: Explainer, seed: int) -> tuple[Panel, tuple[str, str], str, tuple[str, str]]:
    """The other output's map, its value, and what happens when the pixels that hold it down are blanked."""
    other = asked.other_label
    absent = method.nontarget(asked.loaded.model, asked.x, asked.target, asked.asked, asked.blank[None])
    removal = remove_suppressor(asked.read_other, asked.x[0], absent.absence[0], asked.blank, seed=seed)
    panel = asked.signed(absent.attribution, f"Non-target map: {other}", "Blue: content that holds it down.", other)
    sentence = (
        f"Blanking the {removal.pixels} pixels that hold {other} down most changes its output by "
        f"{removal.change:+.2f}; "
        f"as many random pixels change it by {removal.random_change:+.2f}. "
        f"{_verdict(removal, removal.change - removal.random_change)}"
    )
    tested = ("Blanking what suppresses", f"{removal.change:+.2f}, random {removal.random_change:+.2f}")
    return panel, (f"Output of {other}", f"{absent.output:.2f}"), sentence, tested


def _compare(
    asked: _Question, method: Explainer, references: ReferenceSet, seed: int
) -> tuple[tuple[Panel, ...], PixelTest]:
    """The panels against the references, and the test of what the image lacks."""
    loaded, label = asked.loaded, asked.label
    found = method.against(loaded.model, asked.x, asked.target, references)
    nearest = references.nearest(asked.x, asked.own.contrast()[0])
    assert isinstance(nearest, Tensor)
    test = insert_missing(asked.read_target, asked.x[0], nearest[0, 0], found.absence[0], seed=seed)
    title, caption = f"Reference map: {label}", f"Against the {references.k} nearest references."
    panels = (
        Panel("image", _picture(nearest[0, 0], loaded), "The nearest reference", "It has what may be missing."),
        asked.signed(found.attribution, title, caption, label),
        Panel(
            "absence",
            found.absence[0],
            "Its absence part",
            "Red: what the references have and this lacks, where the map says that its absence raises the output.",
            underlay=asked.picture,
            positive=f"its absence raises {label}",
        ),
    )
    return panels, test


def _verdict(test: PixelTest, effect: float) -> str:
    """Whether the network bears the map out, beyond two standard deviations of the random control."""
    if effect > 2 * test.random_sd:
        return "The network bears the map out."
    return "That is no more than chance: here the map does not show an absence that the network uses."


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    outputs = logits_of(model(x.clone()), samples=len(x))
    if outputs.dim() not in (1, 2, 4):
        raise ValueError(
            f"the model must return one row of logits per image, or maps of logits [B, K, H, W], got "
            f"{tuple(outputs.shape)}; wrap it so that it does"
        )
    return outputs[:, None] if outputs.dim() == 1 else outputs


def _picture(x: Tensor, loaded: LoadedModel) -> Tensor:
    """A model input back as a picture in [0, 1]."""
    p = loaded.preprocessing
    return (x * torch.tensor(p.std).reshape(-1, 1, 1) + torch.tensor(p.mean).reshape(-1, 1, 1)).clamp(0, 1)
