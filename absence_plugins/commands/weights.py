"""From a file of weights to a model: which of its dictionaries and prefixes the model's own names are in."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from absence_plugins.commands.weight_files import read_weights

DEPTH = 4  # of dictionaries within dictionaries
SHOWN = 3  # names in a message
USUAL = ("", "state_dict", "model", "model_state_dict", "net", "module")  # where the weights of a training lie
WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module)(?=\.)")  # torch.compile's and FSDP's, at any depth
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # in torchvision's published files
EMA = re.compile(r"(^|[._/])ema([._/]|$)")
COUNTER = "num_batches_tracked"  # of a batch norm: not in old files, and not used in evaluation


class OtherClasses(ValueError):
    """Weights that fit but for the number of classes; ``classes``: how many the file has."""

    def __init__(self, text: str, classes: int) -> None:
        super().__init__(text)
        self.classes = classes


@dataclass(frozen=True)
class Found:
    """Weights by the model's names, at one place of a file.

    Attributes:
        entry: names of the dictionaries that they lie in.
        prefix: in front of every name, with its dot; "" where there is none.
        tensors: by the model's names.
        others: names beside the prefix.
        wrapper: "_orig_mod." of torch.compile, or FSDP's, where it was removed from the names.
    """

    entry: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...]
    wrapper: str = ""

    @property
    def place(self) -> str:
        """As "state_dict/model", for messages."""
        return "/".join(part for part in (*self.entry, self.prefix.rstrip(".")) if part)

    @property
    def is_ema(self) -> bool:
        """Whether they are an exponential moving average, by their names."""
        return EMA.search(self.place.lower()) is not None


def load_weights(model: nn.Module, path: Path) -> str:
    """Load a file of weights into a model, wherever in the file its names are; returns a sentence on what was taken.

    The weights may lie in a dictionary (``state_dict``, ``model``, ...; Lightning's checkpoints) and carry a prefix
    (``module.``, ``model.``, torch.compile's ``_orig_mod.``). Where the file also has a moving average of them (EMA),
    that is taken. The model is unchanged after a failure.

    Raises:
        OtherClasses: all fit but for the number of classes.
        ValueError: what cannot be read (see :func:`~absence_plugins.commands.weight_files.read_weights`), fits at
            several places, or does not fit: which names or shapes, in one line.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "net.pth"
    >>> torch.save({"epoch": 3, "model": {"module.weight": torch.eye(2), "module.bias": torch.ones(2)}}, path)
    >>> net = nn.Linear(2, 2)
    >>> load_weights(net, path)
    "The weights are those of net.pth, entry 'model', without the prefix 'module.'."
    >>> net.bias.tolist()
    [1.0, 1.0]
    """
    inside = model.module if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else model
    wanted = _Wanted.of(inside)
    content = read_weights(path)
    dictionaries = list(_dictionaries(content))
    if not dictionaries:
        raise ValueError(f"{path} holds no weights, but {_describe(content)}")
    fitting = [found for names in dictionaries for found in _places(names, wanted)]
    if fitting:
        chosen = _choose(path, fitting)
        unknown = [name for name in chosen.tensors if name not in wanted.tensors]
        if unknown:
            raise ValueError(
                f"the weights in {path} do not fit the model: {len(unknown)} of them are not in it: {_list(unknown)}"
            )
        _check_shapes(path, chosen, wanted.tensors)
        inside.load_state_dict({wanted.own[name]: tensor for name, tensor in chosen.tensors.items()}, strict=False)
    else:
        fitting = [found for found in _nearest(dictionaries, wanted) if _accepts(inside, found)]
        if not fitting:
            raise ValueError(_misfit(path, dictionaries, wanted))
        chosen = _choose(path, fitting)
        inside.load_state_dict(dict(chosen.tensors), strict=False)
    return _sentence(path, chosen, [one for one in fitting if one is not chosen])


@dataclass(frozen=True)
class _Wanted:
    """A model's weights by plain names.

    Attributes:
        tensors: by name.
        own: the names that ``load_state_dict`` knows.
        required: names of which a file must have one: tied weights have several; a batch norm's counter may be missing.
    """

    tensors: dict[str, Tensor]
    own: dict[str, str]
    required: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> _Wanted:
        """Raises ValueError for a model whose weights have no shape yet."""
        if any(nn.parameter.is_lazy(one) for one in model.parameters()):
            raise ValueError("the model has lazy layers without a shape; run it once on an image in its factory")
        state = {name: one for name, one in model.state_dict().items() if isinstance(one, Tensor)}
        tied: dict[Any, tuple[str, ...]] = {}
        for name, one in state.items():
            if not name.endswith(COUNTER):
                key = (one.data_ptr(), one.shape) if one.numel() and one.data_ptr() else name
                tied[key] = (*tied.get(key, ()), _plain(name))
        return cls(
            {_plain(name): one for name, one in state.items()},
            {_plain(name): name for name in state},
            tuple(tied.values()),
        )

    def missing(self, names: Mapping[str, Any], prefix: str = "") -> list[str]:
        """What is required and not among these names."""
        return [group[0] for group in self.required if not any(prefix + name in names for name in group)]


@dataclass(frozen=True)
class _Names:
    """A dictionary of a file: its tensors by plain names, and the wrapper that was removed from these."""

    entry: tuple[str, ...]
    tensors: dict[str, Tensor]
    wrapper: str

    def at(self, prefix: str) -> Found:
        """The tensors with a prefix."""
        tensors = {name[len(prefix) :]: one for name, one in self.tensors.items() if name.startswith(prefix)}
        others = tuple(name for name in self.tensors if not name.startswith(prefix))
        return Found(self.entry, prefix, tensors, others, self.wrapper)

    def prefixes(self, wanted: Collection[str]) -> list[str]:
        """What stands in front of wanted names, the most frequent first."""
        counts: Counter[str] = Counter()
        for name in self.tensors:
            parts = name.split(".")
            counts.update(
                "".join(f"{part}." for part in parts[:place])
                for place in range(len(parts))
                if ".".join(parts[place:]) in wanted
            )
        return [prefix for prefix, _ in counts.most_common()]


def _plain(name: str) -> str:
    return OLD_DENSENET.sub(r"\1\2", WRAPPERS.sub("", name).lstrip("."))


def _dictionaries(content: Any, entry: tuple[str, ...] = ()) -> Iterator[_Names]:
    """Every dictionary in a file that holds tensors by names."""
    if not isinstance(content, Mapping) or len(entry) > DEPTH:
        return
    tensors = {name: one for name, one in content.items() if isinstance(name, str) and isinstance(one, Tensor)}
    if tensors:
        wrappers = (found for name in tensors if (found := WRAPPERS.search(name)))
        wrapper = next((f"{found[2]}." for found in wrappers), "")
        yield _Names(entry, {_plain(name): one for name, one in tensors.items()}, wrapper)
    for name, one in content.items():
        if isinstance(name, str):
            yield from _dictionaries(one, (*entry, name))


def _places(names: _Names, wanted: _Wanted) -> Iterator[Found]:
    """Where a dictionary has all names that the model requires."""
    for prefix in names.prefixes(wanted.required[0] if wanted.required else list(wanted.tensors)[:1]):
        if not wanted.missing(names.tensors, prefix):
            yield names.at(prefix)


def _nearest(dictionaries: Sequence[_Names], wanted: _Wanted) -> list[Found]:
    """The places of most of the model's names, the nearest first; where there are none, the dictionaries."""
    found = [names.at(prefix) for names in dictionaries for prefix in (names.prefixes(wanted.tensors)[:SHOWN] or [""])]
    return sorted(found, key=lambda one: (len(wanted.missing(one.tensors)), -len(one.tensors)))[:SHOWN]


def _accepts(model: nn.Module, found: Found) -> bool:
    """Whether the model itself translates these names, as torchvision's vision transformers do with their older
    ones.
    """
    try:
        missing, unknown = copy.deepcopy(model).load_state_dict(dict(found.tensors), strict=False)
    except (RuntimeError, TypeError):  # of another shape; or a model that cannot be copied
        return False
    return not unknown and all(name.endswith(COUNTER) for name in missing)


def _choose(path: Path, fitting: Sequence[Found]) -> Found:
    averages = [found for found in fitting if found.is_ema]
    for group in (averages, [one for one in fitting if "/".join(one.entry) in USUAL], fitting):
        if len(group) == 1:
            return group[0]
    places = [found.place or "its top" for found in averages or fitting]
    raise ValueError(
        f"{path} holds weights of this model at {len(places)} places: {_list(places)}; save the one that is meant in a "
        "file of its own"
    )


def _check_shapes(path: Path, chosen: Found, wanted: Mapping[str, Tensor]) -> None:
    apart = [name for name, tensor in chosen.tensors.items() if tensor.shape != wanted[name].shape]
    if not apart:
        return
    name = apart[0]
    theirs, ours = tuple(chosen.tensors[name].shape), tuple(wanted[name].shape)
    one = f"{name} is {_sizes(theirs)} in the file, {_sizes(ours)} in the model"
    weighted = [name.rpartition(".")[0] for name, tensor in wanted.items() if tensor.dim() > 1]
    heads = {name.rpartition(".")[0] for name in apart}
    counts = {(chosen.tensors[name].shape[:1], wanted[name].shape[:1]) for name in apart}
    same_inputs = all(chosen.tensors[name].shape[1:] == wanted[name].shape[1:] for name in apart)
    if weighted and weighted[-1] in heads and len(counts) == 1 and same_inputs and theirs and ours:
        raise OtherClasses(
            f"the weights in {path} are of a model with {theirs[0]} classes, this one has {ours[0]}: {one}; pass a "
            "module:factory that builds it",
            theirs[0],
        )
    more = f", and {len(apart) - 1} more" if len(apart) > 1 else ""
    raise ValueError(f"the weights in {path} do not fit the model: {one}{more}")


def _misfit(path: Path, dictionaries: Sequence[_Names], wanted: _Wanted) -> str:
    """Why no place of the file has all names: those of the nearest one."""
    best = _nearest(dictionaries, wanted)[0]
    missing, count = wanted.missing(best.tensors), len(wanted.required)
    text = f"the weights in {path} do not fit the model"
    if len(missing) == count:
        return f"{text}: it has names such as {_list(list(best.tensors))}, the model {_list(list(wanted.tensors))}"
    unknown = [best.prefix + name for name in best.tensors if name not in wanted.tensors] + list(best.others)
    where = f" with the prefix {best.prefix!r}" if best.prefix else ""
    text += f": {len(missing)} of the model's {count} names are not in it{where}: {_list(missing)}"
    return text + (f"; in the way: {_list(unknown)}" if unknown else "")


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"the entries {_list([str(name) for name in content])}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"


def _sentence(path: Path, chosen: Found, others: Sequence[Found]) -> str:
    entry = f", entry {'/'.join(chosen.entry)!r}" if chosen.entry else ""
    removed = " and ".join(repr(part) for part in (chosen.prefix, chosen.wrapper) if part)
    prefix = f", without the prefix {removed}" if removed else ""
    text = f"The weights are those of {path.name}{entry}{prefix}"
    if others:
        also = _list([repr(one.place or "its top") for one in others])
        text += f"{' (a moving average, EMA)' if chosen.is_ema else ''}; not taken: {also}"
    elif chosen.is_ema:
        text += " (a moving average, EMA)"
    beside = [name for name in chosen.others if not any(name.startswith(one.prefix) for one in others)]
    return f"{text}{f'; left out: {_list(beside)}' if beside else ''}."


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
