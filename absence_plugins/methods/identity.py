"""What kept work belongs to: a model with its structure and its function, and data by content.

A model is known by its weights, by its modules with their settings, and by what it computes: the values of the layer
that is read and the model's outputs on a probe. Outputs are compared with a tolerance, as another number of threads
changes their last bits, and another device rounds otherwise (a GPU may compute with TF32). Data are known by every
item: the values of a tensor's rows, the bytes of a folder's files, or an attribute ``identity`` with which a data set
says itself what it is.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from absence_plugins.core.devices import device_of
from absence_plugins.core.hooks import evaluating
from absence_plugins.core.randomness import seeded
from absence_plugins.core.reading import plain_model, run_model
from absence_plugins.core.units import Layer

CLOSE = {"float64": 1e-6, "float32": 1e-3}  # relative differences that other threads may make
CLOSE_ELSEWHERE = {"float64": 1e-6, "float32": 1e-2}  # the same of devices other than CPUs: 11 bits in TF32
CLOSE_HALF = 0.05
PROJECTIONS = 6  # numbers that stand for an output, besides its norm
SPOTS = 8  # items that are read again when work on a data set without a fingerprint is resumed
SHORT = 8  # hexadecimal digits by which one item is told from another, for the words
MOST = 64  # entries of a module's setting
NOISE = " on noise"
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
Probe = Tensor | Mapping[str, Any]
PLAIN = (bool, int, float, str, type(None), torch.dtype)


@dataclass(frozen=True)
class Identity:
    """What some work belongs to.

    Attributes:
        settings: ready for JSON; the same for the same work, but for ``outputs``, which need only be close.
        details: by which what differs is put into words.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, other: Identity) -> Identity:
        return Identity({**self.settings, **other.settings}, {**self.details, **other.details})


NOTHING = Identity()


# -- the model --------------------------------------------------------------------------------------------------------


def identify_model(model: nn.Module, probe: Probe, layer: str | Layer | None = None) -> Identity:
    """A model by its weights, its structure, and its outputs on a probe.

    Args:
        model: as before afterwards; compiled, or in ``DataParallel``, it is the model inside.
        probe: [1, ...] as the model takes it, or tensors by name; the model also runs on noise of its range, where it can.
        layer: whose values count, too.

    >>> x, net = torch.ones(1, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> there = identify_model(net, x)
    >>> describe_differences(there, identify_model(nn.Sequential(net[0], nn.Sigmoid()), x))
    ["the structure of the model differs: '1' is ReLU() there and Sigmoid() here"]
    >>> describe_differences(there, identify_model(net, x))
    []
    """
    outputs = _outputs(model, probe, layer)  # first, as a forward makes the weights of lazy modules
    found = dict(_modules_of(model))
    weights = {name: "lazy" if is_lazy(tensor) else digest_of(tensor) for name, tensor in _tensors_of(found)}
    modules = {name: _describe_module(module) for name, module in found.items()}
    settings = {"model": _digest(weights), "structure": _digest(modules), "outputs": outputs}
    short = {name: one[:SHORT] for name, one in weights.items()}
    return Identity(settings, {"model": short, "structure": modules})


def _modules_of(
    module: nn.Module, name: str = "", seen: set[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, as ``named_modules`` names it where no part is compiled or parallel."""
    seen = set() if seen is None else seen
    while (inner := module.module if isinstance(module, PARALLEL) else plain_model(module)) is not module:
        module = inner
    if module not in seen:
        seen.add(module)
        yield name, module
        for child, one in module.named_children():
            yield from _modules_of(one, f"{name}.{child}" if name else child, seen)


def _tensors_of(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer once, also those that a state dict leaves out."""
    seen: set[Tensor] = set()
    for name, module in modules.items():
        for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if tensor not in seen:
                seen.add(tensor)
                yield f"{name}.{own}" if name else own, tensor


def _describe_module(module: nn.Module) -> str:
    """A module's type with its settings: what it says of itself, and the arguments that it has kept."""
    kind = type(module)
    found = [said] if (said := module.extra_repr()) else []
    names: Iterable[str] = ()
    if not kind.__module__.startswith("torch.nn."):  # these say all
        with suppress(TypeError, ValueError):
            names = inspect.signature(kind.__init__).parameters
    for name in names:
        value = vars(module).get(name)
        if name in vars(module) and f"{name}=" not in said and _is_plain(value):
            found.append(f"{name}={getattr(value, '__qualname__', None) or repr(value)}")
    return f"{kind.__name__}({', '.join(found)})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, PLAIN) or (callable(value) and hasattr(value, "__qualname__")):
        return True
    parts = list(value.values()) if isinstance(value, dict) else value
    return isinstance(parts, (tuple, list)) and len(parts) <= MOST and all(isinstance(part, PLAIN) for part in parts)


def _outputs(model: nn.Module, probe: Probe, layer: str | Layer | None) -> dict[str, Any]:
    """Of the layer, and of the model where it runs on the probe, in a few numbers."""
    generator = torch.Generator().manual_seed(0)
    tensors = [probe] if isinstance(probe, Tensor) else [one for one in probe.values() if isinstance(one, Tensor)]
    device = device_of(model, tensors[0] if tensors else None)
    found: dict[str, Any] = {"device": device.type}
    for where in ("", NOISE):  # one at a time, as some models take no more
        x = _each(probe, lambda one, noisy=where == NOISE: (_noise_like(one, generator) if noisy else one).to(device))  # type: ignore[misc]
        if layer is not None:
            rejects = (Exception,) if where == NOISE else ()
            with suppress(*rejects), seeded(0), Layer.of(layer).reading(model) as run:  # seeded: a forward may draw
                found[f"layer{where}"] = [_summarize(run(x))]
        with suppress(Exception), seeded(0), torch.no_grad(), evaluating(model):  # behind the layer it need not fit
            found[f"model{where}"] = [_summarize(one) for one in _floats_in(run_model(model, (x,)))]
    return found


def _each(probe: Probe, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(probe, Tensor):
        return change(probe)
    return {name: change(one) if isinstance(one, Tensor) else one for name, one in probe.items()}


def _noise_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Noise in the range of a tensor; masks, which hold 0 and 1 only, stay."""
    if value.dtype == torch.bool or (not value.is_floating_point() and int(value.max()) <= 1):
        return value
    low, high = float(value.min()), float(value.max())
    return (low + torch.rand(value.shape, generator=generator) * ((high - low) or 1.0)).to(value)


def _floats_in(value: Any) -> list[Tensor]:
    """All tensors of numbers in an output, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, one.name) for one in fields(value)]
    return [one for part in value for one in _floats_in(part)] if isinstance(value, (tuple, list)) else []


def _summarize(output: Tensor) -> dict[str, Any]:
    """Shape, type, norm, and random projections in units of the norm."""
    flat = output.detach().double().cpu().flatten()
    broken = int((~torch.isfinite(flat)).sum())
    flat = flat.nan_to_num(0.0, 0.0, 0.0)
    norm, generator = float(flat.norm()), torch.Generator().manual_seed(0)
    found = []
    for _ in range(PROJECTIONS):
        signs = torch.randint(0, 2, flat.shape, generator=generator, dtype=torch.int8) * 2 - 1
        found.append(float(signs.double() @ flat) / (norm or 1.0))
    kind = str(output.dtype).removeprefix("torch.")
    return {"shape": list(output.shape), "type": kind, "broken": broken, "norm": norm, "values": found}


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> float:
    """How far two summaries are apart, relative to the larger norm; infinite for other shapes."""
    if any(there[name] != here[name] for name in ("shape", "type", "broken")):
        return float("inf")
    scale = max(there["norm"], here["norm"]) or 1.0
    pairs = zip(there["values"], here["values"], strict=True)
    return float(max(abs(there["norm"] - here["norm"]) / scale, *(abs(one - other) for one, other in pairs)))


def _describe_outputs(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In what two models' outputs differ by more than rounding; "" if they do not."""
    is_cpu = there.get("device") == here.get("device") == "cpu"
    close = CLOSE if is_cpu else CLOSE_ELSEWHERE
    words = (("layer", "the values of the layer"), ("model", "the outputs of the model"))
    for name, what in ((f"{name}{where}", what) for name, what in words for where in ("", NOISE)):
        if not there.get(name) or not here.get(name):
            continue  # it did not run there, or not here
        if len(there[name]) != len(here[name]):
            return f"{what} are {len(there[name])} tensors there and {len(here[name])} here"
        for one, other in zip(there[name], here[name], strict=True):
            off = _difference(one, other)
            if off > close.get(other["type"], CLOSE_HALF):
                by = f"by {off:.2g} of their size" if off != float("inf") else "in shape or type"
                return f"{what} on the same input differ {by}, though weights and modules are the same"
    return ""


# -- the data ---------------------------------------------------------------------------------------------------------


def identify_data(dataset: Any, numbers: Sequence[int] | None = None, pixels: Tensor | None = None) -> Identity:
    """Data by content, as far as this costs no further pass: see :func:`digest_items`.

    Args:
        dataset: a tensor, a list of tensors, a folder of images, or any other data set.
        numbers: of the items that are used; None: all.
        pixels: some of them as the model takes them, which also tells another preprocessing.

    >>> x = torch.arange(6.0).reshape(3, 2)
    >>> other = x.clone()
    >>> other[2, 1] = 9.0
    >>> describe_differences(identify_data(x), identify_data(other))
    ['the images differ: image 2 is another one']
    """
    chosen = range(len(dataset)) if numbers is None else numbers
    own = {} if pixels is None else {"pixels": digest_of(pixels)}
    if (stated := getattr(dataset, "identity", None)) is not None:
        own["identity"] = str(stated)
    items = digest_items(dataset, chosen)
    if items is not None:
        names = [name_of(dataset, number) for number in chosen]
        words: dict[str, Any] = {"images": "".join(one[:SHORT] for one in items)}
        words |= {"names": names} if any(names) else {}
        words |= {"numbers": list(chosen)} if numbers is not None else {}
        return Identity({**own, "data": _digest(items)}, words)
    return Identity(own)


def digest_items(dataset: Any, numbers: Sequence[int]) -> list[str] | None:
    """A hash of every item that is in memory, or of which the data set knows one (``item_identity(number)``).

    Of items that are tuples the first part counts. None: the items can be known only by reading them.

    >>> [len(one) for one in digest_items([torch.zeros(2), torch.ones(2)], [0, 1])]
    [16, 16]
    """
    if callable(known := getattr(dataset, "item_identity", None)):
        return [hashlib.sha256(str(known(number)).encode()).hexdigest()[:16] for number in numbers]
    if isinstance(dataset, torch.utils.data.Subset):
        return digest_items(dataset.dataset, [dataset.indices[number] for number in numbers])
    if isinstance(dataset, torch.utils.data.TensorDataset):
        return digest_items(dataset.tensors[0], numbers)
    if isinstance(dataset, Tensor):
        return [digest_of(dataset[number]) for number in numbers]
    if isinstance(dataset, (list, tuple)):
        parts = [dataset[number] for number in numbers]
        parts = [part[0] if isinstance(part, (list, tuple)) and part else part for part in parts]
        return [digest_of(part) for part in parts] if all(isinstance(part, Tensor) for part in parts) else None
    return None


def name_of(dataset: Any, number: int) -> str:
    """What a data set calls an item (``item_name(number)``); "" if it has no names."""
    if isinstance(dataset, torch.utils.data.Subset):
        return name_of(dataset.dataset, dataset.indices[number])
    named = getattr(dataset, "item_name", None)
    return str(named(number)) if callable(named) else ""


def number_of(item: Tensor) -> int:
    """A hash of an item as a number that is never 0, for tables of what was read."""
    return int(digest_of(item)[:15], 16) + 1


def spot_rows(seen: Tensor) -> list[int]:
    """Rows of a table of :func:`number_of` to read again before work is resumed: evenly spread, at most 8.

    >>> spot_rows(torch.tensor([5, 6, 0, 7]))
    [0, 1, 3]
    """
    rows = seen.nonzero()[:, 0].tolist()
    return sorted({rows[round(k * (len(rows) - 1) / (SPOTS - 1))] for k in range(SPOTS)}) if rows else []


def check_seen(seen: Tensor, read: Callable[[int], Tensor], numbers: Sequence[int], where: object) -> None:
    """Read some items again and compare them with a table of :func:`number_of`, row by row of ``numbers``.

    For data sets that cannot be known without reading them, or were not when the work began.

    Raises:
        ValueError: one is another item than it was; ``where``: the folder of the work.
    """
    for row in spot_rows(seen):
        if number_of(read(numbers[row])) != int(seen[row]):
            raise ValueError(
                f"checkpoint {where} belongs to other images: image {numbers[row]} is another one than it was; name "
                "another folder, or delete it (a data set with random augmentation has no images to go by: give it an "
                "attribute identity)"
            )


def _describe_data(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if "images" not in there or "images" not in here:
        return "the images differ"
    old, new = (_split(one["images"]) for one in (there, here))
    if len(old) != len(new):
        return f"the images differ: {len(old)} there and {len(new)} here"
    other = [row for row, (one, two) in enumerate(zip(old, new, strict=True)) if one != two]
    if not other:
        return "the images differ"
    row = other[0]
    name, before = (one["names"][row] if one.get("names") else "" for one in (here, there))
    named = f" ({name})" if name and name == before else f" ({name}, there {before})" if name else ""
    rest = f", and {len(other) - 1} more" if len(other) > 1 else ""
    return f"the images differ: image {here['numbers'][row] if 'numbers' in here else row}{named} is another one{rest}"


def _split(joined: str) -> list[str]:
    return [joined[at : at + SHORT] for at in range(0, len(joined), SHORT)]


# -- in words ---------------------------------------------------------------------------------------------------------


def describe_differences(there: Identity, here: Identity) -> list[str]:
    """In what two pieces of work differ; [] if they are the same.

    >>> describe_differences(Identity({"seed": 0}), Identity({"seed": 1}))
    ['seed is 0 there and 1 here']
    """
    found, old, new = [], there.settings, here.settings
    for name in {**old, **new}:
        is_optional = name in ("data", "identity") and (name in old) != (name in new)  # of another kind: see check_seen
        if name == "outputs" or is_optional or old.get(name) == new.get(name):
            continue
        words = there.details.get(name, {}), here.details.get(name, {})
        if name == "model":
            found.append(f"the weights of the model differ{_first_difference(*words, named=True)}")
        elif name == "structure":
            found.append(f"the structure of the model differs{_first_difference(*words)}")
        elif name == "patches":
            found.append(_describe_patches(*words))
        elif name == "data":
            found.append(_describe_data(there.details, here.details))
        elif name == "pixels":
            found.append("the images differ as the model takes them: other images, or another preprocessing")
        else:
            found.append(f"{name} is {old.get(name)!r} there and {new.get(name)!r} here")
    if any(line.startswith(("the images differ: ", "identity is")) for line in found):  # which say more
        found = [line for line in found if not line.startswith("the images differ as")]
    if not found and "outputs" in old and "outputs" in new:
        found += filter(None, [_describe_outputs(old["outputs"], new["outputs"])])
    return found


def _describe_patches(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    for unit in {**there, **here} if there and here else ():
        if unit not in there or unit not in here:
            return f"the patches differ: unit {unit} has some only {'there' if unit in there else 'here'}"
        if there[unit] != here[unit]:
            return f"the patches differ: those of unit {unit} lie at other places, or their number differs"
    return "the patches differ"


def _first_difference(there: Mapping[str, str], here: Mapping[str, str], *, named: bool = False) -> str:
    """The first entry that is another one; "" where there are no details."""
    for name in {**there, **here} if there and here else ():
        if there.get(name) != here.get(name):
            if named:
                return f": {name!r} is another tensor"
            one, other = (words.get(name, "missing") for words in (there, here))
            return f": {name!r} is {one} there and {other} here"
    return ""


def digest_of(*tensors: Tensor) -> str:
    """A short hash of tensors' values and shapes.

    >>> digest_of(torch.zeros(2)) == digest_of(torch.zeros(2)), digest_of(torch.zeros(2)) == digest_of(torch.ones(2))
    (True, False)
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _digest(value: Any) -> str:
    parts = value.items() if isinstance(value, Mapping) else value
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
