"""What a text's tokens do to an output, and what the tokens do that only a reference text has."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.kinds import TextKind
from absence_plugins.core.outputs import Logit, Margin, Output, as_columns, check_explained, check_logits
from absence_plugins.core.scores import run_scores
from absence_plugins.core.targets import count_index
from absence_plugins.core.training import describe_training, find_training
from absence_plugins.core.wording import Names
from absence_plugins.methods.texts.calls import AlignedModel, Call, Interface, longest_text, place_of
from absence_plugins.methods.texts.compare import Divided, Values, compare_texts
from absence_plugins.methods.texts.lengths import Text
from absence_plugins.methods.texts.result import TextComparison, TextExplanation
from absence_plugins.methods.texts.words import Encoder, check_length, read_tokenizer

UNEQUAL = 0.05  # of u(x) - u(r), by which the sum of all parts may miss it
UNNAMED = "LABEL_"  # how Hugging Face calls classes without names


def explain_text(
    model: Callable[..., Any],
    tokenizer: Any,
    text: Any,
    reference_text: Any,
    output: Output | int | str | None = None,
    *,
    kind: TextKind | None = None,
    names: Names = None,
) -> TextExplanation:
    """Divide u(text) - u(reference text) exactly among the tokens of both, those that the text lacks included.

    R_t = m_t (e(x_t) - e(r_t)) at the embedding (:func:`~absence_plugins.relevance.relevance`) where one token replaces
    another. A token that only one text has is in both, hidden from the attention of the text that has it not, and its R
    is that of being hidden. u is that of the two texts alone, each with its own positions; what an insertion does by
    moving the tokens behind it is a number of its own. Other models: docs/how-to/text.md.

    Args:
        model: a sequence classifier of Hugging Face, or any module or function of token ids [B, T], in evaluation mode.
        tokenizer: of Hugging Face, a vocabulary {word: id} (texts are split at blanks), or a function from a text to
            ids, which needs ``kind``.
        text: a str, a tuple of two for tasks with pairs, or token ids [T].
        reference_text: the same; a list of them: several references, each compared by itself.
        output: None: the logit that is highest on the text; "margin": it minus the second highest; a class index; or an
            :class:`~absence_plugins.core.outputs.Output`, as ``Margin(1, 0)``: why this answer and not that one.
        kind: words and special tokens; None: from the tokenizer (:func:`text_kind`).
        names: of the classes; None: those of the model's configuration.

    Returns:
        TextExplanation. **Sign**: R > 0 raises the output of the text compared with the reference: of a token that the
        text has, by being there; of one that it lacks, by being missing.

    Raises:
        ValueError: the model is in training mode, or has a decoder; no tokens, or more than the model takes; the model
            gives texts another value in one length.
        RelevanceError: the model holds an operation without an exact relevance of differences.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Embedding(3, 1), nn.Flatten(1), nn.Linear(2, 1, bias=False)).eval()
    >>> net[0].weight.data, net[2].weight.data = torch.tensor([[0.0], [-5.0], [2.0]]), torch.ones(1, 2)
    >>> explain_text(net, {"very": 0, "not": 1, "good": 2}, "very good", "not good").words()
    ["the text has 'very' where the reference has 'not': raises the output by 5"]
    """
    check_model(model)
    encoder = read_tokenizer(tokenizer, kind)
    references = list_texts(reference_text)
    x = read_text(model, encoder, text, "the text")
    read = [read_text(model, encoder, one, f"reference {number}") for number, one in enumerate(references)]
    explained = choose_output(model, x, output)
    values = Values(model, explained)
    u = _value_of(values, x, "the text")
    divided = [compare_texts(values, x, r, encoder.kind, encoder.padding) for r in read]
    comparisons = tuple(
        _comparison(encoder.kind, x, r, one, _shown(given))
        for r, one, given in zip(read, divided, references, strict=True)
    )
    _warn_moved(comparisons)
    _warn_unequal(u, comparisons)
    return TextExplanation(
        _shown(text),
        x.ids,
        tuple(encoder.kind.tokens(x.ids)),
        encoder.kind,
        u,
        explained,
        comparisons,
        names_of(model) if names is None else names,
        is_single(model, x),
    )


def check_model(model: Any) -> None:
    """Raise ValueError for a model in training mode that draws at random or mixes the samples of a batch, and for one
    of encoder and decoder, which reads every token at two places.
    """
    active = find_training(model)
    if active:
        raise ValueError(describe_training(*active, "a text has no relevance of its own"))
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} gives the text to an encoder and, shifted by one place, to a decoder, so no place "
            "belongs to one token; pass a classifier without decoder"
        )


def list_texts(texts: Any) -> list[Any]:
    """One text as a list of one; a list of ids is one text.

    >>> list_texts("good"), list_texts([1, 2]), list_texts(["good", "bad"])
    (['good'], [[1, 2]], ['good', 'bad'])
    """
    if isinstance(texts, Tensor):
        return list(texts) if texts.dim() == 2 else [texts]
    if isinstance(texts, list) and texts and (isinstance(texts[0], Tensor) or not hasattr(texts[0], "__index__")):
        return texts
    if isinstance(texts, list) and not texts:
        raise ValueError("there are no reference texts; pass at least one")
    return [texts]


def read_text(model: Any, encoder: Encoder, text: Any, what: str) -> Text:
    """Token ids on the model's device; padding that an attention mask would hide is left out.

    Raises:
        ValueError: no tokens, more than the model takes, or ids that its embedding has not.
    """
    ids, types = encoder.read(text, what)
    if Interface.of(model).mask is not None and encoder.padding is not None and encoder.is_padding_apart:
        real = (ids != encoder.padding).nonzero().flatten()
        if len(real):
            inside = slice(int(real[0]), int(real[-1]) + 1)
            ids, types = ids[inside], None if types is None else types[inside]
    check_length(len(ids), longest_text(model), what, "the model takes")
    device, _ = place_of(model, ids)
    return Text(ids.to(device), None if types is None else types.to(device))


def choose_output(model: Any, x: Text, output: Output | int | str | None) -> Output:
    """The explained output, chosen once, on the text.

    Raises:
        ValueError: no such output; probabilities; outputs that are no row of scores.
    """
    if isinstance(output, Output):
        return output
    scores = _scores_of(model, x)
    check_logits(scores, lambda: _scores_of(model, Text(x.ids.flip(0), x.types)))
    if scores.dim() != 2:
        raise ValueError(
            f"the model puts out {tuple(scores.shape)}, which are no scores of one text [1, K]; pass output=Logit((class, "
            "place)), or a model with a classifier"
        )
    classes = scores.shape[1]
    if isinstance(output, str):
        if output != "margin" or classes < 2:
            raise ValueError(
                f"output={output!r} must be None, a class index, an Output"
                + (', or "margin"' if classes > 1 else ": the model has a single output")
            )
        first, second = scores[0].topk(2).indices.tolist()
        return Margin(first, second)
    if output is None:
        return Logit(int(scores[0].argmax()))
    if isinstance(output, bool) or not hasattr(output, "__index__"):
        raise TypeError(f"output must be a class index, an Output, None or 'margin', got {output!r}")
    index = count_index(int(output), classes)
    if index is None:
        raise ValueError(f"output={output} does not exist: the model has {classes} outputs, 0 to {classes - 1}")
    return Logit(index)


def is_single(model: Any, x: Text) -> bool:
    """Whether a model has one output."""
    return _scores_of(model, x)[0].numel() == 1


def _scores_of(model: Any, x: Text) -> Tensor:
    """The scores of a text as it is [1, K, ...]."""
    alone = AlignedModel(model, Interface.of(model), Call("none", None))
    types = None if x.types is None else x.types[None]
    with torch.no_grad():
        return as_columns(_run(lambda: run_scores(alone, (x.ids[None], None, None, types))[0]))


def names_of(model: Any) -> Names:
    """The names of the classes in a model's configuration; None where it names none."""
    named = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(named, Mapping) or all(str(name).startswith(UNNAMED) for name in named.values()):
        return None
    return {int(number): str(name) for number, name in named.items()}


def _comparison(kind: TextKind, x: Text, r: Text, found: Divided, text: str) -> TextComparison:
    """Sort the R of every pair into words, special tokens, and tokens that are the same in both."""
    own, other = kind.is_special(x.ids).tolist(), kind.is_special(r.ids).tolist()
    is_special, is_same = [], []
    for i, j in found.pairs:
        is_special.append((i is None or own[i]) and (j is None or other[j]))
        is_same.append(i is not None and j is not None and int(x.ids[i]) == int(r.ids[j]))
    device = found.relevance.device
    special, same = torch.tensor(is_special, device=device), torch.tensor(is_same, device=device)
    values = found.relevance.detach()
    return TextComparison(
        text,
        r.ids,
        tuple(kind.tokens(r.ids)),
        found.pairs,
        torch.where(special | same, 0, values),
        float(values[special].double().sum()),
        found.moved + float(values[same & ~special].double().sum()),
        found.output,
        found.way,
    )


def _warn_moved(comparisons: Sequence[TextComparison]) -> None:
    """Say so where most of a difference is in no word."""
    for number, one in enumerate(comparisons):
        words, rest = float(one.relevance.abs().sum()), abs(one.special) + abs(one.moved)
        if rest > words and rest > 0:
            warnings.warn(
                f"reference {number}: of u(x) - u(r) = {one.total:.3g} the words have {float(one.relevance.sum()):.3g}, "
                f"special tokens {one.special:.3g}, and tokens that others moved {one.moved:.3g}: the model reads places "
                "more than words here; a reference with as many tokens moves none",
                AbsenceWarning,
                stacklevel=3,
            )


def _warn_unequal(u: float, comparisons: Sequence[TextComparison]) -> None:
    """Say so where all parts do not sum to u(x) - u(r), as in half precision."""
    for number, one in enumerate(comparisons):
        difference = u - one.output
        if abs(one.total - difference) > max(UNEQUAL * abs(difference), 1e-4 * max(1.0, abs(u))):
            warnings.warn(
                f"reference {number}: all parts sum to {one.total:.3g}, and u(x) - u(r) is {difference:.3g}: in half "
                "precision the difference is lost among roundings; explain model.float()",
                AbsenceWarning,
                stacklevel=3,
            )


def _value_of(values: Values, x: Text, what: str) -> float:
    u = _run(lambda: values.of(x))
    if u.shape != (1,):
        raise ValueError(f"{what} has {tuple(u.shape)} explained values, and must have one: check output=")
    check_explained(u, lambda sample: f"the explained output on {what}")
    return float(u)


def _run(forward: Callable[[], Tensor]) -> Tensor:
    try:
        return forward()
    except IndexError as error:
        raise ValueError(
            f"the model looks up a token or a place that it has not ({error}): its tokenizer may be another one's, or the "
            "text longer than it takes"
        ) from error


def _shown(text: Any) -> str:
    if isinstance(text, str):
        return text
    if isinstance(text, tuple) and all(isinstance(one, str) for one in text):
        return " | ".join(text)
    return " ".join(str(int(one)) for one in torch.as_tensor(text).flatten())
