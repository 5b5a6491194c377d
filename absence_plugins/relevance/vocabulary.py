"""Which torch operations are linear, and in which of their operands: the words that need no secant."""

from __future__ import annotations

from absence_plugins.relevance.operation import Place

# Linear in all the tensors of floats they take: shapes, copies, sums, means, selections with constant indices.
LINEAR = frozenset(
    [
        "add",
        "sub",
        "rsub",
        "radd",
        "neg",
        "positive",
        "sum",
        "mean",
        "nanmean",
        "nansum",
        "cumsum",
        "diff",
        "trace",
        "sum_to_size",
        "logcumsum",
        "view",
        "reshape",
        "permute",
        "transpose",
        "t",
        "T",
        "mT",
        "H",
        "mH",
        "adjoint",
        "flatten",
        "ravel",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "view_as",
        "reshape_as",
        "repeat",
        "repeat_interleave",
        "tile",
        "broadcast_to",
        "broadcast_tensors",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
        "cat",
        "stack",
        "hstack",
        "vstack",
        "dstack",
        "column_stack",
        "row_stack",
        "block_diag",
        "meshgrid",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
        "split",
        "split_with_sizes",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "chunk",
        "unsafe_chunk",
        "unbind",
        "tensor_split",
        "hsplit",
        "vsplit",
        "dsplit",
        "narrow",
        "narrow_copy",
        "select",
        "index_select",
        "gather",
        "take",
        "take_along_dim",
        "getitem",
        "slice",
        "select_scatter",
        "slice_scatter",
        "diagonal_scatter",
        "as_strided",
        "unfold",
        "fold",
        "im2col",
        "col2im",
        "setitem",
        "clone",
        "contiguous",
        "to",
        "float",
        "double",
        "half",
        "bfloat16",
        "type",
        "type_as",
        "cpu",
        "cuda",
        "copy",
        "copy_to",
        "alias",
        "lift_fresh",
        "requires_grad",
        "roll",
        "flip",
        "fliplr",
        "flipud",
        "rot90",
        "pad",
        "constant_pad_nd",
        "reflection_pad1d",
        "reflection_pad2d",
        "reflection_pad3d",
        "replication_pad1d",
        "replication_pad2d",
        "replication_pad3d",
        "_pad_circular",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_linear1d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_trilinear3d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
        "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d",
        "_upsample_nearest_exact3d",
        "_upsample_lanczos2d_aa",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "native_channel_shuffle",
        "masked_fill",
        "masked_select",
        "masked_scatter",
        "index_add",
        "index_copy",
        "index_fill",
        "index_put",
        "scatter",
        "scatter_add",
        "put",
        "where",
        "tril",
        "triu",
        "diag",
        "diagonal",
        "diag_embed",
        "diagflat",
        "fill",
        "zero",
        "zero_",
        "copysign_",
        "fft_fft",
        "fft_ifft",
        "fft_rfft",
        "fft_irfft",
        "fft_fft2",
        "fft_ifft2",
        "fft_rfft2",
        "fft_irfft2",
        "fft_fftn",
        "fft_ifftn",
        "fft_rfftn",
        "fft_irfftn",
        "fft_hfft",
        "fft_ihfft",
        "fft_fftshift",
        "fft_ifftshift",
        "stft",
        "istft",
        "real",
        "imag",
        "view_as_real",
        "view_as_complex",
        "conj",
        "conj_physical",
        "resolve_conj",
        "resolve_neg",
        "complex",
        "embedding",
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "feature_alpha_dropout",
        "segment_reduce",
        "_weight_norm_interface_none",
    ]
)

# Linear in some operands only; the others must be constant (a grid, the positions of what is read).
LINEAR_IN: dict[str, frozenset[Place]] = {
    "grid_sampler": frozenset({(0,), ("input",)}),
    "grid_sampler_2d": frozenset({(0,), ("input",)}),
    "grid_sampler_3d": frozenset({(0,), ("input",)}),
    "deform_conv2d": frozenset(),
    "dist": frozenset(),
}

# Products: linear as long as the varying operands stand in one of the groups only; summands stand in no group.
FACTORS: dict[str, tuple[frozenset[int | str], ...]] = {
    "mul": (frozenset({0, "input"}), frozenset({1, "other"})),
    "matmul": (frozenset({0, "input"}), frozenset({1, "other"})),
    "bmm": (frozenset({0, "input"}), frozenset({1, "mat2"})),
    "mm": (frozenset({0, "input"}), frozenset({1, "mat2"})),
    "mv": (frozenset({0, "input"}), frozenset({1, "vec"})),
    "dot": (frozenset({0, "input"}), frozenset({1, "tensor", "other"})),
    "inner": (frozenset({0, "input"}), frozenset({1, "other"})),
    "outer": (frozenset({0, "input"}), frozenset({1, "vec2"})),
    "kron": (frozenset({0, "input"}), frozenset({1, "other"})),
    "addmm": (frozenset({1, "mat1"}), frozenset({2, "mat2"})),
    "addmv": (frozenset({1, "mat"}), frozenset({2, "vec"})),
    "addr": (frozenset({1, "vec1"}), frozenset({2, "vec2"})),
    "addbmm": (frozenset({1, "batch1"}), frozenset({2, "batch2"})),
    "baddbmm": (frozenset({1, "batch1"}), frozenset({2, "batch2"})),
    "addcmul": (frozenset({1, "tensor1"}), frozenset({2, "tensor2"})),
    "tensordot": (frozenset({0, "a", "self"}), frozenset({1, "b", "other"})),
    "linalg_vecdot": (frozenset({0, "x"}), frozenset({1, "y"})),
    "linear": (frozenset({0, "input"}), frozenset({1, "weight"})),
    "bilinear": (frozenset({0, "input1"}), frozenset({1, "input2"}), frozenset({2, "weight"})),
    "lerp": (frozenset({0, 1, "input", "end"}), frozenset({2, "weight"})),
    **{
        f"conv{transpose}{dimensions}d": (frozenset({0, "input"}), frozenset({1, "weight"}))
        for transpose in ("", "_transpose")
        for dimensions in (1, 2, 3)
    },
    "convolution": (frozenset({0, "input"}), frozenset({1, "weight"})),
}

# Linear in the numerator; the denominator must be constant.
DENOMINATORS: dict[str, frozenset[int | str]] = {
    "div": frozenset({1, "other"}),
    "addcdiv": frozenset({2, "tensor2"}),
}


WEIGHTED = frozenset(("linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))))
# Linear, with a node of their own all the same: autograd's backward of batch norm is wrong on some layouts of
# memory, that of convolutions is slow on some shapes, and the kernel of the others depends on whether the weights
# require gradients.
FIXED = WEIGHTED | {"batch_norm", "matmul"}


def is_linear(name: str, varying: tuple[Place, ...]) -> bool:
    """Whether an operation is linear in its varying operands taken together.

    Products of which one factor varies, quotients of which
    the numerator varies, and einsum with one varying operand are linear; a product of two varying factors is not.

    >>> is_linear("mul", ((0,),)), is_linear("mul", ((0,), (1,))), is_linear("relu", ((0,),))
    (True, False, False)
    """
    if name in LINEAR or name == "batch_norm":
        return True
    factors = FACTORS.get(name)
    if factors is not None:
        return sum(any(place[0] in group for place in varying) for group in factors) <= 1
    if name in DENOMINATORS:
        return not any(place[0] in DENOMINATORS[name] for place in varying)
    if name in LINEAR_IN:
        return all(place in LINEAR_IN[name] for place in varying)
    if name in ("einsum", "linalg_multi_dot", "chain_matmul"):
        return len(varying) <= 1
    return False


# What runs at random, or on statistics of the batch, unless the model is in evaluation mode: the flag's position.
TRAINING: dict[str, tuple[int, str]] = {
    "dropout": (2, "train"),
    "feature_dropout": (2, "train"),
    "alpha_dropout": (2, "train"),
    "feature_alpha_dropout": (2, "train"),
    "rrelu": (3, "training"),
    "batch_norm": (5, "training"),
}

# What may be tried where an operation has no secant.
REMEDIES: dict[str, str] = {
    "sort": "an order depends on the values; use max or mean where the model allows it",
    "topk": "an order depends on the values; use max or mean where the model allows it",
    "median": "an order depends on the values; use mean",
    "grid_sampler": "a sampling grid that depends on the input is not linear; make the grid constant",
    "cumprod": "write it as exp(cumsum(log(x)))",
    "prod": "write it as a chain of multiplications",
    "cdist": "write it with matmul and square",
    "_pack_padded_sequence": "pass padded sequences of one length",
    "cross_entropy_loss": "explain the logits, or log_softmax of them, instead of a loss",
    "nll_loss": "explain the logits, or log_softmax of them, instead of a loss",
    "detach": "call the model without it",
}
