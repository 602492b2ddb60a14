"""Products with SwiGLU in their epilogues, by quack-kernels (CuTe DSL), one matrix or one for each expert.

Its kernels are warp-specialised and share loads within a cluster, which Triton does not offer on Hopper: one warpgroup
multiplies while another writes its tile. ``w13`` has the interleaved rows of w1 and w3, so that the gate and the value
of a hidden feature are adjacent in a tile, as they are in the products that are saved for the backward.
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
    """int32 ``[E + 1]``: offset of each expert's first row, and the end of the last expert's rows."""
    token_M: Tensor | None
    """int32: the token that a row reads; None if the input is rows already."""


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


# The fastest configurations on an H100 (docs/performance.md)
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
    x_ND: Tensor, w13: Tensor, save_products: bool, rows: GroupedRows | None = None, weight_M: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return h = w silu(g) v with g and v from x W_13^T, and g and v interleaved, ``[M, 2F]``, if ``save_products``.

    Args:
        x_ND: bf16.
        w13: bf16, ``[2F, D]``; with ``rows`` ``[E, 2F, D]``.
        save_products: whether the backward needs the products.
        rows: rows of the experts; None for one matrix.
        weight_M: routing weights of ``rows``, fp32.
    """
    offset_X, token_M = (None, None) if rows is None else rows
    config = _GATED if save_products else _GATED_FORWARD_ONLY
    if weight_M is None:
        gate_value_MG, hidden_MF = gemm_gated(
            x_ND,
            w13.mT,
            activation="swiglu",
            cu_seqlens_m=offset_X,
            A_idx=token_M,
            store_preact=save_products,
            config=config,
            tuned=False,
        )
        return hidden_MF, gate_value_MG
    result = _weighted_swiglu(
        x_ND,
        w13.mT,
        cu_seqlens_m=offset_X,
        A_idx=token_M,
        store_d=save_products,
        config=config,
        tuned=False,
        weight=weight_M,
    )
    return result["hidden"], result.get("D")


def gated_backward(
    grad_ND: Tensor, w2: Tensor, gate_value_MG: Tensor, rows: GroupedRows | None = None, weight_M: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return gradients of the products, the recomputed weighted hidden rows, and fp32 gradients of the routing weights.

    Args:
        grad_ND: gradient of y = h W_2^T.
        w2: ``[D, F]``; with ``rows`` ``[E, D, F]``.
        gate_value_MG: products from ``gated``.
        rows: as in ``gated``.
        weight_M: as in ``gated``.
    """
    offset_X, token_M = (None, None) if rows is None else rows
    result = gemm_dgated(
        grad_ND,
        aligned(w2),
        gate_value_MG,
        activation="swiglu",
        colvec_scale=weight_M,
        colvec_reduce=weight_M is not None,
        cu_seqlens_m=offset_X,
        A_idx=token_M,
        dynamic_scheduler=False,
        config=_GATED_BACKWARD,
        tuned=False,
    )
    grad_MG, hidden_MF, *grad_weight = result
    return grad_MG, hidden_MF, grad_weight[0] if grad_weight else None


def grouped(row_MK: Tensor, matrix_EKN: Tensor, offset_X: Tensor) -> Tensor:
    """Multiply each expert's rows by its matrix: ``[M, N]``."""
    depth, width = matrix_EKN.shape[1:]
    config = _NARROW if width <= 1024 else _LONG if depth > 1024 else _SHORT
    product_MN = row_MK.new_empty(row_MK.shape[0], width)
    gemm_tuned.fn(row_MK, aligned(matrix_EKN), product_MN, cu_seqlens_m=offset_X, config=config)
    return product_MN
