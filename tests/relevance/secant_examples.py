"""Example calls of every operation with a secant: what the generic test runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ANY, POSITIVE, UNIT, OPEN, ABOVE, RECTIFIED = "any", "positive", "unit", "open", "above", "rectified"


@dataclass(frozen=True)
class Operand:
    """A random tensor; ``varies`` between the passes or not."""

    shape: tuple[int, ...]
    domain: str = ANY
    varies: bool = True


def V(*shape: int, domain: str = ANY) -> Operand:
    return Operand(shape, domain)


def C(*shape: int, domain: str = ANY) -> Operand:
    return Operand(shape, domain, varies=False)


@dataclass(frozen=True)
class Example:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def example(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Example:
    return Example(function, args, kwargs)


def draw(operand: Operand, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    normal = torch.randn(operand.shape, generator=generator, dtype=torch.float64) * 2
    limits = {
        POSITIVE: lambda: normal.abs() + 0.05,
        UNIT: lambda: normal.tanh() * 0.95,
        OPEN: lambda: normal.sigmoid() * 0.9 + 0.05,
        ABOVE: lambda: normal.abs() + 1.05,
        RECTIFIED: normal.relu,
    }
    return limits.get(operand.domain, lambda: normal)().to(dtype)


def _unary(names: str, domain: str = ANY) -> dict[str, list[Example]]:
    found = {}
    for name in names.split():
        where = next(p for p in (torch, torch._C._nn, torch.special, F) if hasattr(p, name))
        found[name] = [example(getattr(where, name), V(3, 5, domain=domain))]
    return found


def _max_pools() -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for n in (1, 2, 3):
        shape = (2, 3, *(6,) * n)
        for tail in ("", "_with_indices"):
            pool = getattr(F, f"max_pool{n}d{tail}")
            found[f"max_pool{n}d{tail}"] = [
                example(pool, V(*shape), 2),
                example(pool, V(*shape, domain=RECTIFIED), 3, 2, 1),
                example(
                    pool, V(3, *(7,) * n), kernel_size=3, stride=1, dilation=2, ceil_mode=True, return_indices=True
                ),
            ]
            adaptive = getattr(F, f"adaptive_max_pool{n}d{tail}")
            found[f"adaptive_max_pool{n}d{tail}"] = [
                example(adaptive, V(*shape), 4),
                example(adaptive, V(*shape), output_size=(1,) * n, return_indices=True),
            ]
    return found


def _convolutions() -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for n in (1, 2, 3):
        plain, back = getattr(torch, f"conv{n}d"), getattr(torch, f"conv_transpose{n}d")
        size, kernel = (6,) * n, (3,) * n
        found[f"conv{n}d"] = [
            example(plain, V(2, 4, *size), C(6, 2, *kernel), C(6), stride=2, padding=1, groups=2),
            example(plain, V(2, 3, *size), C(4, 3, *kernel), None, 1, "same", 2),
            example(plain, V(2, 3, *size), V(4, 3, *kernel), V(4)),
            example(plain, V(3, *size), C(4, 3, *kernel), V(4)),
            example(plain, V(3, *size), C(4, 3, *kernel)),
        ]
        found[f"conv_transpose{n}d"] = [
            example(back, V(2, 4, *size), C(4, 3, *kernel), C(6), stride=2, padding=1, output_padding=1, groups=2),
            example(back, V(2, 3, *size), V(3, 4, *kernel)),
        ]
    return found


def _recurrent() -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for name, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)):
        function, cell = getattr(torch._VF, name), getattr(torch._VF, f"{name}_cell")

        def state(*shape: int, of: Callable[..., Operand] = V, name: str = name) -> Any:
            return [of(*shape), of(*shape)] if name == "lstm" else of(*shape)

        def weights(layers: int, directions: int, biases: bool = True, gates: int = gates) -> list[Operand]:
            flat = []
            for layer in range(layers):
                for _ in range(directions):
                    flat += [C(gates * 4, 3 if layer == 0 else 4 * directions), C(gates * 4, 4)]
                    flat += [C(gates * 4), C(gates * 4)] if biases else []
            return flat

        found[name] = [
            example(function, V(5, 2, 3), state(1, 2, 4), weights(1, 1), True, 1, 0.0, False, False, False),
            example(function, V(2, 5, 3), state(4, 2, 4, of=C), weights(2, 2), True, 2, 0.5, False, True, True),
            example(function, V(5, 2, 3), state(2, 2, 4), weights(1, 2, False), False, 1, 0.0, False, True, False),
        ]
        found[f"{name}_cell"] = [
            example(cell, V(2, 3), state(2, 4), C(gates * 4, 3), C(gates * 4, 4), C(gates * 4), C(gates * 4)),
            example(cell, C(2, 3), state(2, 4), C(gates * 4, 3), C(gates * 4, 4)),
        ]
    projected = [C(16, 3), C(16, 2), C(16), C(16), C(2, 4)]
    hx = [V(1, 2, 2), V(1, 2, 4)]
    found["lstm"].append(example(torch._VF.lstm, V(5, 2, 3), hx, projected, True, 1, 0.0, False, False, False))
    return found


def _norms() -> dict[str, list[Example]]:
    norm, vector = torch.norm, torch.linalg.vector_norm
    return {
        "norm": [
            example(norm, V(3, 4)),
            example(norm, V(3, 4), 2, 1),
            example(norm, V(3, 4), 1, -1, True),
            example(norm, V(3, 4), p=3.0, dim=(0, 1)),
            example(torch.Tensor.norm, V(3, 4), dim=0),
        ],
        "vector_norm": [example(vector, V(3, 4), ord=2, dim=(0,), keepdim=True)],
        "linalg_vector_norm": [
            example(vector, V(3, 4)),
            example(vector, V(3, 4), 2.5, 1),
            example(vector, V(3, 4), float("inf"), dim=-1),
            example(vector, V(3, 4), float("-inf")),
        ],
        "linalg_norm": [example(torch.linalg.norm, V(5)), example(torch.linalg.norm, V(3, 4), dim=1)],
        "frobenius_norm": [example(torch.functional._VF.frobenius_norm, V(3, 4), [0, 1])],
        "linalg_matrix_norm": [example(torch.linalg.matrix_norm, V(2, 3, 4))],
        "matrix_norm": [example(torch.linalg.matrix_norm, V(2, 3, 4), "fro", keepdim=True)],
        "dist": [example(torch.dist, V(3, 4), V(3, 4)), example(torch.dist, V(3, 4), C(4), 1)],
        "pairwise_distance": [
            example(torch.pairwise_distance, V(3, 4), V(3, 4)),
            example(torch.pairwise_distance, V(3, 4), C(3, 4), p=1.0, keepdim=True),
        ],
        "cosine_similarity": [
            example(torch.cosine_similarity, V(3, 4), V(3, 4)),
            example(torch.cosine_similarity, V(3, 4), C(3, 4), dim=0),
        ],
        "layer_norm": [
            example(torch.layer_norm, V(2, 3, 4), (4,), C(4), C(4), 1e-5, True),
            example(torch.layer_norm, V(2, 3, 4), (3, 4)),
            example(torch.layer_norm, V(2, 3, 4), (4,), V(4), V(4)),
        ],
        "rms_norm": [
            example(torch.rms_norm, V(2, 3, 4), (4,), C(4), 1e-6),
            example(torch.rms_norm, V(2, 3, 4), [3, 4]),
            example(torch.rms_norm, V(2, 3, 4), [4], V(4)),
        ],
        "group_norm": [
            example(torch.group_norm, V(2, 6, 5), 3, C(6), C(6), 1e-5, True),
            example(torch.group_norm, V(2, 6, 3, 3), 2, V(6), V(6)),
        ],
        "instance_norm": [
            example(torch.instance_norm, V(2, 3, 4, 4), C(3), C(3), None, None, True, 0.1, 1e-5, True),
            example(torch.instance_norm, V(2, 3, 5), None, None, C(3), C(3, domain=POSITIVE), False, 0.1, 1e-5, True),
        ],
        "batch_norm": [
            example(torch.batch_norm, V(2, 3, 4, 4), C(3), C(3), C(3), C(3, domain=POSITIVE), False, 0.1, 1e-5, True),
            example(torch.batch_norm, V(2, 3), None, None, C(3), C(3, domain=POSITIVE), False, 0.1, 1e-5, True),
            example(torch.batch_norm, V(2, 3), V(3), V(3), C(3), C(3, domain=POSITIVE), False, 0.1, 1e-5, True),
        ],
    }


def _attention() -> dict[str, list[Example]]:
    attend = F.scaled_dot_product_attention
    allowed = torch.tensor([[True, False, True, True], [True, True, False, False], [True, True, True, True]])
    grouped = [example(attend, V(2, 4, 3, 5), V(2, 2, 4, 5), V(2, 2, 4, 5), enable_gqa=True)]
    return {
        "scaled_dot_product_attention": [
            example(attend, V(2, 2, 3, 5), V(2, 2, 4, 5), V(2, 2, 4, 6)),
            example(attend, V(2, 3, 5), V(2, 3, 5), V(2, 3, 5), is_causal=True, scale=0.3),
            example(attend, V(2, 2, 3, 5), V(2, 2, 4, 5), C(2, 2, 4, 5), attn_mask=allowed),
            example(attend, V(2, 2, 3, 5), C(2, 2, 4, 5), V(2, 2, 4, 5), V(3, 4)),
            *(grouped if torch.__version__ >= "2.5" else []),  # an argument since then
        ]
    }


def _softmaxes() -> dict[str, list[Example]]:
    return {
        "softmax": [example(torch.softmax, V(3, 5), -1), example(torch.Tensor.softmax, V(3, 5), dim=0)],
        "log_softmax": [example(torch.log_softmax, V(3, 5), 1), example(torch.log_softmax, V(3, 5), dim=0)],
        "logsumexp": [
            example(torch.logsumexp, V(3, 5), 1),
            example(torch.logsumexp, V(3, 5), dim=(0, 1), keepdim=True),
        ],
    }


def _products() -> dict[str, list[Example]]:
    return {
        "mul": [
            example(torch.mul, V(3, 5), V(5)),
            example(torch.mul, V(3, 5), C(3, 1)),
            example(torch.mul, V(3, 1), 2.5),
            example(torch.Tensor.mul, V(1, 5), other=V(3, 1)),
        ],
        "rmul": [example(torch.mul, V(3, 5), V(5))],
        "div": [
            example(torch.div, V(3, 5), V(5)),
            example(torch.div, C(3, 5), V(3, 1)),
            example(torch.div, V(3, 5), 3.0),
            example(torch.div, V(3, 5), V(5, domain=POSITIVE)),
            example(torch.div, V(3, 5), V(3, 5), rounding_mode="floor"),
        ],
        "rdiv": [example(lambda b, a: a / b, V(3, 5), 2.0)],
        "rtruediv": [example(lambda b, a: a / b, V(3, 5), V(5))],
        "addcdiv": [
            example(torch.addcdiv, V(3, 5), V(5), V(3, 5, domain=POSITIVE), value=0.5),
            example(torch.addcdiv, C(3, 5), V(3, 5), V(3, 5)),
        ],
        "glu": [example(torch._C._nn.glu, V(3, 6)), example(torch._C._nn.glu, V(4, 3), 0)],
        "matmul": [
            example(torch.matmul, V(2, 3, 4), V(4, 5)),
            example(torch.matmul, V(4), V(2, 4, 5)),
            example(torch.matmul, C(2, 3, 4), V(2, 4, 5)),
            example(torch.Tensor.matmul, V(2, 3, 4), other=V(4)),
        ],
        "rmatmul": [example(lambda b, a: a @ b, V(4, 5), V(3, 4))],
        "mm": [example(torch.mm, V(3, 4), V(4, 5)), example(torch.mm, V(3, 4), mat2=V(4, 5))],
        "bmm": [example(torch.bmm, V(2, 3, 4), V(2, 4, 5))],
        "mv": [example(torch.mv, V(3, 4), V(4))],
        "dot": [example(torch.dot, V(4), V(4))],
        "vdot": [example(torch.vdot, V(4), V(4))],
        "inner": [example(torch.inner, V(3, 4), V(2, 4))],
        "outer": [example(torch.outer, V(3), V(4))],
        "ger": [example(torch.ger, V(3), V(4))],
        "tensordot": [example(torch.tensordot, V(3, 4, 5), V(4, 5, 2), dims=2)],
        "kron": [example(torch.kron, V(2, 3), V(3, 2))],
        "cross": [example(torch.cross, V(2, 3), V(2, 3), dim=1)],
        "linalg_cross": [example(torch.linalg.cross, V(2, 3), V(2, 3))],
        "vecdot": [example(torch.linalg.vecdot, V(2, 3), V(2, 3))],
        "linalg_vecdot": [example(torch.linalg.vecdot, V(2, 3), V(3))],
        "addmv": [example(torch.addmv, V(3), V(3, 4), V(4), beta=0.5, alpha=2)],
        "addr": [example(torch.addr, V(3, 4), V(3), V(4))],
        "addbmm": [example(torch.addbmm, V(3, 5), V(2, 3, 4), V(2, 4, 5))],
        "addmm": [example(torch.addmm, C(5), V(3, 4), V(4, 5)), example(torch.addmm, V(5), V(3, 4), C(4, 5), alpha=-2)],
        "baddbmm": [example(torch.baddbmm, V(2, 3, 5), V(2, 3, 4), V(2, 4, 5), beta=0.3)],
        "addcmul": [example(torch.addcmul, V(3, 4), V(4), V(3, 1), value=0.5)],
        "lerp": [example(torch.lerp, V(3, 4), V(3, 4), V(4)), example(torch.lerp, V(3, 4), C(3, 4), 0.3)],
        "einsum": [
            example(torch.functional._VF.einsum, "ij,jk->ik", [V(3, 4), V(4, 5)]),
            example(torch.einsum, "bi,bj,bk->ijk", V(2, 3), V(2, 3), V(2, 3)),
            example(torch.einsum, "i,i,i,i->", V(3), V(3), V(3), V(3)),
        ],
        "bilinear": [
            example(torch.bilinear, V(3, 4), V(3, 5), C(2, 4, 5), C(2)),
            example(torch.bilinear, V(3, 4), V(3, 5), V(2, 4, 5), V(2)),
        ],
        "chain_matmul": [example(torch._C._VariableFunctions.chain_matmul, [V(2, 3), V(3, 4), V(4, 2)])],
        "linalg_multi_dot": [example(torch.linalg.multi_dot, [V(2, 3), V(3, 4), V(4, 2)])],
        "linear": [
            example(F.linear, V(2, 3, 4), C(5, 4), C(5)),
            example(F.linear, V(4), weight=C(5, 4)),
            example(F.linear, V(3, 4), C(4)),
            example(F.linear, V(2, 3, 4), V(5, 4), V(5)),
        ],
        "square": [example(torch.square, V(3, 5))],
        "mse_loss": [example(torch._C._nn.mse_loss, V(3, 4), V(3, 4), 1)],
        "var": [example(torch.var, V(3, 5)), example(torch.var, V(3, 5), 1, correction=0, keepdim=True)],
        "var_mean": [example(torch.var_mean, V(3, 5), 0)],
        "std": [example(torch.std, V(3, 5)), example(torch.std, V(3, 5), dim=1, correction=0)],
        "std_mean": [example(torch.std_mean, V(3, 5), 0)],
    }


def _elementwise() -> dict[str, list[Example]]:
    pairs = {
        name: [example(getattr(torch, name), V(3, 5), V(5)), example(getattr(torch, name), V(3, 5), C(5))]
        for name in "atan2 logaddexp logaddexp2 hypot copysign fmod remainder maximum minimum fmax fmin".split()
    }
    power = [
        example(torch.pow, V(3, 5), 3),
        example(torch.pow, V(3, 5), 2),
        example(torch.pow, V(3, 5, domain=POSITIVE), -0.5),
        example(torch.pow, V(3, 5, domain=POSITIVE), V(5)),
        example(torch.pow, 2.0, V(3, 5)),
    ]
    slopes = [
        example(F.softplus, V(3, 5), 2.0, 3.0),
        example(F.softplus, V(3, 5), beta=0.5),
    ]
    bounds = [
        example(torch.clamp, V(3, 5), -0.5, 1.0),
        example(torch.clamp, V(3, 5), min=C(5)),
        example(torch.clamp, V(3, 5), V(5), V(3, 1)),
        example(torch.clamp, C(3, 5), max=V(5)),
    ]
    everywhere = _unary(
        "silu mish elu celu selu sigmoid tanh exp exp2 expm1 sin cos tan atan sinh cosh asinh erf erfc logsigmoid "
        "softsign tanhshrink sinc erfcx ndtr log_ndtr i0 i0e relu relu6 leaky_relu hardswish hardsigmoid hardtanh "
        "abs sign sgn floor ceil round trunc fix hardshrink softshrink nan_to_num frac"
    )
    return {
        **everywhere,
        **_unary("log log2 log10 sqrt rsqrt reciprocal lgamma digamma", POSITIVE),
        **_unary("log1p asin acos atanh erfinv", UNIT),
        **_unary("acosh", ABOVE),
        **_unary("logit", OPEN),
        **pairs,
        "sqrt": [example(torch.sqrt, V(3, 5, domain=POSITIVE)), example(torch.sqrt, V(3, 5, domain=RECTIFIED))],
        "gelu": [example(torch._C._nn.gelu, V(3, 5)), example(torch._C._nn.gelu, V(3, 5), approximate="tanh")],
        "log_sigmoid": [example(torch._C._nn.log_sigmoid, V(3, 5))],
        "softplus": slopes,
        "elu": [example(F.elu, V(3, 5)), example(F.elu, V(3, 5), 2.0)],
        "threshold": [example(F.threshold, V(3, 5), 0.5, -1.0)],
        "prelu": [example(torch.prelu, V(3, 5), C(5)), example(torch.prelu, V(3, 4), V(1))],
        "rrelu": [example(torch.rrelu, V(3, 5), 0.1, 0.3, False)],
        "pow": power,
        "rpow": [example(lambda b, a: a**b, V(3, 5), 2.0)],
        "float_power": [example(torch.float_power, V(3, 5, domain=POSITIVE), 1.5)],
        "xlogy": [example(torch.xlogy, V(3, 5), V(5, domain=POSITIVE))],
        "xlog1py": [example(torch.special.xlog1py, V(3, 5), V(5, domain=POSITIVE))],
        "ldexp": [example(torch.ldexp, V(3, 5), C(5)), example(torch.ldexp, V(3, 5), V(5))],
        "floor_divide": [
            example(torch.floor_divide, V(3, 5), V(5)),
            example(torch.div, V(3, 5), V(3, 5), rounding_mode="trunc"),
        ],
        "clamp": bounds,
        "clip": bounds,
        "clamp_min": [example(torch.clamp_min, V(3, 5), 0.5), example(torch.clamp_min, V(3, 5), V(5))],
        "clamp_max": [example(torch.clamp_max, V(3, 5), 0.5), example(torch.clamp_max, V(3, 5), max=V(5))],
    }


def _extrema() -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for name in ("amax", "amin"):
        function = getattr(torch, name)
        found[name] = [
            example(function, V(3, 4, 5)),
            example(function, V(3, 4, 5), 1),
            example(function, V(3, 4, 5, domain=RECTIFIED), dim=(0, -1), keepdim=True),
        ]
    for name in ("max", "min"):
        function = getattr(torch, name)
        found[name] = [
            example(function, V(3, 4)),
            example(function, V(3, 4), 1),
            example(function, V(3, 4), dim=0, keepdim=True),
            example(function, V(3, 4), V(4)),
        ]
    return found


EXAMPLES: dict[str, list[Example]] = {
    **_elementwise(),
    **_extrema(),
    **_max_pools(),
    **_convolutions(),
    **_recurrent(),
    **_norms(),
    **_attention(),
    **_softmaxes(),
    **_products(),
}
