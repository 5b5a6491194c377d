"""Minimal missing sets of real digits: against all subsets, and against pertinent negatives by optimization."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.methods.missing import MissingSet, Search, missing_set, sufficient_set

IMAGES, CELL = 30, 8


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return digits_cnn()


@pytest.fixture(scope="module")
def references(model: nn.Module) -> ReferenceSet:
    """Digits that the network itself sees as what they are."""
    digits = load_digits()
    with torch.no_grad():
        known = model(digits.train_images).argmax(1) == digits.train_labels
    return ReferenceSet(digits.train_images[known], digits.train_labels[known], k=4)


def leads(model: nn.Module, images: Tensor, target: int) -> Tensor:
    with torch.no_grad():
        logits = model(images).double()
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], 1)
    return logits[:, target] - others.amax(1)


def smallest(model: nn.Module, found: MissingSet, cell: int) -> int:
    """The size of the smallest set of cells that takes the decision away, all sets tried: a second writing."""
    x, reference, changed = found.given.x, found.given.reference, found.given.place < found.pieces
    side = x.shape[-1] // cell
    cells = [
        (slice(cell * (n // side), cell * (n // side + 1)), slice(cell * (n % side), cell * (n % side + 1)))
        for n in range(side**2)
    ]
    target = int(model(x).argmax())
    for size in range(1, len(found)):
        images = []
        for chosen in combinations(range(len(cells)), size):
            mask = torch.zeros(x.shape[-2:], dtype=torch.bool)
            for number in chosen:
                mask[cells[number]] = True
            images.append(mask)
        for part in torch.split(torch.stack(images), 64):
            if bool((leads(model, torch.where(part[:, None] & changed, reference, x), target) < 0).any()):
                return size
    return len(found)


@pytest.mark.slow
def test_within_a_tenth_of_the_exhaustive_search_over_cells(model: nn.Module, references: ReferenceSet) -> None:
    found, best = [], []
    for x in torch.split(load_digits().test_images[:IMAGES], 1):
        one = missing_set(model, x, references, pieces=CELL, paste="all", search=Search(proof=0))
        assert one.is_minimal
        assert one.verify(model)
        found.append(len(one))
        best.append(smallest(model, one, CELL))
    assert max(best) > 2
    assert sum(found) <= 1.1 * sum(best)
    assert sum(own == least for own, least in zip(found, best, strict=True)) >= 0.9 * IMAGES


@pytest.mark.slow
def test_every_certificate_of_pixels_is_true(model: nn.Module, references: ReferenceSet) -> None:
    for x in torch.split(load_digits().test_images[30:36], 1):
        found = missing_set(model, x, references, search=Search(budget=500, proof=0))
        target, reference = int(model(x).argmax()), found.given.reference
        full = torch.where(found.mask, reference, x)
        assert float(leads(model, full, target)) < 0
        rows = [divmod(member, 32) for member in found.members]
        left = full.repeat(len(rows), 1, 1, 1)
        for number, (row, column) in enumerate(rows):
            left[number, 0, row, column] = x[0, 0, row, column]
        values = leads(model, left, target)
        assert bool((values >= -1e-4).all())
        assert torch.allclose(values, found.certificate, atol=1e-4)


@pytest.mark.slow
def test_a_sufficient_set_keeps_the_decision_on_the_reference(model: nn.Module, references: ReferenceSet) -> None:
    for x in torch.split(load_digits().test_images[36:42], 1):
        found = sufficient_set(model, x, references, pieces=4, search=Search(budget=500, proof=100))
        target = int(model(x).argmax())
        image = torch.where(found.mask, x, found.given.reference)
        assert int(model(found.given.reference).argmax()) != target
        assert int(model(image).argmax()) == target
        assert found.is_minimal
        assert found.verify(model)


def pertinent_negative(model: nn.Module, x: Tensor, room: Tensor, margin: float, sparsity: float) -> int | None:
    """How many pixels the contrastive explanation method changes (Dhurandhar et al., 2018): FISTA, search for c.

    min over a in [0, 1]: c max(lead + margin, 0) + sparsity |a|_1 + |a|_2^2, of the image x + a * room.
    """
    target, best, low, high, c = int(model(x).argmax()), None, 0.0, None, 1.0
    for _ in range(5):
        a, slow, is_found = torch.zeros_like(x), torch.zeros_like(x), False
        for step in range(120):
            point = slow.clone().requires_grad_()
            logits = model(x + point * room)[0]
            lead = logits[target] - torch.cat([logits[:target], logits[target + 1 :]]).max()
            loss = c * (lead + margin).clamp(min=0) + point.square().sum()
            (gradient,) = torch.autograd.grad(loss, point)
            rate = 0.05 * (1 - step / 120) ** 0.5
            fresh = (slow - rate * gradient - rate * sparsity).clamp(0, 1)
            slow = (fresh + step / (step + 3) * (fresh - a)).clamp(0, 1)
            a = fresh
            if float(leads(model, x + a * room, target)) < -margin:
                is_found, changed = True, int((a * room != 0).sum())
                best = changed if best is None else min(best, changed)
        if is_found:
            high, c = c, (low + c) / 2
        else:
            low, c = c, 10 * c if high is None else (c + high) / 2
    return best


@pytest.mark.slow
def test_never_larger_than_pertinent_negatives_by_optimization(model: nn.Module, references: ReferenceSet) -> None:
    """At the same margin, against the same reference, with the same pixels free to change."""
    compared = 0
    for x in torch.split(load_digits().test_images[42:46], 1):
        found = missing_set(model, x, references, margin=1.0, search=Search(proof=0))
        changed = found.given.place < found.pieces
        room = torch.where(changed, found.given.reference - x, 0.0)
        rivals = [pertinent_negative(model, x, room, 1.0, sparsity) for sparsity in (0.1, 1.0)]
        for rival in rivals:
            if rival is not None:
                compared += 1
                assert len(found) <= rival
    assert compared >= 4
