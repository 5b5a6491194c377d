"""The graph between the output and the input may hold own nodes and linear ones only."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from absence_plugins.relevance.nodes import SecantNode
from absence_plugins.relevance.operation import RelevanceError
from absence_plugins.relevance.records import Record, tensors_in

# Names of autograd's nodes that are linear, without "Backward" and the digit.
LINEAR_NODES = frozenset(
    [
        "Add",
        "Sub",
        "Rsub",
        "Neg",
        "Sum",
        "Mean",
        "Cumsum",
        "Trace",
        "View",
        "ViewAs",
        "Reshape",
        "ReshapeAlias",
        "UnsafeView",
        "Permute",
        "Transpose",
        "T",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Repeat",
        "RepeatInterleave",
        "AsStrided",
        "Alias",
        "Detach",
        "Unfold",
        "Slice",
        "Select",
        "Split",
        "SplitWithSizes",
        "UnsafeSplit",
        "UnsafeSplitWithSizes",
        "Unbind",
        "Cat",
        "Stack",
        "Index",
        "IndexSelect",
        "Gather",
        "Take",
        "Diagonal",
        "DiagEmbed",
        "SelectScatter",
        "SliceScatter",
        "Clone",
        "ToCopy",
        "Copy",
        "CopyBackwards",
        "CopySlices",
        "Contiguous",
        "Fill",
        "Zero",
        "Roll",
        "Flip",
        "Rot90",
        "ConstantPadNd",
        "ReflectionPad1D",
        "ReflectionPad2D",
        "ReflectionPad3D",
        "ReplicationPad1D",
        "ReplicationPad2D",
        "ReplicationPad3D",
        "Nansum",
        "AvgPool2D",
        "AvgPool3D",
        "MkldnnAdaptiveAvgPool2D",
        "AdaptiveAvgPool2D",
        "AdaptiveAvgPool3D",
        "UpsampleNearest1D",
        "UpsampleNearest2D",
        "UpsampleNearest3D",
        "UpsampleNearestExact1D",
        "UpsampleNearestExact2D",
        "UpsampleNearestExact3D",
        "UpsampleLinear1D",
        "UpsampleBilinear2D",
        "UpsampleBicubic2D",
        "UpsampleTrilinear3D",
        "UpsampleBilinear2DAa",
        "UpsampleBicubic2DAa",
        "PixelShuffle",
        "PixelUnshuffle",
        "ChannelShuffle",
        "NativeChannelShuffle",
        "Im2Col",
        "Col2Im",
        "MaskedFill",
        "MaskedSelect",
        "MaskedScatter",
        "IndexAdd",
        "IndexCopy",
        "IndexFill",
        "IndexPut",
        "Scatter",
        "ScatterAdd",
        "Where",
        "Tril",
        "Triu",
        "FftC2C",
        "FftR2C",
        "FftC2R",
        "Real",
        "Imag",
        "ViewAsReal",
        "ViewAsComplex",
        "Conj",
        "ConjPhysical",
        "ResolveConj",
        "Complex",
        "Lift",
        "LiftFresh",
        "Identity",
        "BackwardHookFunction",  # of modules with full backward hooks
        "Embedding",
        "GridSampler2D",
        "GridSampler3D",
        "ScatterReduce",
    ]
)
# Linear as long as only one of the factors depends on the input: the positions of the factors.
FACTOR_NODES: dict[str, tuple[int, ...]] = {
    "Mul": (0, 1), "Mm": (0, 1), "Bmm": (0, 1), "Mv": (0, 1), "Dot": (0, 1), "Addmm": (1, 2), "Addmv": (1, 2),
    "Addr": (1, 2), "Addbmm": (1, 2), "Baddbmm": (1, 2), "Addcmul": (1, 2), "Convolution": (0, 1),
    "ConvolutionOverrideable": (0, 1), "MkldnnConvolution": (0, 1), "SlowConv2D": (0, 1), "SlowConv3D": (0, 1),
    "ThnnConv2D": (0, 1), "ConvDepthwise2D": (0, 1), "ConvDepthwise3D": (0, 1), "Linear": (0, 1), "MkldnnLinear": (0, 1),
    "Lerp": (0, 2), "Trilinear": (0, 1, 2), "Cudnn": (0, 1), "CudnnConvolution": (0, 1), "CudnnConvolutionTranspose": (0, 1),
}  # fmt: skip
DENOMINATOR_NODES = {"Div": 1, "Addcdiv": 2}


def check_graph(output: Tensor, inputs: Iterable[Tensor]) -> bool:
    """Walk from the output to the inputs (leaves of the graph); reject what is neither linear nor has a secant.

    Finds what the mode does not see: TorchScript, custom autograd functions, DataParallel's threads.
    Returns whether the output depends on the inputs at all.

    Raises:
        RelevanceError: names the node.
    """
    if output.grad_fn is None:
        return False
    leaves = {id(tensor) for tensor in inputs}
    varies: dict[Any, bool] = {}
    stack: list[tuple[Any, bool]] = [(output.grad_fn, False)]
    while stack:
        node, is_back = stack.pop()
        if not is_back:
            if node in varies:
                continue
            varies[node] = False
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions if following is not None)
            continue
        leaf = getattr(node, "variable", None)
        flags = [following is not None and varies[following] for following, _ in node.next_functions]
        varies[node] = any(flags) or (leaf is not None and id(leaf) in leaves)
        if any(flags):
            _check_node(node, flags)
    return varies[output.grad_fn]


def last_reached(output: Any, marked: Sequence[tuple[Any, Record]]) -> Record | None:
    """The last of the marked nodes that outputs depend on."""
    tensors = [tensor for _, tensor in tensors_in(output) if tensor.grad_fn is not None]
    left: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen = set(left)
    while left:
        for following, _ in left.pop().next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                left.append(following)
    return next((record for node, record in reversed(marked) if node in seen), None)


def _check_node(node: Any, flags: list[bool]) -> None:
    if getattr(type(node), "_forward_cls", None) is SecantNode:
        return
    name = _word(node.name())
    if name in LINEAR_NODES:
        return
    if name in FACTOR_NODES and sum(flags[index] for index in FACTOR_NODES[name] if index < len(flags)) <= 1:
        return
    if name in DENOMINATOR_NODES and not flags[DENOMINATOR_NODES[name]]:
        return
    raise RelevanceError(
        f"the graph holds {node.name()}, which is neither linear nor was it seen as a torch operation: TorchScript, a "
        "custom autograd.Function, a reentrant checkpoint, torch.func or a replica in another thread; use the plain "
        "model"
    )


@functools.cache
def _word(name: str) -> str:
    """The name of a node without namespace, "Backward" and digit."""
    return re.sub(r"Backwards?\d*$", "", name.rsplit("::", 1)[-1])
