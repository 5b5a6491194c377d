"""``absence-plugins bench models``: on which models a method runs, and whether its map is conserved and
antisymmetric.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn

import absence_plugins
from absence_plugins.bench.model_methods import METHODS, TARGET, ModelMethod
from absence_plugins.bench.models_result import PRECISE, ModelScore, ModelsResult
from absence_plugins.bench.pages import replaced, require_marks
from absence_plugins.bench.run import Run
from absence_plugins.bench.sources import fingerprint_sources
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.bench.zoo import ZOO, Entry, build, installed
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.files import whole_file, write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.methods.checkpoint import read_record, write_record
from absence_plugins.methods.ranks import alone, from_first, gather, is_first, own_share, ranks

MARK = "bench models"
QUICK = {"squeezenet1_1", "mobilenetv3_small_050", "ViT"}


def run_models_bench(
    *,
    rounds: int = 5,
    quick: bool = False,
    device: str = "auto",
    progress: bool = True,
    out: Path | None = None,
    into: Sequence[Path] = (),
    entries: Sequence[Entry] | None = None,
) -> ModelsResult:
    """Ask every method for the map of logit 1 on every model, x against r and r against x, on the CPU.

    Under ``torchrun`` the ranks take the models in turn, all get the result, and rank 0 writes it.

    In float32, or in float64 where random weights make u(x) - u(r) less than a thousandth of u.

    Models: torchvision's, timm's and transformers' families with random weights, as far as they are installed.

    Args:
        rounds: not used: nothing is timed.
        quick: a model of each package.
        device: checked only.
        progress: show a progress bar on stderr.
        out: folder for models.json, models.md and models.png. Every finished model is kept in it, and not asked again
            when the command is repeated.
        into: Markdown files in which what stands between ``<!-- bench models: begin -->`` and
            ``<!-- bench models: end -->`` is
            replaced by the tables.
        entries: other models; None: all of the zoo.

    Raises:
        ValueError: a file without the marks, an ``out`` that is a file, no model's package installed.
        ImportError: Captum or Zennit is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    require_marks(into, [MARK])
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    import absence_plugins.captum
    import absence_plugins.zennit  # noqa: F401  (both say what to install where the host is missing)

    chosen = installed(list(ZOO if entries is None else entries))
    if quick and entries is None:
        chosen = [entry for entry in chosen if entry.name in QUICK]
    if not chosen:
        raise ValueError('no model: install "absence-plugins[report]" for torchvision, or timm, or transformers')
    (rank, world), made = ranks(), {}
    with own_folder(out):
        known = from_first(lambda: [_read_scores(entry, out) for entry in chosen])
        rest = [place for place, scores in enumerate(known) if scores is None]
        with (
            own_share(),
            steady(),
            tqdm(rest[rank::world], desc="bench models", disable=not progress or rank > 0) as bar,
        ):
            for place in bar:
                entry = chosen[place]
                bar.set_postfix_str(f"{entry.source} {entry.name}")
                with alone():
                    made[place] = score_model(entry)
                _keep_scores(entry, out, made[place])
                gc.collect()
        for found in gather(made):
            for place, scores in found.items():
                known[place] = scores
        every = tuple(one for scores in known for one in scores or ())
        result = ModelsResult(every, describe_environment("captum", run))
        if out is not None and is_first():
            write_result(result, out)
    for page in into if is_first() else ():
        write_whole(page, replaced(page.read_text(encoding="utf-8"), MARK, result.markdown))
    return result


def write_result(result: ModelsResult, out: Path) -> None:
    """models.json, models.md and models.png."""
    write_whole(out / "models.json", json.dumps(result.to_dict(), indent=1) + "\n")
    write_whole(out / "models.md", result.markdown() + "\n")
    with whole_file(out / "models.png") as file:
        result.figure().savefig(
            file, format="png", facecolor="white", dpi=120, metadata={"Software": None}, pil_kwargs={"optimize": True}
        )


def _record(entry: Entry, out: Path) -> tuple[Path, str]:
    """Where one model's scores are kept, and by what they are known."""
    key = json.dumps([entry.size, entry.options, list(METHODS), fingerprint_sources(entry.source)])
    return out / f"models-{entry.source}-{entry.name}.json", hashlib.sha256(key.encode()).hexdigest()


def _read_scores(entry: Entry, out: Path | None) -> list[ModelScore] | None:
    """One model's scores as an earlier run of the same code kept them in the folder; None: there are none."""
    known = None if out is None else read_record(*_record(entry, out))
    return None if known is None else [ModelScore(**one) for one in known["scores"]]


def _keep_scores(entry: Entry, out: Path | None, scores: Sequence[ModelScore]) -> None:
    if out is not None:
        write_record(*_record(entry, out), {"scores": [one.to_dict() for one in scores]})


def score_model(entry: Entry) -> list[ModelScore]:
    """Every method on one model."""
    model, x, r = build(entry)
    outputs = _logits(model, x, r)
    if abs(outputs[0] - outputs[1]) < PRECISE * max(map(abs, outputs)):  # float32 would leave a difference of roundings
        model, x, r = model.double(), x.double(), r.double()
        outputs = _logits(model, x, r)

    def score(name: str, method: ModelMethod) -> ModelScore:
        own = copy.deepcopy(model)  # a host that fails can leave hooks
        blank = ModelScore(
            entry.source, entry.name, name, True, None, None, "", is_ours=method.is_ours, is_complete=method.is_complete
        )
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                found = method.attribute(own, x.clone(), r.clone()).detach()
                back = method.attribute(own, r.clone(), x.clone()).detach() if method.has_reference else None
            except Exception as error:  # that a method does not run is what is asked
                note = shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")
                return replace(blank, runs=False, note=note, said=note if _is_rejection(error) else "")
        words = [str(one.message) for one in seen if issubclass(one.category, AbsenceWarning)]
        blank = replace(blank, said=shorten("; ".join(dict.fromkeys(words)), 160, placeholder=" ..."))
        if not bool(torch.isfinite(found).all()):
            return replace(blank, note="NaN or infinite values")
        if not method.is_complete:
            return blank
        target = outputs[0] - outputs[1] if method.has_reference else outputs[0]
        off = abs(float(found.double().sum()) - target) / abs(target)
        return replace(blank, error=off, asymmetry=_asymmetry(found, back))

    return [score(name, method) for name, method in METHODS.items()]


def _is_rejection(error: Exception) -> bool:
    """Whether this package raised the error itself, and not torch or a host beneath it."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = Path(absence_plugins.__file__).parent
    return isinstance(error, (ValueError, TypeError)) and inside in Path(frames[-1].filename).parents


def _logits(model: nn.Module, *inputs: Tensor) -> list[float]:
    with torch.no_grad():
        return [float(model(value)[0, TARGET]) for value in inputs]


def _asymmetry(found: Tensor, back: Tensor | None) -> float | None:
    """max abs(R(x; r) + R(r; x)) / max abs(R(x; r))."""
    return None if back is None else float((found + back).abs().max() / found.abs().max())
