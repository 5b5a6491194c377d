"""One text's row in a figure: its tokens, what each of them does, and what is explained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import LLMAttributionResult
from captum.attr._utils.visualization import VisualizationDataRecord
from torch import Tensor

from absence_plugins.captum.calls import leaves
from absence_plugins.captum.llm_result import AbsenceLLMAttributionResult
from absence_plugins.core.explanation import Explanation
from absence_plugins.core.kinds import TextKind
from absence_plugins.core.wording import Names

SPECIAL = frozenset(
    [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[BOS]",
        "[EOS]",
        "<pad>",
        "<s>",
        "</s>",
        "<mask>",
        "<bos>",
        "<eos>",
        "<cls>",
        "<sep>",
        "<|endoftext|>",
        "pad",
    ]
)
GENERAL = ("raises the explained output", "holds the explained output down")


class TextRecord(VisualizationDataRecord):
    """Captum's VisualizationDataRecord, with the special tokens, what red and blue mean, and the reference's tokens.

    Attributes:
        word_attributions: signed, one per token [T]; R > 0 raises the explained output, R < 0 holds it down.
        attr_score: the sum of the map, that of special tokens included.
        special: which tokens are padding or special.
        legend: what red and blue mean.
        reference_tokens: of the nearest reference, where it has another token; None: without one.
        reference_attributions: R against that reference alone [T].

    The other attributes are Captum's.
    """

    special: tuple[bool, ...]
    legend: tuple[str, str]
    reference_tokens: list[str | None] | None
    reference_attributions: Tensor | None


def text_record(
    word_attributions: Explanation | LLMAttributionResult | Tensor,
    sample: int = 0,
    raw_input_ids: Sequence[str] | None = None,
    *,
    pred_prob: float | None = None,
    pred_class: Any = None,
    true_class: Any = None,
    attr_class: Any = None,
    convergence_score: float | None = None,
    special: Sequence[bool] | Sequence[str] | None = None,
    names: Names = None,
) -> TextRecord:
    """One text's row for :func:`visualize_text`.

    Args:
        word_attributions: what ``explain`` returned for embeddings or token ids; or a signed map [T], [B, T] or
            [B, T, D], of which D is summed; or the result of a language model's attribution.
        sample: which text of the batch.
        raw_input_ids: its tokens as they are shown, at most T; None: those that the references' TextKind knows.
        pred_prob: of the predicted class; None: of a single output, which is a logit, its sigmoid.
        pred_class: what the model says; None: of a single output the class by its sign.
        true_class: of the text.
        attr_class: what is explained; None: in the words of the explanation.
        convergence_score: None: the explanation's completeness error.
        special: which tokens are padding or special, or which strings are; None: those of the TextKind, or the usual
            names ([CLS], <pad>, ...).
        names: of the classes.

    The sign: R > 0 raises the explained output, R < 0 holds it down.

    Raises:
        ValueError: no tokens, more tokens than places of the map, no such sample, values that are no numbers.

    >>> record = text_record(torch.tensor([[0.5, -0.25, 0.0]]), raw_input_ids=["not", "bad", "[PAD]"])
    >>> float(record.attr_score), record.special
    (0.25, (False, False, True))
    """
    read = _read(word_attributions, sample, names)
    row, tokens = read.row, read.tokens if raw_input_ids is None else [str(token) for token in raw_input_ids]
    if tokens is None:
        raise ValueError(
            "the tokens are not known; pass raw_input_ids=[...], or explain with references of kind=TextKind"
        )
    if len(tokens) > len(row):
        raise ValueError(f"{len(tokens)} tokens for a map of {len(row)}; pass the tokens of sample {sample}")
    if not bool(torch.isfinite(row).all()):
        raise ValueError(f"the map of sample {sample} holds NaN or infinite values")
    if pred_class is None and read.logit is not None:
        pred_class = int(read.logit > 0)
        pred_prob = 1 / (1 + math.exp(-abs(read.logit))) if pred_prob is None else pred_prob
    record = TextRecord(
        word_attributions=row,
        pred_prob=pred_prob,
        pred_class=pred_class,
        true_class=true_class,
        attr_class=read.explained if attr_class is None else attr_class,
        attr_score=float(row.sum()),
        raw_input_ids=tokens,
        convergence_score=read.error if convergence_score is None else convergence_score,
    )
    record.special, record.legend = flag_special(tokens, read.special if special is None else special), read.legend
    record.reference_tokens, record.reference_attributions = read.nearest or (None, None)
    return record


@dataclass(frozen=True)
class _Read:
    """What is known of one text: the map [T], and what stands in the place of arguments that are not given."""

    row: Tensor
    tokens: list[str] | None = None
    special: list[bool] | None = None
    legend: tuple[str, str] = GENERAL
    explained: str | None = None
    logit: float | None = None
    error: float | None = None
    nearest: tuple[list[str | None], Tensor] | None = None


def _read(given: Any, sample: int, names: Names) -> _Read:
    if isinstance(given, Explanation):
        return _read_explanation(given, sample, names)
    if isinstance(given, AbsenceLLMAttributionResult):
        row = _row_of(given.seq_attr, sample)
        return _Read(row, given.input_tokens, legend=given.legend(), explained=given.words())
    if isinstance(given, LLMAttributionResult):
        return _Read(_row_of(given.seq_attr, sample), given.input_tokens)
    return _Read(_row_of(given, sample))


def _read_explanation(found: Explanation, sample: int, names: Names) -> _Read:
    row, error, tokens, special, nearest = (
        _row_of(found.attribution, sample),
        found.completeness_error,
        None,
        None,
        None,
    )
    if isinstance(found.kind, TextKind) and found.inputs is not None:
        ids = found.inputs[sample]
        tokens, special = found.kind.tokens(ids), found.kind.is_special(ids).tolist()
        nearest = _nearest(found, found.kind, sample)
    return _Read(
        row,
        tokens,
        special,
        found.legend(sample, names),
        found.words(names)[sample],
        float(found.output[sample]) if _is_one_logit(found) else None,
        None if error is None else float(error[sample]),
        nearest,
    )


def _row_of(maps: Any, sample: int) -> Tensor:
    """One text's map [T], in float64."""
    whole = _per_token(maps)
    if not 0 <= sample < len(whole):
        raise ValueError(f"sample={sample} is none of the {len(whole)} texts")
    return whole[sample].detach().double().cpu()


def _per_token(maps: Any) -> Tensor:
    """[B, T] of a map [T], [B, T] or [B, T, D], or of several, which are summed."""
    parts = leaves(maps)
    found = []
    for part in parts:
        values = torch.as_tensor(part)
        if values.dim() not in (1, 2, 3):
            raise ValueError(
                f"a text's map is [T], [B, T] or [B, T, D], got {tuple(values.shape)}; sum it over its entries"
            )
        found.append(values[None] if values.dim() == 1 else values.sum(-1) if values.dim() == 3 else values)
    if len({tuple(part.shape) for part in found}) != 1:
        raise ValueError(f"maps of several shapes: {[tuple(part.shape) for part in found]}; pass one of them")
    return torch.stack(found).sum(0)


def _is_one_logit(found: Explanation) -> bool:
    explained = found.explained
    return bool(getattr(explained, "single", False)) and getattr(explained, "kind", "") == "target"


def _nearest(found: Explanation, kind: TextKind, sample: int) -> tuple[list[str | None], Tensor] | None:
    """The nearest reference's tokens where they are others, and the map against it alone [T]."""
    if found.references is None or found.per_reference is None or found.inputs is None:
        return None
    parts = [part[sample : sample + 1, 0] for part in leaves(found.per_reference)]
    own, other = found.inputs[sample], found.references[sample, 0]
    lacking = kind.lacks(own, other)
    tokens = [token if there else None for token, there in zip(kind.tokens(other), lacking.tolist(), strict=True)]
    return tokens, _per_token(parts)[0].detach().double().cpu()


def flag_special(tokens: Sequence[str], special: Sequence[bool] | Sequence[str] | None) -> tuple[bool, ...]:
    """Which tokens are padding or special: as booleans, as strings, or (None) the usual names.

    Raises:
        ValueError: fewer booleans than tokens.

    >>> flag_special(["[CLS]", "good"], None), flag_special(["a", "b"], ["b"])
    ((True, False), (False, True))
    """
    given = list(special) if special is not None else sorted(SPECIAL)
    if all(isinstance(one, str) for one in given):
        return tuple(token in given for token in tokens)
    if len(given) < len(tokens):
        raise ValueError(
            f"special names {len(given)} places of {len(tokens)} tokens; pass one for each, or the strings"
        )
    return tuple(bool(one) for one in given[: len(tokens)])
