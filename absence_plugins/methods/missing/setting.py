"""What is asked of which network: model, input and references, checked and read once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.checks import check_integer, check_number
from absence_plugins.core.kinds import Kind
from absence_plugins.core.outputs import Logit, Margin, Output, check_logits, class_scores, shrunk
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.scales import check_scales, measure_scale
from absence_plugins.core.scores import announce, run_scores
from absence_plugins.core.training import describe_training, find_drawing, find_training
from absence_plugins.methods.missing.pieces import Pieces, cut_pieces
from absence_plugins.methods.missing.questions import Question, check_rivals

FIRM = "a certificate would not hold for the next forward"


@dataclass(frozen=True, eq=False)
class Setting:
    """A checked question.

    Attributes:
        model: images [M, ...] to scores.
        x: [1, ...].
        references: [k, ...].
        empty: the value of blank content.
        pieces: how x is cut.
        question: of the missing set; its bound is in the units of u.
        classes: what the network decides on x, and on the references: class numbers, None of a single output.
    """

    model: Callable[..., Any]
    x: Tensor
    references: Tensor
    empty: Tensor | float
    pieces: Pieces
    question: Question
    classes: tuple[int | None, ...]


def read_setting(
    model: Callable[..., Any],
    x: Tensor,
    reference: Tensor | ReferenceSet,
    output: Any,
    foil: int | None,
    margin: float,
    pieces: int | Tensor | Kind | None,
    empty: Tensor | float,
) -> Setting:
    """Check the arguments of :func:`~absence_plugins.methods.missing.missing_set` and read the network once.

    Raises:
        TypeError, ValueError: as there.
    """
    _check_input(x)
    active = find_training(model)
    if active:
        raise ValueError(describe_training(*active, FIRM))
    check_number("margin", margin, 0)
    with torch.no_grad():
        drawing = find_drawing(model, lambda: run_scores(model, (x,)), [x])
        if drawing:
            raise ValueError(describe_training(*drawing, FIRM))
        scores, ending = run_scores(model, (x,), samples=1)
    announce(ending, stacklevel=4)
    columns = class_scores(scores.detach()).double()
    if output is None:
        check_rivals(ending if columns.shape[1] > 1 else "")
    target = int(columns[0].argmax())
    question = _question(columns, output, foil, margin, target)
    references, kind, empty = _references(reference, x, target if columns.shape[1] > 1 else None, empty)
    if output is None:
        others = torch.cat([*shrunk((x,)), references])
        check_logits(scores.detach(), lambda: torch.cat([_scores(model, one) for one in torch.split(others, 1)]))
    cut = cut_pieces(x, pieces, kind)
    before = float(question.read(model, x))
    if not torch.isfinite(torch.tensor(before)):
        raise ValueError(f"the output is NaN or infinite ({before}) on x; check the input and the weights")
    if output is not None:
        question = replace(question, bound=before - margin)
    elif before <= 0:
        raise ValueError(
            f"x is not decided for class {target} against {foil}: their logits differ by {before:.4g}; name another foil"
            if foil is not None
            else f"two logits of x are equal ({before:.4g}), so nothing is decided"
        )
    classes = question.decide(model, torch.cat([x, references]))
    return Setting(model, x, references, empty, cut, question, tuple(classes))


def _scores(model: Callable[..., Any], x: Tensor) -> Tensor:
    with torch.no_grad():
        return run_scores(model, (x,), samples=1)[0]


def _question(columns: Tensor, output: Any, foil: int | None, margin: float, target: int) -> Question:
    """The question of a missing set; the bound of an output is set once u(x) is known."""
    count = columns.shape[1]
    if output is not None:
        if foil is not None:
            raise ValueError(
                f"foil={foil!r} belongs to a decision; with output= leave it out, or pass output=Margin(a, b)"
            )
        output = Logit(check_integer("output", output, 0, count - 1)) if hasattr(output, "__index__") else output
        if not isinstance(output, Output) and not hasattr(output, "of"):
            raise TypeError(f"output must be a class index, an Output or a Unit, got a {type(output).__name__}")
        if margin == 0:
            hint = " (of a margin of logits: leave output out and name foil=)" if isinstance(output, Margin) else ""
            raise ValueError(f"say by how much the output must fall: margin=<a number above 0>{hint}")
        return Question(output=output, is_strict=False)
    if count < 2:
        if foil is not None:
            raise ValueError(f"foil={foil!r}: the model has a single output, of which the sign is the decision")
        return Question(sign=1 if float(columns[0, 0]) >= 0 else -1, bound=0.0 - margin)
    if foil is not None and check_integer("foil", foil, 0, count - 1) == target:
        raise ValueError(f"foil={foil} is what the model decides for on x; name another class")
    return Question(target=target, foil=foil, bound=0.0 - margin)


def _check_input(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor [1, ...], got {type(x).__name__}")
    if x.dim() < 2 or len(x) != 1:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass one input with its batch axis, such as images[:1]")
    if not x.numel():
        raise ValueError(f"x is empty: its shape is {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x holds NaN or infinite values")


def _references(
    reference: Any, x: Tensor, target: int | None, empty: Tensor | float
) -> tuple[Tensor, Kind | None, Tensor | float]:
    """References [k, ...], the kind of data, and what is blank."""
    if isinstance(reference, ReferenceSet):
        label = target if reference.labels is not None else None
        near = reference.nearest(x, label)
        assert isinstance(near, Tensor)
        return near[0], reference.kind, reference.empty[0].to(x)
    if not isinstance(reference, Tensor):
        raise TypeError(f"reference must be a tensor [k, ...] or a ReferenceSet, got {type(reference).__name__}")
    if reference.shape[1:] != x.shape[1:] or not len(reference):
        raise ValueError(
            f"the reference has shape {tuple(reference.shape)}, x {tuple(x.shape)}; pass one or several of x's shape, "
            f"[k, {', '.join(map(str, x.shape[1:]))}]"
        )
    if not bool(torch.isfinite(reference).all()):
        raise ValueError("the reference holds NaN or infinite values")
    check_scales([x], [measure_scale(reference)])
    return reference.detach().to(x), None, empty


def reject_same(setting: Setting) -> None:
    """Reject references that are all decided as x is. Raises ValueError with the remedy."""
    own, *others = setting.classes
    if own is not None and all(one == own for one in others):
        which = "the reference" if len(others) == 1 else "all references"
        raise ValueError(
            f"the model decides for class {own} on x and on {which}, so nothing there takes the decision away; pass a "
            "reference that the model gives another class (a ReferenceSet with labels finds the nearest), or ask about an "
            "output: output=, margin="
        )
