"""Choosing the explained output once, on the real input: target, non-target, and what Captum calls them.

The *target* is the output the user asks about; the *non-target* is one that the input does not belong
to. Attributing the non-target shows, as negative relevance, the content that holds it down: what the
non-target's unit encodes as absent. It is chosen once, on the real input, from one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from absence_plugins.core.outputs import Output, as_columns, check_logits, combine, select

NontargetFunction = Callable[[Tensor, Tensor], Tensor]
Nontarget = Literal["runner_up", "others"] | int | Tensor | Sequence[int] | NontargetFunction
Target = int | tuple[int, ...] | Tensor | Sequence[int] | Sequence[tuple[int, ...]] | None


@dataclass(frozen=True)
class Choice(Output):
    """One explained output per sample, as a host can select it.

    ``classes`` are the class indices [B] of the target; ``nontargets`` those of the non-target [B], or
    None where the non-target is the mean of all others. ``index`` is the host's target argument
    (Captum's ``target``: a tensor [B], or a list of tuples). ``weights`` [M, K], where given, means that
    ``index`` counts the rows of ``weights @ logits`` and not the logits themselves.
    """

    classes: Tensor
    nontargets: Tensor | None
    index: Tensor | list[tuple[int, ...]]
    weights: Tensor | None = None
    single: bool = False  # the model has one logit z; index 0 is +z, index 1 is -z

    def values(self, outputs: Tensor) -> Tensor:
        """The explained output u of every sample: outputs [B, K, ...] -> u [B]."""
        combined = as_columns(outputs)
        return select(combined if self.weights is None else combine(combined, self.weights), self.index)

    def describe(self) -> str:
        """What is explained, in words: the target, the non-target, or a combination of outputs."""
        if self.single:
            return "the output" if self.weights is None or not bool(self.index[0]) else "minus the output"
        if self.weights is not None:
            return "the mean of all outputs but the target"
        return "the target" if self.nontargets is None else "the non-target"


def class_indices(target: Target, outputs: Tensor) -> tuple[Tensor, list[tuple[int, ...]] | None]:
    """Captum's ``target`` as class indices [B] and, for outputs of more than two axes, the rest of each tuple.

    Raises:
        ValueError: no target where there are several outputs, another number of targets than samples,
            a class that does not exist, a tuple of the wrong length.
    """
    outputs = as_columns(outputs)
    samples = outputs.shape[0]
    if target is None:
        if outputs[0].numel() != 1:
            raise ValueError(
                f"the model has outputs of shape {tuple(outputs.shape[1:])}; say which one: target=<class index>"
            )
        target = 0 if outputs.dim() == 2 else (0,) * (outputs.dim() - 1)
    entries = _entries(target, samples)
    tuples = [entry if isinstance(entry, tuple) else (entry,) for entry in entries]
    for row, entry in enumerate(tuples):
        if len(entry) != outputs.dim() - 1:
            raise ValueError(
                f"target {entry} of sample {row} has {len(entry)} indices, but the outputs have {outputs.dim() - 1} "
                f"axes behind the batch: {tuple(outputs.shape[1:])}"
            )
        for index, size in zip(entry, outputs.shape[1:], strict=True):
            if not 0 <= index < size:
                raise ValueError(
                    f"target {entry if len(entry) > 1 else index} of sample {row} does not exist: indices go from 0 to "
                    f"{size - 1}"
                )
    indices = torch.tensor([entry[0] for entry in tuples], dtype=torch.long, device=outputs.device)
    return indices, ([entry[1:] for entry in tuples] if outputs.dim() > 2 else None)


def _entries(target: Any, samples: int) -> list[Any]:
    """One entry (int or tuple) per sample, whatever form the target came in."""
    if isinstance(target, Tensor) or (not isinstance(target, (int, tuple, list)) and hasattr(target, "tolist")):
        target = target.tolist()
    if isinstance(target, list):
        if len(target) == 1 and samples != 1:
            target = target * samples
        if len(target) != samples:
            raise ValueError(f"{len(target)} targets for {samples} samples: pass one target per sample, or one for all")
        entries = [tuple(entry) if isinstance(entry, (tuple, list)) else entry for entry in target]
    else:
        entries = [target] * samples
    for entry in entries:
        for index in entry if isinstance(entry, tuple) else (entry,):
            if isinstance(index, bool) or not isinstance(index, int):
                raise TypeError(f"a target must be an integer or a tuple of integers, got {index!r}")
    return entries


def choose_nontarget(scores: Tensor, target: Tensor, nontarget: Nontarget = "runner_up") -> Tensor:
    """The non-target of every sample.

    ``"runner_up"``: the highest-scoring output that is not the target (for two classes, the other one);
    an integer or one integer per sample: that class; a callable: ``nontarget(scores, target) -> [B]``.

    scores: pre-softmax outputs [B, K]; target: [B]. Returns class indices [B].

    Raises:
        ValueError: the non-target is the target, does not exist, or their number is not B.

    >>> choose_nontarget(torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]), torch.tensor([0, 2]))
    tensor([2, 1])
    """
    samples, classes = scores.shape
    if isinstance(nontarget, str):
        if nontarget != "runner_up":
            raise ValueError(
                f"nontarget={nontarget!r} is not known: use 'runner_up', 'others', a class index, a tensor or a "
                "callable"
            )
        if classes < 2:
            raise ValueError("the runner-up needs at least two outputs")
        return scores.scatter(1, target[:, None], -torch.inf).argmax(1)
    if callable(nontarget):
        nontarget = nontarget(scores, target)
        if not isinstance(nontarget, Tensor):
            raise TypeError(
                f"the nontarget function must return a tensor of {samples} class indices, got "
                f"{type(nontarget).__name__}"
            )
    chosen = torch.tensor(_entries(nontarget, samples), dtype=torch.long, device=scores.device)
    if chosen.dim() != 1:
        raise ValueError(f"a non-target is one class index per sample, got shape {tuple(chosen.shape)}")
    if bool(((chosen < 0) | (chosen >= classes)).any()):
        raise ValueError(f"non-target {chosen.tolist()} does not exist: class indices go from 0 to {classes - 1}")
    same = (chosen == target).nonzero().flatten()
    if len(same):
        row = int(same[0])
        raise ValueError(
            f"non-target {int(chosen[row])} of sample {row} is the target itself; choose another class, or "
            "nontarget='runner_up'"
        )
    return chosen


def others_weights(classes: int) -> Tensor:
    """Rows that average all outputs but one: [K, K], row t = mean of the others of class t.

    In float64, so that 1 / (K - 1) is exact enough for every model.

    >>> others_weights(3)[0].tolist()
    [0.0, 0.5, 0.5]
    """
    return (1 - torch.eye(classes, dtype=torch.float64)) / (classes - 1)


def choose(
    outputs: Tensor, target: Target, nontarget: Nontarget | None, elsewhere: Callable[[], Tensor] | None = None
) -> Choice:
    """From one forward's outputs to what is explained: the target if ``nontarget`` is None, else the non-target.

    A model with one logit z has two neurons, +z (index 0) and -z (index 1): the non-target of +z is -z.
    With more than two output axes the class axis is axis 1 and the rest of the target tuple is kept.

    outputs: pre-softmax [B], [B, K] or [B, K, ...]; ``elsewhere`` as in :func:`check_logits`.

    >>> choose(torch.tensor([[3.0, 1.0, 2.0]]), target=0, nontarget="runner_up").nontargets
    tensor([2])
    """
    check_logits(outputs, elsewhere)
    outputs = as_columns(outputs)
    classes, rest = class_indices(target, outputs)
    single = outputs.shape[1] == 1
    weights = torch.tensor([[1.0], [-1.0]]) if single and nontarget is not None else None
    if nontarget is None:
        chosen, nontargets = classes, None
    elif isinstance(nontarget, str) and nontarget == "others" and not single:
        chosen, nontargets, weights = classes, None, others_weights(outputs.shape[1])
    else:
        scores = _at(outputs, rest)
        if single:
            scores = torch.cat([scores, -scores], 1)
            nontarget = "runner_up" if isinstance(nontarget, str) and nontarget == "others" else nontarget
        chosen = nontargets = choose_nontarget(scores, classes, nontarget)
    index: Tensor | list[tuple[int, ...]] = chosen
    if rest is not None:
        index = [(int(c), *position) for c, position in zip(chosen, rest, strict=True)]
    return Choice(classes, nontargets, index, weights, single)


def _at(outputs: Tensor, rest: list[tuple[int, ...]] | None) -> Tensor:
    """Class scores [B, K] at the rest of each sample's target tuple."""
    if rest is None:
        return outputs
    return torch.stack([sample[(slice(None), *position)] for sample, position in zip(outputs, rest, strict=True)])


class CombinedOutputs(nn.Module):
    """A model whose outputs are fixed linear combinations of another's: [B, K, ...] -> [B, M, ...].

    weights: [M, K]. Lets a host that can only select one output explain a mean of outputs, or -z. The combination is a
    bias-free ``nn.Linear``, so that rule-based hosts (LRP) treat it like any other layer.
    """

    def __init__(self, forward_func: Callable[..., Tensor], weights: Tensor) -> None:
        super().__init__()
        self.explained = forward_func
        # meta: nn.Linear draws initial weights from the user's global random state
        self.combination = nn.Linear(weights.shape[1], weights.shape[0], bias=False, device="meta")
        self.combination.weight = nn.Parameter(weights.clone(), requires_grad=False)
        self.training = bool(getattr(forward_func, "training", False))
        if hasattr(forward_func, "device_ids"):
            self.device_ids = forward_func.device_ids

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The combined outputs of the explained model's outputs [B, K, ...] -> [B, M, ...]."""
        outputs = as_columns(self.explained(*args, **kwargs))
        if outputs.dim() == 2:
            return self.combination(outputs)  # type: ignore[no-any-return]
        return self.combination(outputs.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]
