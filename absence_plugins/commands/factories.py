"""Models that a user's own module builds: ``module:factory``; whatever fails in it is said with its file and line."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

from absence_plugins.commands.early_checks import check_module_name
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.core.places import describe_error


def build_model(module: str, name: str) -> nn.Module:
    """The model of ``module:name``: an ``nn.Module`` itself, or what ``name()`` returns.

    The module is looked for in the working directory first, as with ``python -m``.

    Raises:
        ValueError: no such module or name, what the module raises on import or when it builds the model (with file
            and line), or a result that is no model.

    >>> build_model("torch.nn", "Identity")
    Identity()
    >>> build_model("torch.nn", "Identty")
    Traceback (most recent call last):
    ValueError: module 'torch.nn' has no 'Identty'; it has: Identity, init, MultiheadAttention and ... more (these are the nearest names)
    """
    model = build_parts(module, name)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{module}:{name} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def build_parts(module: str, name: str) -> Any:
    """What ``module:name`` is, if a model, else what it returns: a model, or a tuple of a model and what belongs to it.

    Raises:
        ValueError: as of :func:`build_model`.

    >>> build_parts("torch.nn", "Identity")
    Identity()
    """
    check_module_name(module, name)
    sys.path.insert(0, "")
    try:
        with _own_errors(f"module {module!r} fails on import"):
            found = _attribute(_import(module), name)
        with _own_errors(f"{module}:{name} fails"):
            return found if isinstance(found, nn.Module) else _call(found, f"{module}:{name}")
    finally:
        sys.path.remove("")


def _import(module: str) -> ModuleType:
    parts = module.split(".")
    for end in range(1, len(parts) + 1):  # what is missing: this module, or one that it imports?
        part = ".".join(parts[:end])
        if part not in sys.modules and importlib.util.find_spec(part) is None:
            raise _Said(f"module {module!r} cannot be imported: there is no module named {part!r}")
    return importlib.import_module(module)


def _attribute(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        public = [each for each in vars(module) if not each.startswith("_")]
        raise _Said(f"module {module.__name__!r} has no {name!r}; it has: {describe_nearest(name, public)}")
    return getattr(module, name)


def _call(found: Any, name: str) -> Any:
    if not callable(found):
        raise _Said(f"{name} must be a torch.nn.Module or a function that returns one, got {type(found).__name__}")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise _Said(f"{name} is called without arguments, which fails: {error}") from None
    except ValueError:  # a builtin without a signature
        pass
    return found()


class _Said(ValueError):
    """An error of ours, already in one line."""


@contextmanager
def _own_errors(what: str) -> Iterator[None]:
    """Whatever the user's code raises becomes one line with its type, file and line; it may call ``sys.exit``, too."""
    try:
        yield
    except _Said as error:
        raise ValueError(str(error)) from None
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(f"{what} with {describe_error(error)}") from error
