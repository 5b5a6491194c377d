"""The smallest set of pieces whose insertion takes a decision away, or (presence) already gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.checks import check_choice, check_integer
from absence_plugins.core.kinds import Kind
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.turns import working_on
from absence_plugins.methods.missing.candidates import find_best
from absence_plugins.methods.missing.pasting import Pasting
from absence_plugins.methods.missing.pieces import PASTES, Paste
from absence_plugins.methods.missing.result import MissingSet, read_set
from absence_plugins.methods.missing.search import USUAL, Search, find_smaller
from absence_plugins.methods.missing.setting import read_setting, reject_same


def missing_set(
    model: Callable[..., Any],
    x: Tensor,
    reference: Tensor | ReferenceSet,
    *,
    output: Any = None,
    foil: int | None = None,
    margin: float = 0.0,
    pieces: int | Tensor | Kind | None = None,
    empty: Tensor | float = 0.0,
    paste: Paste | None = None,
    search: Search = USUAL,
) -> MissingSet:
    """The smallest set of pieces that x lacks and the reference has, whose insertion takes the decision away.

    The set S of the fewest pieces with u(x_S) < -margin, where x_S is x with the pieces S of the reference, and
    u = z_t - max of the other logits. Pieces enter in the order of their relevance (sum of R over the piece, against
    the reference) until the bound is crossed; then members are left out, those that cost least first, until none can go
    (1-minimal), and exchanged for better ones; small sets are tried out completely. The certificate is u without each
    member.

    Source: this package. Pertinent negatives (Dhurandhar et al., 2018) ask the same by optimization per pixel.

    Args:
        model: images [M, ...] to logits [M, K], or a single output [M], in evaluation mode; one input. Neither changed
            nor copied.
        x: one input with its batch axis [1, ...].
        reference: [k, ...] inputs that have what x lacks, or a :class:`~absence_plugins.ReferenceSet` (the nearest to x
            are taken; its ``kind`` and ``empty`` are used). Of several, the one that needs the fewest pieces.
        output: None: the decision (the class with the highest logit; of a single output its sign). Else a class index,
            an :class:`~absence_plugins.core.outputs.Output` or a :class:`~absence_plugins.Unit`, which must fall by
            ``margin``.
        foil: the only class that counts against the decision; None: any.
        margin: how far the winner must fall behind, or the output fall, in units of u.
        pieces: what is inserted at once, as :func:`~absence_plugins.methods.missing.cut_pieces` takes it.
        empty: the value of blank content, where ``reference`` is a tensor.
        paste: "content": only where the reference has content that x lacks; "all": a piece is replaced as it is, which
            also takes content of x away. None: "content" where that is enough for one of the references, else "all";
            the result and its sentence say which.
        search: how long.

    Returns:
        MissingSet. **Sign**: evidence above 0 raises u on x compared with the reference, so inserting it lowers u.

    Raises:
        TypeError, ValueError: inputs that do not fit, NaN, training mode, a reference that is decided as x is, or
            that does not take the decision away even as a whole; the message says what would.

    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> model.weight.data = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
    >>> found = missing_set(model, torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]]))
    >>> found.members, found.before, found.after, found.certificate.tolist()
    ((1,), 2.0, -1.0, [2.0])
    """
    check_choice("paste", paste, (None, *PASTES))
    with working_on(model):
        setting = read_setting(model, x, reference, output, foil, margin, pieces, empty)
        reject_same(setting)
        return find_best(setting, "missing", setting.question, paste, search)


def sufficient_set(
    model: Callable[..., Any],
    x: Tensor,
    reference: Tensor | ReferenceSet,
    *,
    output: Any = None,
    foil: int | None = None,
    margin: float = 0.0,
    pieces: int | Tensor | Kind | None = None,
    empty: Tensor | float = 0.0,
    paste: Paste = "all",
    search: Search = USUAL,
) -> MissingSet:
    """The smallest set of pieces of x that, pasted into the reference, already gives x's decision (presence).

    The set S of the fewest pieces with u(r_S) > margin, where r_S is the reference with the pieces S of x; of an
    ``output``, u(r_S) >= u(x) - margin. Otherwise as :func:`missing_set`.

    Args:
        model: as there.
        x: as there.
        reference: as there.
        output: as there; it must come within ``margin`` of its value on x.
        foil: as there.
        margin: how far the winner must lead.
        pieces: as there.
        empty: as there.
        paste: "all": a piece of x replaces the reference's; "content": only where x has content that the reference
            lacks.
        search: as there.

    Returns:
        MissingSet. **Sign**: evidence above 0 raises u on x compared with the reference.

    Raises:
        TypeError, ValueError: as there.

    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> model.weight.data = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
    >>> sufficient_set(model, torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])).members
    (0,)
    """
    check_choice("paste", paste, PASTES)
    with working_on(model):
        setting = read_setting(model, x, reference, output, foil, margin, pieces, empty)
        reject_same(setting)
        bound = setting.question.bound if output is not None else margin
        return find_best(setting, "sufficient", replace(setting.question, rises=True, bound=bound), paste, search)


def exhaustive_set(found: MissingSet, model: Callable[..., Any], *, most: int = 100_000) -> MissingSet:
    """The smallest set there is, for the question and the reference of one that was found: all smaller sets are tried.

    Args:
        found: of :func:`missing_set` or :func:`sufficient_set`.
        model: the same model.
        most: images that the network may be asked about. Where that is not enough, ``least`` of the result is the size
            below which there is none, and the set is the one that was found.

    Returns:
        MissingSet: with ``least`` equal to its size if it is proven to be the smallest.

    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> model.weight.data = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 1.0]])
    >>> x, reference = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    >>> found = missing_set(model, x, reference, search=Search(proof=0))
    >>> exhaustive_set(found, model).is_smallest
    True
    """
    check_integer("most", most)
    with working_on(model):
        pasting = Pasting(found.given, model, forwards=[found.forwards])
        smaller, least = find_smaller(pasting, len(found) - 1, most)
        members = torch.zeros(pasting.count, dtype=torch.bool)
        members[list(found.numbers)] = True
        return read_set(pasting, members if smaller is None else smaller, found.scores, least)
