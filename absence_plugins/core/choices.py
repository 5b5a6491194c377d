"""Choosing the explained output once, on the real input: target, non-target, and what Captum calls them.

The *target* is the output the user asks about; the *non-target* is one that the input does not belong
to. Attributing the non-target shows, as negative relevance, the content that holds it down: what the
non-target's unit encodes as absent. It is chosen once, on the real input, from one forward pass.

The words for ``nontarget``: "runner_up" (the highest other output), "others" (the mean of all others), "target" (the
target itself), "negated" (its negative), "margin" (the target minus its runner-up: positive speaks for the decision),
and "auto" (the runner-up; of a model with one output the output itself).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from absence_plugins.core.combining import CombinedOutputs, combine, others_weights
from absence_plugins.core.outputs import Output, as_columns, check_explained, check_logits, class_sums, list_few, select
from absence_plugins.core.targets import Target, as_indices, list_classes, list_entries, means_sum
from absence_plugins.core.wording import Kind, Names, Wording

NontargetFunction = Callable[[Tensor, Tensor], Tensor]
NontargetWord = Literal["runner_up", "others", "target", "negated", "margin"]
Nontarget = NontargetWord | int | Tensor | Sequence[int] | NontargetFunction
WORDS = ("runner_up", "others", "target", "negated", "margin")
KINDS: dict[str | None, Kind] = {
    None: "target",
    "auto": "nontarget",
    "runner_up": "nontarget",
    "others": "others",
    "target": "target",
    "negated": "negated",
    "margin": "margin",
}
SINGLE_NOTE = (
    "the model has a single output, so there is no other neuron to explain: the map is that of the output itself. "
    "Absences show against real inputs, reference=ReferenceSet(...) or baselines=<real inputs>; nontarget='negated' "
    "explains minus the output, nontarget='target' the output without this warning"
)
SIGMOID_NOTE = (
    "several outputs behind a sigmoid are independent labels, which are no rivals: the map is that of the label asked for. "
    "nontarget=<number> explains another label, nontarget='target' this one without this warning, nontarget='runner_up' "
    "the highest other one all the same"
)


@dataclass(frozen=True)
class Choice(Output):
    """One explained output per sample, as a host can select it.

    ``classes`` are the class indices [B] of the target; ``nontargets`` those of the non-target (of a margin the
    runner-up) [B], or None where there is none. ``index`` is the host's target argument (Captum's ``target``: a tensor
    [B], or a list of tuples) for the outputs of :meth:`around`. ``weights`` [M, K], where given, means that ``index``
    counts the rows of ``weights @ logits`` and not the logits themselves.
    """

    kind: Kind
    classes: Tensor
    nontargets: Tensor | None
    index: Tensor | list[tuple[int, ...]]
    weights: Tensor | None = None
    single: bool = False  # the model has one output
    summed: bool = False  # of outputs [B, K, H, W] the sum over the image is explained
    flat: bool = False  # outputs [B] without an axis of classes

    @property
    def view(self) -> Literal["target", "nontarget"]:
        """Whether the map asks what raises the target, or what holds another output down."""
        return "target" if self.kind in ("target", "margin") else "nontarget"

    def values(self, outputs: Tensor) -> Tensor:
        """The explained output u of every sample: outputs [B, K, ...] -> u [B]."""
        return select(self.columns(outputs), self.index)

    def columns(self, outputs: Tensor) -> Tensor:
        """The outputs from which ``index`` selects, of the model's outputs [B, K, ...]."""
        columns = class_sums(outputs) if self.summed else as_columns(outputs)
        return columns if self.weights is None else combine(columns, self.weights)

    def sizes(self, outputs: Tensor) -> Tensor:
        """How large the outputs are that u is computed from [B]: of a difference of logits the sum of their amounts."""
        weights = None if self.weights is None else self.weights.abs()
        return replace(self, weights=weights).values(outputs.abs())

    def around(self, model: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The model from whose outputs ``index`` selects: the model itself, or :class:`CombinedOutputs` of it."""
        if self.weights is None and not self.summed and not self.flat:
            return model
        return CombinedOutputs(model, self.weights, is_summed=self.summed)

    def contrast(self) -> tuple[Tensor, Tensor | None]:
        """What a ReferenceSet is asked for: the target's class [B], and the class to take the references from.

        The latter only for a non-target that is a class; else the references are of the contrast classes of the
        target (a margin, a negated target and the mean of the others, too). Of a single output z class 1 is that of
        +z, class 0 that of -z.
        """
        if self.single:
            return 1 - self.classes, None
        return self.classes, self.nontargets if self.kind == "nontarget" else None

    def wording(self, sample: int) -> Wording:
        """What is explained of one sample, ready to be said with the names of the classes."""
        position = self.index[sample][1:] if isinstance(self.index, list) else ()
        other = None if self.nontargets is None else int(self.nontargets[sample])
        return Wording(self.kind, int(self.classes[sample]), other, position, self.single, self.summed)

    def words(self, samples: int, names: Names = None) -> list[str]:
        """What is explained, in words, of every sample: as "logit 3 (cup), which is not the target 7 (espresso)"."""
        return [self.wording(sample).long(names) for sample in range(samples)]

    def heading(self, sample: int = 0, names: Names = None) -> str:
        """The title of a map of one sample: as "What holds 'cup' down"."""
        return self.wording(sample).heading(names)

    def legend(self, sample: int = 0, names: Names = None) -> tuple[str, str]:
        """What red and blue mean in a map of one sample."""
        return self.wording(sample).legend(names)

    def describe(self) -> str:
        """What is explained, in words; in general words where it is another output of each sample."""
        found = set(self.words(len(self.classes)))
        return found.pop() if len(found) == 1 else Wording.general(self.kind)


def check_word(nontarget: Any, name: str = "nontarget", known: Sequence[str] = WORDS) -> None:
    """Reject a word that names no output.

    Raises:
        ValueError: with the words that do.
    """
    if isinstance(nontarget, str) and nontarget not in known:
        words = ", ".join(map(repr, WORDS))
        raise ValueError(f"{name}={nontarget!r} is not known: use {words}, a class index, a tensor or a callable")


def check_rivals(nontarget: Any, *, is_multi_label: bool) -> None:
    """Reject a choice among rivals where several labels can be true at once.

    Raises:
        ValueError: with what to pass.
    """
    if is_multi_label and isinstance(nontarget, str) and nontarget in ("runner_up", "others", "margin"):
        raise ValueError(
            f"the references have several labels per sample, which are no rivals, so nontarget={nontarget!r} would say "
            "nothing about the target; name another label by its number, or pass nontarget='target' or 'negated'"
        )


def resolve_auto(nontarget: Any, outputs: Tensor, ending: str) -> Any:
    """The target in place of "auto" where several outputs behind a sigmoid are labels without a runner-up.

    >>> resolve_auto("auto", torch.zeros(1, 3), "sigmoid"), resolve_auto("auto", torch.zeros(1, 3), "softmax")
    ('target', 'auto')
    """
    is_auto = isinstance(nontarget, str) and nontarget == "auto"
    return "target" if is_auto and ending == "sigmoid" and as_columns(outputs).shape[1] > 1 else nontarget


def choose_nontarget(scores: Tensor, target: Tensor, nontarget: Nontarget = "runner_up") -> Tensor:
    """The non-target of every sample.

    ``"runner_up"``: the highest-scoring output that is not the target (for two classes, the other one), never one
    that is masked with -inf; an integer or one integer per sample: that class; a callable:
    ``nontarget(scores, target) -> [B]``.

    scores: pre-softmax outputs [B, K]; target: [B]. Returns class indices [B].

    Raises:
        ValueError: the non-target is the target, does not exist, or their number is not B; all other outputs are -inf.

    >>> choose_nontarget(torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]), torch.tensor([0, 2]))
    tensor([2, 1])
    """
    return _pick_nontargets(scores, target, target.tolist(), nontarget, list_few(scores))[1]


def _pick_nontargets(
    scores: Tensor, target: Tensor, own: list[int], nontarget: Any, few: list[list[float]] | None
) -> tuple[list[int], Tensor]:
    """``own``: the numbers in ``target``; ``few``: those in ``scores``, if they are few."""
    samples, classes = scores.shape
    if isinstance(nontarget, str):
        check_word(nontarget, known=("runner_up",))
        if classes < 2:
            raise ValueError("the runner-up needs at least two outputs")
        return _pick_runners_up(scores, target, own, few)
    if callable(nontarget):
        nontarget = nontarget(scores, target)
        if not isinstance(nontarget, Tensor):
            raise TypeError(
                f"the nontarget function must return a tensor of {samples} class indices, got "
                f"{type(nontarget).__name__}"
            )
    chosen = list_entries(nontarget, samples)
    if any([isinstance(entry, tuple) for entry in chosen]):
        raise ValueError(f"a non-target is one class index per sample, got shape {tuple(torch.tensor(chosen).shape)}")
    if min(chosen) < 0 or max(chosen) >= classes:
        raise ValueError(f"non-target {chosen} does not exist: class indices go from 0 to {classes - 1}")
    for row, (other, mine) in enumerate(zip(chosen, own, strict=True)):
        if other == mine:
            raise ValueError(
                f"non-target {other} of sample {row} is the target itself; choose another class, or "
                "nontarget='runner_up' (the target itself is nontarget='target')"
            )
    return chosen, as_indices(nontarget, chosen, scores)


def _pick_runners_up(
    scores: Tensor, target: Tensor, own: list[int], few: list[list[float]] | None
) -> tuple[list[int], Tensor]:
    if few is None or any(map(math.isnan, map(sum, few))):  # of NaN torch's order counts
        best = scores.scatter(1, target[:, None], -torch.inf).max(1)
        highest, indices = best.values.tolist(), best.indices
        found = indices.tolist()
    else:
        rest = [[*row[:mine], -math.inf, *row[mine + 1 :]] for row, mine in zip(few, own, strict=True)]
        highest = list(map(max, rest))
        found = [row.index(most) for row, most in zip(rest, highest, strict=True)]  # the first, as torch's
        indices = torch.tensor(found, device=scores.device)
    if -math.inf in highest:
        row = highest.index(-math.inf)
        raise ValueError(
            f"all outputs of sample {row} but the target's are -inf, so there is no runner-up; name a class, or "
            "pass nontarget='target'"
        )
    return found, indices


def choose(
    outputs: Tensor,
    target: Target,
    nontarget: Nontarget | Literal["auto"] | None,
    elsewhere: Callable[[], Tensor] | None = None,
) -> Choice:
    """From one forward's outputs to what is explained: the target if ``nontarget`` is None, else as it says.

    A single output has no other: it is the target, with ``"negated"`` its negative. Of outputs [B, K, H, W] a target
    that is a class means the sum of its logits over the image, and a tuple (class, y, x) one pixel; non-targets are
    chosen among the same sums, or at the same pixel.

    outputs: pre-softmax [B], [B, K] or [B, K, ...]; ``elsewhere`` as in :func:`check_logits`.

    Raises:
        ValueError: probabilities, a target or non-target that does not exist, an explained output that is not finite.

    >>> choose(torch.tensor([[3.0, 1.0, 2.0]]), target=0, nontarget="runner_up").nontargets
    tensor([2])
    >>> choose(torch.tensor([[3.0, 1.0, 2.0]]), target=0, nontarget="margin").values(torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([1.])
    """
    few = list_few(outputs)
    check_logits(outputs, elsewhere, few)
    summed = means_sum(target, outputs)
    scores = class_sums(outputs) if summed else as_columns(outputs)
    own, rest = list_classes(target, scores)
    classes = as_indices(target, own, scores)
    if single := scores.shape[1] == 1:
        kind = _kind_of_single(nontarget)
    elif nontarget is None or isinstance(nontarget, str):
        check_word(nontarget, known=(*WORDS, "auto"))
        kind = KINDS[nontarget]
    else:
        kind = "nontarget"
    picked, nontargets = own, None
    if kind in ("nontarget", "margin"):
        named = "runner_up" if isinstance(nontarget, str) else nontarget
        picked, nontargets = _pick_nontargets(_at(scores, rest), classes, own, named, few)
    chosen, weights = _rows(kind, classes, nontargets, scores.shape[1])
    index: Tensor | list[tuple[int, ...]] = chosen
    if rest is not None:
        index = [(int(c), *position) for c, position in zip(chosen, rest, strict=True)]
    choice = Choice(kind, classes, nontargets, index, weights, single, summed, outputs.dim() == 1)
    if few is None or weights is not None:
        _check_values(choice, _placed(classes, rest), scores, choice.values(outputs))
    else:
        for row, mine, other in zip(few, own, picked, strict=True):
            if not (math.isfinite(row[mine]) and math.isfinite(row[other])):
                _check_values(choice, classes, scores, choice.values(outputs))
    return choice


def _check_values(choice: Choice, placed: Tensor | list[tuple[int, ...]], scores: Tensor, values: Tensor) -> None:
    """The target's scores and the explained values must be finite."""

    def name_target(sample: int) -> str:
        return replace(choice, kind="target", index=placed, weights=None).wording(sample).short()

    check_explained(select(scores, placed), name_target)
    check_explained(values, lambda sample: choice.wording(sample).short())


def _kind_of_single(nontarget: Any) -> Kind:
    """What is explained of a model with one output. Raises ValueError where another output is asked for."""
    if nontarget is None or (isinstance(nontarget, str) and nontarget in ("auto", "target")):
        return "target"
    if isinstance(nontarget, str) and nontarget == "negated":
        return "negated"
    check_word(nontarget)
    shown = f"nontarget={nontarget!r}" if isinstance(nontarget, (str, int)) else "a non-target"
    raise ValueError(
        f"{shown} asks for another output, and the model has a single one; nontarget='negated' explains its negative, "
        "nontarget='target' the output itself, and what is missing shows against a reference of real inputs"
    )


def _rows(kind: Kind, classes: Tensor, nontargets: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """What is selected of every sample [B]; and the combinations of outputs [M, K] whose rows these are, if it is one.

    One row for every different combination among the samples, so that few samples of many classes stay cheap.
    """
    if kind == "target":
        return classes, None
    if kind == "nontarget":
        assert nontargets is not None
        return nontargets, None
    pairs = classes[:, None] if nontargets is None else torch.stack([classes, nontargets], 1)
    listed = [tuple(pair) for pair in pairs.tolist()]
    every = list(dict.fromkeys(listed))
    known = torch.tensor(every)
    rows = torch.tensor([every.index(pair) for pair in listed], device=classes.device)
    if kind == "others":
        return rows, others_weights(count, known[:, 0])
    sign = -1.0 if kind == "negated" else 1.0
    weights = torch.zeros(len(known), count, dtype=torch.float64).scatter_(1, known[:, :1], sign)
    return rows, weights if kind == "negated" else weights.scatter_(1, known[:, 1:], -1.0)


def _placed(classes: Tensor, rest: list[tuple[int, ...]] | None) -> Tensor | list[tuple[int, ...]]:
    if rest is None:
        return classes
    return [(int(c), *position) for c, position in zip(classes, rest, strict=True)]


def _at(outputs: Tensor, rest: list[tuple[int, ...]] | None) -> Tensor:
    """Class scores [B, K] at the rest of each sample's target tuple."""
    if rest is None:
        return outputs
    return torch.stack([sample[(slice(None), *position)] for sample, position in zip(outputs, rest, strict=True)])
