"""Time causal attention, forward and backward: training's path, each backend of PyTorch's SDPA, and FlexAttention."""

import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from mythos.bench.rows import Row, measure
from mythos.config.base import ConfigError
from mythos.layers.documents import count_documents
from mythos.layers.mask import attend, dense_mask, document_mask

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
ARMS = ("training", *BACKENDS, "flex")
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Shape(NamedTuple):
    """The sizes of one layer's attention."""

    batch: int
    num_heads: int
    num_kv_heads: int
    seq_len: int
    head_dim: int

    def __str__(self) -> str:
        return f"b{self.batch}-h{self.num_heads}-g{self.num_kv_heads}-s{self.seq_len}-p{self.head_dim}"

    @property
    def num_flops(self) -> int:
        """FLOPs of forward and backward over the causal half: two matrix products forward, four backward.

        Document masks reduce the work, which is not subtracted. Scores that a backward recomputes are not counted.
        """
        return 6 * self.batch * self.num_heads * self.seq_len**2 * self.head_dim


SHAPES = (Shape(8, 8, 8, 2048, 128), Shape(8, 16, 16, 2048, 128))


class Comparison(NamedTuple):
    """Results of the arms that ran, and the reason why each other arm was refused."""

    rows: list[Row]
    refused: dict[str, str]


def parse_shape(text: str) -> Shape:
    """Parse a shape such as ``b8-h16-g4-s2048-p128``.

    Raises:
        ConfigError: the text has another format, or the heads do not divide.
    """
    match = re.fullmatch(r"b(\d+)-h(\d+)-g(\d+)-s(\d+)-p(\d+)", text)
    if match is None:
        raise ConfigError(
            f"{text!r} is not a shape; write b8-h16-g4-s2048-p128 (batch, heads, key-value heads, tokens, head width)."
        )
    shape = Shape(*map(int, match.groups()))
    if min(shape) < 1 or shape.num_heads % shape.num_kv_heads:
        raise ConfigError(
            f"{text} has {shape.num_heads} heads on {shape.num_kv_heads} key-value heads; "
            "all sizes are positive, and the first must be a multiple of the second."
        )
    return shape


def check(arms: list[str], mean_document: int) -> None:
    """Check the arms and the document length.

    Raises:
        ConfigError: an arm is unknown, or the length is negative.
    """
    for arm in arms:
        if arm not in ARMS:
            raise ConfigError(f"{arm!r} is not an arm; choose from {', '.join(ARMS)}.")
    if mean_document < 0:
        raise ConfigError(f"--documents is {mean_document}; give a mean length, or 0 for none.")


def compare(
    shape: Shape,
    document_ids_BS: Tensor | None,
    arms: list[str],
    device: torch.device,
    dtype: torch.dtype,
    num_rounds: int,
    num_warmup: int,
) -> Comparison:
    """Time the arms that can run; with documents, no arm attends across document boundaries."""
    inputs = Inputs(shape, device, dtype)
    calls: dict[str, Callable[[], None]] = {}
    refused = {}
    for name in arms:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SDPA warns once for each reason that rules a backend out
                call = inputs.step(attention(name, document_ids_BS, shape, device, dtype))
                call()
        except (RuntimeError, NotImplementedError) as error:
            refused[name] = str(error).strip().partition("\n")[0]
        else:
            calls[name] = call
    rows = measure(calls, shape.num_flops, device, num_rounds, num_warmup) if calls else []
    return Comparison(rows, refused)


class Inputs:
    """Queries, keys, values and the gradient of the output, all random."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def random(num_heads: int) -> Tensor:
            size = (shape.batch, shape.seq_len, num_heads, shape.head_dim)  # the layout that projections produce
            return torch.randn(size, generator=generator, device=device, dtype=dtype).transpose(1, 2)

        self.query_key_value = [
            random(heads).requires_grad_() for heads in (shape.num_heads, *[shape.num_kv_heads] * 2)
        ]
        self.grad_BHSP = random(shape.num_heads)

    def step(self, run: Attend) -> Callable[[], None]:
        """A call that runs forward and backward and discards the gradients."""

        def call() -> None:
            torch.autograd.grad(run(*self.query_key_value), self.query_key_value, self.grad_BHSP)

        return call


def attention(
    name: str, document_ids_BS: Tensor | None, shape: Shape, device: torch.device, dtype: torch.dtype
) -> Attend:
    """The function of query, key and value that an arm times.

    Raises:
        RuntimeError: the arm cannot run here.
    """
    if name == "flex":
        return _flex(document_ids_BS, shape.seq_len, device)
    if name == "training":
        training_mask = None
        if document_ids_BS is not None:
            training_mask = document_mask(document_ids_BS, dtype, shape.head_dim, count_documents(document_ids_BS))
        return lambda query_BHSP, key_BGSP, value_BGSP: attend(query_BHSP, key_BGSP, value_BGSP, training_mask)
    mask = None if document_ids_BS is None else dense_mask(document_ids_BS)

    def run(query_BHSP: Tensor, key_BGSP: Tensor, value_BGSP: Tensor) -> Tensor:
        with sdpa_kernel(BACKENDS[name]):
            return functional.scaled_dot_product_attention(
                query_BHSP,
                key_BGSP,
                value_BGSP,
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=query_BHSP.shape[1] != key_BGSP.shape[1],
            )

    return run


def _flex(document_ids_BS: Tensor | None, seq_len: int, device: torch.device) -> Attend:
    """Compiled FlexAttention with a block mask."""

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_causal = query >= key
        if document_ids_BS is None:
            return is_causal
        return is_causal & (document_ids_BS[batch, query] == document_ids_BS[batch, key])

    num_rows = None if document_ids_BS is None else document_ids_BS.shape[0]
    block_mask = create_block_mask(is_visible, num_rows, None, seq_len, seq_len, device=device.type)
    compiled = torch.compile(flex_attention, dynamic=False)

    def run(query_BHSP: Tensor, key_BGSP: Tensor, value_BGSP: Tensor) -> Tensor:
        mixed_BHSP = compiled(
            query_BHSP,
            key_BGSP,
            value_BGSP,
            block_mask=block_mask,
            enable_gqa=query_BHSP.shape[1] != key_BGSP.shape[1],
        )
        assert isinstance(mixed_BHSP, Tensor)
        return mixed_BHSP

    return run
