"""Is what a map says of a text's tokens true? They are put in, or taken out, and so are other words as a control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from absence_plugins import TextKind
from absence_plugins.methods.regions import ThingTest, ThingTests, strongest_things
from absence_plugins.methods.regions.thing_names import name_thing

GAP = -1  # in place of a token that only the other text has
NOTHING = "(nothing)"
THINGS = 3  # that a test looks at
DRAWS = 19  # the fewest with which p can be 0.05
LEAST = 1e-3  # of the largest output: a smaller change counts as none


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class WordTest(ThingTest):
    """As :class:`~absence_plugins.methods.regions.ThingTest`; its control are other words in the same places, or of the
    same text.
    """

    @property
    def _elsewhere(self) -> tuple[str, str]:  # type: ignore[override]
        return "with other words", "other words"

    def describe_draws(self) -> str:
        """Why there are so few draws."""
        if not self.available:
            return "there is no other word, so"
        count = f"only {self.available} other words" if self.available > 1 else "only one other word"
        return f"there {'are' if self.available > 1 else 'is'} {count}, so"


def measure_tokens(
    read: Callable[[Sequence[Tensor]], Tensor],
    kind: TextKind,
    x: Tensor,
    reference: Tensor,
    evidence: Tensor,
    words: Tensor,
    *,
    is_missing: bool,
    rises: bool,
    seed: int,
) -> ThingTests:
    """Put the strongest tokens that only the reference has into the text, or take out those that only the text has.

    The control puts other words in the same places, or takes out as many other words of the text.

    Args:
        read: texts, each its token ids [T], -> the explained output [N].
        kind: words and special tokens, those of a gap included (:func:`with_gap`).
        x: the aligned text [P], GAP where it lacks a token.
        reference: likewise [P].
        evidence: R of every pair [P], of what is tested; else 0.
        words: ids to draw from.
        is_missing: whether tokens are put in.
        rises: whether the map says that the output rises.
        seed: of the draws.
    """
    things = strongest_things(kind, evidence, THINGS, ids=torch.stack([x, reference]))
    before = float(read([_plain(x)])[0])
    most = (DRAWS + 1) * len(things) - 1  # of several the p values are corrected
    tests: list[WordTest] = []
    for number, where in enumerate(things):
        changed = torch.where(where, reference, x)
        draws, available = _draw(kind, x, reference, where, words, is_missing=is_missing, seed=seed + number, most=most)
        values = read([_plain(one) for one in (changed, *draws)]).double()
        name, replaced = name_thing(kind, where, x, reference)
        least = LEAST * float(torch.cat([values, torch.tensor([before], dtype=values.dtype)]).abs().max())
        tests.append(
            WordTest(
                where=where,
                image=changed,
                rises=rises,
                before=before,
                after=float(values[0]),
                random_values=values[1:],
                least=least,
                kind=kind,
                name=name,
                replaced=replaced,
                control="others",
                available=available,
            )
        )
    fewest = min((len(test.random_values) for test in tests if len(test.random_values)), default=0)
    kept = tuple(_cut(test, fewest) for test in tests)
    return ThingTests(tests=kept, how="replaced by the reference's", kind=kind, control="others")


def with_gap(kind: TextKind) -> TextKind:
    """The same kind, with a token for nothing."""
    return TextKind({**kind.words, GAP: NOTHING}, (*kind.special, GAP))


def _cut(test: WordTest, count: int) -> WordTest:
    """With as many draws as the others have."""
    return replace(test, random_values=test.random_values[:count])


def _plain(ids: Tensor) -> Tensor:
    """A text without gaps."""
    return ids[ids != GAP]


def _draw(
    kind: TextKind,
    x: Tensor,
    reference: Tensor,
    where: Tensor,
    words: Tensor,
    *,
    is_missing: bool,
    seed: int,
    most: int,
) -> tuple[list[Tensor], int]:
    """Texts of the control, and how many words there are to draw from."""
    generator = torch.Generator().manual_seed(seed)
    count = int(where.sum())
    if is_missing:
        others = words[~torch.isin(words, torch.cat([reference[where], x[where]]))]
        size = int((where & (reference != GAP)).sum())
        sets = [others[one] for one in _sets(len(others), size, generator, most)]
        return [_put(x, reference, where, one) for one in sets], len(others)
    free = (~where & ~kind.is_special(x)).nonzero().flatten()
    sets = [free[one] for one in _sets(len(free), count, generator, most)]
    return [x.index_fill(0, one, GAP) for one in sets], len(free)


def _put(x: Tensor, reference: Tensor, where: Tensor, words: Tensor) -> Tensor:
    """The text with words in the places of those that the reference has."""
    changed = torch.where(where, reference, x)
    changed[where & (reference != GAP)] = words
    return changed


def _sets(total: int, size: int, generator: torch.Generator, most: int = DRAWS) -> list[Tensor]:
    """Different sets of ``size`` of so many numbers; at most ``most``.

    >>> len(_sets(30, 1, torch.Generator())), len(_sets(5, 1, torch.Generator())), len(_sets(2, 3, torch.Generator()))
    (19, 5, 0)
    """
    if not 0 < size <= total:
        return []
    if size == 1:
        return list(torch.randperm(total, generator=generator)[:most, None])
    found: dict[tuple[int, ...], Tensor] = {}
    for _ in range(20 * most):
        one = torch.randperm(total, generator=generator)[:size]
        found.setdefault(tuple(sorted(one.tolist())), one)
        if len(found) == most:
            break
    return list(found.values())
