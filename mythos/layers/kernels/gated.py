"""Products with SwiGLU in their epilogues, by quack-kernels (CuTe DSL), one matrix or one for each expert.

Its programs specialise by warpgroup and share loads within a cluster, which Triton does not offer on Hopper: one
warpgroup multiplies while another writes its tile. ``w13`` has w1 and w3 row by row in turn, so that the gate and the
value of a hidden number lie beside each other in a tile, as they do in what is kept for the backward.
"""

from typing import Any, NamedTuple

from quack.activation import swiglu
from quack.epilogue.frontend import gemm_epilogue
from quack.epilogue.math import pack, unpack
from quack.epilogue.ops import ColVecLoad
from quack.gemm_config import GemmConfig
from quack.gemm_interface import gemm_dgated, gemm_gated, gemm_tuned
from torch import Tensor

from mythos.layers.kernels import aligned


class GroupedRows(NamedTuple):
    """Rows sorted by expert."""

    offset_X: Tensor
    """int32 ``[E + 1]``: where each expert's rows begin, and the end of the last."""
    token_M: Tensor | None
    """int32: the token that a row reads; None where rows lie there already."""


def _config(tile_m: int, tile_n: int, pingpong: bool, cluster_m: int = 2, cluster_n: int = 1) -> GemmConfig:
    return GemmConfig(
        tile_m=tile_m,
        tile_n=tile_n,
        pingpong=pingpong,
        cluster_m=cluster_m,
        cluster_n=cluster_n,
        is_dynamic_persistent=False,
        device_capacity=9,
    )


# The fastest of those tried on an H100 (docs/performance.md)
_GATED = _config(128, 192, pingpong=True)
_GATED_FORWARD_ONLY = _config(128, 256, pingpong=False)
_GATED_BACKWARD = _config(128, 128, pingpong=True)
_NARROW = _config(192, 128, pingpong=True)
_LONG = _config(128, 256, pingpong=False, cluster_m=1, cluster_n=2)
_SHORT = _config(128, 192, pingpong=True)


@gemm_epilogue(outputs=("hidden",), ops={"weight": ColVecLoad("weight")}, mode="acc_pair")
def _weighted_swiglu(acc: Any, weight: Any) -> dict[str, Any]:
    gate, value = unpack(acc)
    return {"D": pack(gate, value), "hidden": swiglu(gate, value) * weight}


def gated(
    x_ND: Tensor, w13: Tensor, keep: bool, rows: GroupedRows | None = None, weight_M: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """h = w silu(g) v with g and v from x W_13^T, and g and v in turn, ``[M, 2F]``, if ``keep``.

    Args:
        x_ND: bf16.
        w13: bf16, ``[2F, D]``; with ``rows`` ``[E, 2F, D]``.
        keep: whether the backward will want the products.
        rows: of experts; None for one matrix.
        weight_M: fp32, of ``rows``.
    """
    offset_X, token_M = (None, None) if rows is None else rows
    config = _GATED if keep else _GATED_FORWARD_ONLY
    if weight_M is None:
        kept_MG, hidden_MF = gemm_gated(
            x_ND,
            w13.mT,
            activation="swiglu",
            cu_seqlens_m=offset_X,
            A_idx=token_M,
            store_preact=keep,
            config=config,
            tuned=False,
        )
        return hidden_MF, kept_MG
    made = _weighted_swiglu(
        x_ND,
        w13.mT,
        cu_seqlens_m=offset_X,
        A_idx=token_M,
        store_d=keep,
        config=config,
        tuned=False,
        weight=weight_M,
    )
    return made["hidden"], made.get("D")


def gated_backward(
    grad_ND: Tensor, w2: Tensor, kept_MG: Tensor, rows: GroupedRows | None = None, weight_M: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of the products, the weighted hidden rows made again, and fp32 gradients of the weights.

    Args:
        grad_ND: gradient of y = h W_2^T.
        w2: ``[D, F]``; with ``rows`` ``[E, D, F]``.
        kept_MG: as ``gated`` made it.
        rows: as there.
        weight_M: as there.
    """
    offset_X, token_M = (None, None) if rows is None else rows
    made = gemm_dgated(
        grad_ND,
        aligned(w2),
        kept_MG,
        activation="swiglu",
        colvec_scale=weight_M,
        colvec_reduce=weight_M is not None,
        cu_seqlens_m=offset_X,
        A_idx=token_M,
        dynamic_scheduler=False,
        config=_GATED_BACKWARD,
        tuned=False,
    )
    grad_MG, hidden_MF, *grad_weight = made
    return grad_MG, hidden_MF, grad_weight[0] if grad_weight else None


def grouped(row_MK: Tensor, matrix_EKN: Tensor, offset_X: Tensor) -> Tensor:
    """Each expert's rows times its matrix: ``[M, N]``."""
    depth, width = matrix_EKN.shape[1:]
    config = _NARROW if width <= 1024 else _LONG if depth > 1024 else _SHORT
    product_MN = row_MK.new_empty(row_MK.shape[0], width)
    gemm_tuned.fn(row_MK, aligned(matrix_EKN), product_MN, cu_seqlens_m=offset_X, config=config)
    return product_MN
