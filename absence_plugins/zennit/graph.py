"""What autograd does between the modules that have a rule: the look that tells an unseen operation."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

# What autograd may do between the modules that have a rule: move values, copy them, or add (which the check judges). No
# products: the weights of a blend sum to 1, so the check would not see it; no index tensors: they may depend on the values.
HARMLESS = frozenset(
    [
        "View",
        "UnsafeView",
        "_UnsafeView",
        "ReshapeAlias",
        "_ReshapeAlias",
        "Alias",
        "AsStrided",
        "Permute",
        "Transpose",
        "T",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Repeat",
        "Clone",
        "Copy",
        "ToCopy",
        "CopySlices",
        "Slice",
        "Select",
        "Split",
        "SplitWithSizes",
        "UnsafeSplit",
        "Unbind",
        "Cat",
        "Stack",
        "IndexSelect",
        "Flip",
        "Roll",
        "ConstantPadNd",
        "ReflectionPad1D",
        "ReflectionPad2D",
        "ReflectionPad3D",
        "ReplicationPad1D",
        "ReplicationPad2D",
        "ReplicationPad3D",
        "PixelShuffle",
        "PixelUnshuffle",
        "UpsampleNearest1D",
        "UpsampleNearest2D",
        "UpsampleNearest3D",
        "Unfold",
        "Im2Col",
        "Diagonal",
        "Add",
        "Sub",
        "Identity",
    ]
)


def unseen_operation(output: Tensor) -> str:
    """The name of an operation between output and input that no rule describes; "" if there is none."""
    users: dict[Any, list[Any]] = {}  # of every node, the nodes that take its result
    left: list[Any] = [output.grad_fn]
    order: list[Any] = []
    joins: list[Any] = []
    while left:
        node = left.pop()
        if hasattr(node, "is_join"):  # beyond it is what the caller did to the input
            joins.append(node)
            continue
        order.append(node)
        # a rule takes relevance from a module's output to its input: what the module does in between does not count
        for following, _ in node.next_functions[:1] if hasattr(node, "is_rule") else node.next_functions:
            if following is not None:
                if following not in users:
                    left.append(following)
                users.setdefault(following, []).append(node)
    found: set[Any] = set()
    reaching = list(joins)  # what does not depend on the input (a parameter's own mean) does not count
    while reaching:
        for user in users.get(reaching.pop(), ()):
            if user not in found:
                found.add(user)
                reaching.append(user)
    for node in order:
        name = re.sub(r"Backward\d*$", "", type(node).__name__)
        if node in found and not hasattr(node, "is_rule") and name not in HARMLESS:
            return name
    return ""
