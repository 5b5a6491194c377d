"""What a model takes, in rows: a tensor [N, ...], or tensors by name as a tokenizer or processor makes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.checks import check_integer
from absence_plugins.core.dataset_items import LABEL_KEYS, image_and_label
from absence_plugins.core.devices import device_of
from absence_plugins.core.randomness import RandomStates, seeded
from absence_plugins.core.reading import plain_model
from absence_plugins.methods.identity import Identity, digest_of, identify_data

Inputs = Tensor | Mapping[str, Tensor]
BATCHES = (type(None), torch.utils.data.BatchSampler)  # of a loader whose sampler says the order
MASK = "attention_mask"  # 1 where a token is read, 0 where it pads the text


def each_tensor(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same inputs with every tensor changed.

    >>> each_tensor({"input_ids": torch.ones(2, 3)}, lambda ids: ids[:1])
    {'input_ids': tensor([[1., 1., 1.]])}
    """
    if isinstance(inputs, Tensor):
        return change(inputs)
    return {name: change(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def count_rows(inputs: Inputs) -> int:
    """How many samples: the length of the (first) tensor.

    Raises:
        TypeError: no tensor.
    """
    tensors = [inputs] if isinstance(inputs, Tensor) else [one for one in inputs.values() if isinstance(one, Tensor)]
    if not tensors:
        raise TypeError("the inputs hold no tensor; pass a tensor [N, ...], or tensors by name")
    return len(tensors[0])


def take_rows(inputs: Inputs, rows: slice | Tensor) -> Inputs:
    """Some samples."""
    return each_tensor(inputs, lambda value: value[rows.to(value.device) if isinstance(rows, Tensor) else rows])


def repeat_row(inputs: Inputs, count: int) -> Inputs:
    """One sample [1, ...], ``count`` times, without copies."""
    return each_tensor(inputs, lambda value: value.expand(count, *value.shape[1:]))


def vary(inputs: Inputs) -> Inputs:
    """Another input of the same form: numbers are mirrored and shifted, token numbers go round, masks stay.

    >>> vary(torch.tensor([[0, 4, 2]]))
    tensor([[3, 0, 1]])
    """

    def varied(value: Tensor) -> Tensor:
        if value.is_floating_point():
            return value.flip(-1) * 0.5 + value.std().nan_to_num(1.0)
        top = int(value.max()) if value.numel() else 0
        return value if value.dtype == torch.bool or top <= 1 else (value.flip(-1) + 1) % (top + 1)

    return each_tensor(inputs, varied)


def is_padded(inputs: Inputs) -> bool:
    """Whether a mask leaves out tokens of some samples: what follows a layer then depends on the mask, too."""
    mask = None if isinstance(inputs, Tensor) else inputs.get(MASK)
    return mask is not None and bool((mask == 0).any())


def batches_of(dataset: Any, batch_size: int, model: nn.Module) -> Iterator[Inputs]:
    """Batches of what the model takes, of a tensor [N, ...], tensors by name, a data set or a loader; on its device.

    Of items (image, label, ...) the image; of dictionaries what the model's forward takes by name, without labels, or
    the image; empty batches are left out. What a loader or data set draws leaves the global random states as they are.

    Raises:
        TypeError: what it yields is no tensor.

    >>> net, labels = nn.Linear(2, 1), torch.zeros(3)
    >>> [len(x) for x in batches_of(torch.utils.data.TensorDataset(torch.ones(3, 2), labels), 2, net)]
    [2, 1]
    """
    parameter = next(model.parameters(), None)
    for item in _read_apart(_loader_of(dataset, batch_size)):
        inputs = _inputs_of(item, model)
        if count_rows(inputs):
            device = None if parameter is None else device_of(model)
            yield inputs if device is None else each_tensor(inputs, lambda value, to=device: value.to(to))  # type: ignore[misc]


def batches_in_turn(
    dataset: Any, batch_size: int, model: nn.Module, wants: Callable[[range], bool]
) -> Iterator[tuple[range, Inputs | None]]:
    """The samples' numbers of every batch in order, and the inputs of those that are wanted, as :func:`batches_of` has
    them. Where samples can be had by number, those of no other batch are read; a loader is read as a whole.

    >>> wanted = batches_in_turn(torch.arange(3.0), 2, nn.ReLU(), lambda numbers: numbers.start > 0)
    >>> list(wanted)
    [(range(0, 2), None), (range(2, 3), tensor([2.]))]
    """
    if not _has_numbers(dataset):
        first = 0
        for inputs in batches_of(dataset, batch_size, model):
            numbers = range(first, first + count_rows(inputs))
            yield numbers, inputs if wants(numbers) else None
            first = numbers.stop
        return
    count = count_samples(dataset) or 0
    every = [range(at, min(at + batch_size, count)) for at in range(0, count, batch_size)]
    wanted = [wants(numbers) for numbers in every]
    chosen = [numbers for numbers, is_wanted in zip(every, wanted, strict=True) if is_wanted]
    found = batches_of(_Chosen(dataset, chosen), batch_size, model)
    for numbers, is_wanted in zip(every, wanted, strict=True):
        yield numbers, next(found) if is_wanted else None


@dataclass(frozen=True)
class _Chosen:
    """Some batches of what has samples by number."""

    dataset: Any
    batches: list[range]


def _has_numbers(dataset: Any) -> bool:
    """Whether samples can be had by number: of a tensor, tensors by name, a data set; a loader has its own order."""
    if isinstance(dataset, (Tensor, Mapping)):
        return True
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not hasattr(dataset, "batch_size")


def _read_apart(loader: Any) -> Iterator[Any]:
    """Items of a loader that draws from random states of its own, which begin as the global ones are."""
    own: RandomStates | None = None
    items: Iterator[Any] | None = None
    while True:
        with seeded():
            if own is not None:
                own.restore()
            items = iter(loader) if items is None else items
            try:
                item = next(items)
            except StopIteration:
                return
            own = RandomStates()
        yield item


def count_samples(dataset: Any) -> int | None:
    """How many samples a data set or loader says it holds; None if it does not say.

    >>> count_samples(torch.zeros(5, 2)), count_samples(iter([]))
    (5, None)
    """
    if isinstance(dataset, (Tensor, Mapping)):
        return count_rows(dataset)
    if isinstance(dataset, torch.utils.data.DataLoader):
        return _count_in_loader(dataset)
    return len(dataset) if hasattr(dataset, "__len__") and not hasattr(dataset, "batch_size") else None


def _count_in_loader(loader: torch.utils.data.DataLoader[Any]) -> int | None:
    """How many samples a loader yields, which may be fewer than its data set holds; None: its items may be batches."""
    if loader.batch_sampler is None:
        return None
    if isinstance(loader.dataset, torch.utils.data.IterableDataset) or type(loader.batch_sampler) not in BATCHES:
        held = loader.dataset
    else:
        held = _sampler_of(loader)
    count = len(held) if hasattr(held, "__len__") else None
    if count is not None and loader.batch_size and loader.drop_last:
        count -= count % loader.batch_size
    return count


def _sampler_of(loader: torch.utils.data.DataLoader[Any]) -> Any:
    """What orders a loader's samples: its sampler, or a batch sampler of the user's own."""
    batches = loader.batch_sampler
    if type(batches) not in BATCHES:
        return batches
    return loader.sampler if batches is None else batches.sampler  # type: ignore[attr-defined]


def identify_inputs(dataset: Any, probe: Inputs) -> Identity:
    """Data by content, as far as this costs no further pass; else by the first sample, ``probe``."""
    tensors = [probe] if isinstance(probe, Tensor) else [one for one in probe.values() if isinstance(one, Tensor)]
    if isinstance(dataset, Mapping):
        tensors = [one for one in dataset.values() if isinstance(one, Tensor)]
    own = Identity({"pixels": digest_of(*tensors)})
    held = dataset.dataset if isinstance(dataset, torch.utils.data.DataLoader) else dataset
    return own | identify_data(held) if hasattr(held, "__len__") and not isinstance(held, Mapping) else own


def check_readable_again(dataset: Any, in_order: Sequence[str]) -> None:
    """Reject what can be read once only; for the options ``in_order`` also a loader that has an order of its own.

    Raises:
        TypeError, ValueError: with the remedy.
    """
    if isinstance(dataset, Iterator):
        raise TypeError("dataset is an iterator, which can be read only once; pass a tensor, a data set or a loader")
    if not in_order or not isinstance(dataset, torch.utils.data.DataLoader):
        return
    if isinstance(dataset.dataset, torch.utils.data.IterableDataset):
        return
    sampler = _sampler_of(dataset)
    if not isinstance(sampler, torch.utils.data.SequentialSampler):
        how = "shuffles" if isinstance(sampler, torch.utils.data.RandomSampler) else "has a sampler of its own"
        raise ValueError(
            f"the loader {how} ({type(sampler).__name__}), but {' and '.join(in_order)} need the samples in the order "
            "of the data set; pass DataLoader(dataset, shuffle=False), of some samples with "
            "torch.utils.data.Subset(dataset, numbers) as its data set"
        )


def _loader_of(dataset: Any, batch_size: int) -> Any:
    check_integer("batch_size", batch_size)
    held, batches = (dataset.dataset, dataset.batches) if isinstance(dataset, _Chosen) else (dataset, None)
    if not _has_numbers(held):
        return held
    if batches is None:
        count = count_samples(held) or 0
        batches = [range(at, min(at + batch_size, count)) for at in range(0, count, batch_size)]
    if isinstance(held, (Tensor, Mapping)):
        return (take_rows(held, slice(numbers.start, numbers.stop)) for numbers in batches)
    return torch.utils.data.DataLoader(
        held, batch_sampler=[*map(list, batches)], generator=torch.Generator(), collate_fn=_collate
    )


def _collate(samples: list[Any]) -> Any:
    """One batch of samples; a list of batches is rejected with the remedy."""
    try:
        ids = samples[0].get("input_ids") if isinstance(samples[0], Mapping) else None
        if not isinstance(ids, Tensor) or ids.dim() < 2:
            return torch.utils.data.default_collate(samples)
    except RuntimeError as error:
        if "stack" not in str(error):
            raise
    raise ValueError(
        "dataset holds samples that cannot be stacked to a batch; if its items are batches, pass "
        "torch.utils.data.DataLoader(dataset, batch_size=None), else give all samples one shape, texts with "
        "padding='max_length'"
    )


def _inputs_of(item: Any, model: nn.Module) -> Inputs:
    given = item[0] if isinstance(item, (tuple, list)) and len(item) else item
    if isinstance(given, Mapping):
        tensors = {str(name): value for name, value in given.items() if isinstance(value, Tensor)}
        parameters = inspect.signature(plain_model(model).forward).parameters
        takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        named = {name: value for name, value in tensors.items() if name in parameters or takes_all}
        named = {name: value for name, value in named.items() if name not in LABEL_KEYS}
        given = named or image_and_label(given, "a batch")[0][0]
    if not isinstance(given, (Tensor, Mapping)):
        raise TypeError(f"dataset yields a {type(given).__name__}; it must yield image tensors, or (image, label)")
    return given
