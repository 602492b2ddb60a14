"""The looped transformer: embedding, prelude, core passed T times, coda, head."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mythos.config.decoding import ExitRule
from mythos.config.halting import FixedHalting, HaltingConfig
from mythos.config.model import MLAConfig, ModelConfig
from mythos.layers.cache import DecodeCache, KVCache, NoCache
from mythos.layers.mask import Mask, document_mask
from mythos.layers.norm import RMSNorm
from mythos.layers.precision import compute_dtype
from mythos.layers.rope import Rotation, rotation_at
from mythos.loop.exits.halting import Halting, HaltingOutput
from mythos.loop.exits.rules import Seen, stops
from mythos.loop.state import Noise
from mythos.loop.variable_depth import variable_depth_batch
from mythos.model.block import Block
from mythos.model.core import Core, ExpertIndices
from mythos.model.head import Head
from mythos.types import Batch, ModelOutput, Regularizers


class Unrolled(NamedTuple):
    """The passes of one forward, laid open."""

    states: list[Tensor]
    """Before the first pass, then after each."""
    expert_indices: list[ExpertIndices]
    """The experts of each pass."""
    halting_output: HaltingOutput
    """What coda and head read after each pass."""
    rotation: Rotation
    mask: Mask | None


class Decoded(NamedTuple):
    """What decoding makes of the newest tokens."""

    logits_BSV: Tensor
    """Of the next tokens, fp32."""
    num_loops_BS: Tensor
    """Passes that each token ran; full depth at padding."""


class Mythos(nn.Module):
    """e = norm(prelude(embed(tokens))); h_T = core^T(h_0, e); logits = head(coda(h_T))."""

    def __init__(self, config: ModelConfig, halting: HaltingConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.prelude = nn.ModuleList(Block(config, config.ffn) for _ in range(config.num_prelude_layers))
        self.prelude_norm = RMSNorm(config.dim, config.norm_eps) if config.prelude_norm else nn.Identity()
        self.noise = Noise()
        self.core = Core(config)
        self.halting = Halting(halting or FixedHalting(), config.dim)
        self.coda = nn.ModuleList(Block(config, config.ffn) for _ in range(config.num_coda_layers))
        self.head = Head(config)
        self.state_dtype: torch.dtype | None = None
        """Of the recurrent state and the residual stream, set from outside; None for the weights', fp32 at least."""

    def forward(
        self,
        batch: Batch,
        num_loops: int,
        num_grad_loops: int | None = None,
        exits: tuple[int, ...] | None = None,
        trace: bool = False,
        noise_seed: int | None = None,
        regularizers: Regularizers = Regularizers(),  # noqa: B008  (immutable)
        loops_B: np.ndarray | None = None,
        damping: float = 1.0,
    ) -> ModelOutput:
        """Loss of every target at every exit.

        Args:
            num_loops: passes T over the core.
            num_grad_loops: k, how many of the last passes keep gradients; None for all.
            exits: ascending 0-based passes after which coda and head are read; None for the last one.
            trace: also return the loop trace.
            noise_seed: seed of the initial state's noise, in training; None starts from zero.
            regularizers: figures with gradients that penalties ask for.
            loops_B: passes of each row, int64 on the host, ``num_loops`` the largest; None runs all rows alike. Rows
                end together and have one exit, the last; the output keeps the order of ``batch``.
            damping: share by which passes with gradients move the state, in training; see ``Core.forward``.
        """
        exits = (num_loops - 1,) if exits is None else exits
        assert exits == tuple(sorted(set(exits))), f"exits must ascend, got {exits}"
        assert 0 <= exits[0] <= exits[-1] < num_loops, f"exits {exits} outside {num_loops} loops"
        rows = None
        if loops_B is not None:
            assert num_loops == loops_B.max(), f"num_loops is {num_loops}, but the deepest row has {loops_B.max()}"
            assert exits == (num_loops - 1,), f"rows of different depth have no common exits {exits}"
            assert self.halting.gate is None, "rows of different depth have no halting"
            rows = variable_depth_batch(loops_B, batch.tokens_BS.device)
            batch = rows.sort(batch)
        rotation, mask, e_BSD = self._begin(batch)
        core = self.core(
            self._initial_state(e_BSD, batch.sample_ids_B, noise_seed),
            e_BSD,
            rotation,
            mask,
            num_loops,
            num_loops if num_grad_loops is None else num_grad_loops,
            self.halting.required_exits(num_loops, exits),
            trace,
            regularizers.consistency,
            rows=rows,
            damping=damping,
        )
        jacobian_growth_B = None
        if regularizers.num_power_iterations:
            direction_BSD = self.noise(noise_seed or 0, batch.sample_ids_B, *e_BSD.shape[1:])
            next_loop = num_loops if rows is None else num_loops - rows.entry_B
            jacobian_growth_B = self.core.growth(
                core.state_BSD, e_BSD, rotation, mask, next_loop, regularizers.num_power_iterations, direction_BSD
            )
        halting_output = self.halting(core.exit_states, exits)
        is_one_of_many = len(exits) > 1
        read = [self._read(h_BSD, rotation, mask, batch.targets_BS, is_one_of_many) for h_BSD in halting_output.states]
        nll_XBS, lse_XBS = map(torch.stack, zip(*read, strict=True))
        output = ModelOutput(
            nll_XBS=nll_XBS,
            lse_XBS=lse_XBS,
            exit_prob_XBS=halting_output.exit_prob_XBS,
            router_stats=core.router_stats,
            state_BSD=core.state_BSD,
            trace=core.trace,
            halting_TBS=halting_output.halting_TBS,
            ponder_BS=halting_output.ponder_BS,
            stop_logit_TBS=halting_output.stop_logit_TBS,
            change_T=core.change_T,
            jacobian_growth_B=jacobian_growth_B,
        )
        return output if rows is None else rows.restore(output)

    def encode(
        self,
        tokens_BS: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        caches: Sequence[KVCache] | None = None,
    ) -> Tensor:
        """e, the normed output of the prelude."""
        x_BSD = self.embedding(tokens_BS)
        x_BSD = x_BSD.to(self.state_dtype or torch.promote_types(x_BSD.dtype, torch.float32))
        return self.prelude_norm(_run(self.prelude, x_BSD, rotation, mask, caches))

    @torch.no_grad()
    def decode(self, tokens_BS: Tensor, cache: DecodeCache, is_real_BS: Tensor | None = None) -> Tensor:
        """Logits ``[B, S, V]`` of the next tokens, fp32, at full depth; see ``decode_until``."""
        return self.decode_until(tokens_BS, cache, None, is_real_BS).logits_BSV

    def decode_until(
        self,
        tokens_BS: Tensor,
        cache: DecodeCache | NoCache,
        rule: ExitRule | None,
        is_real_BS: Tensor | None = None,
        num_logits: int | None = None,
    ) -> Decoded:
        """Logits of the next tokens, each token leaving the loop when a rule lets it.

        A token that has left keeps its state; the loop ends when all have left. Gradients flow through all passes.

        Args:
            tokens_BS: what follows the tokens that the cache has seen.
            rule: None runs all passes.
            is_real_BS: False at padding; None where there is none.
            num_logits: of how many of the newest tokens logits are wanted; None for all.
        """
        positions_BS, mask = cache.positions_and_mask(tokens_BS, is_real_BS)
        rotation = self._rotation(positions_BS)
        e_BSD = self.encode(tokens_BS, rotation, mask, cache.prelude)
        h_BSD = self._initial_state(e_BSD, None, None)
        has_stops = None if rule is None else stops(rule)
        exited_BS = torch.zeros_like(tokens_BS, dtype=torch.bool) if is_real_BS is None else ~is_real_BS.bool()
        last_BS = torch.full_like(tokens_BS, cache.num_loops - 1)
        states: list[Tensor] = []
        gate_logits: list[Tensor] = []

        def logits(num_newest: int | None = None) -> Tensor:
            x_BSD = self.halting.exit_output(states, gate_logits, last_BS.clamp(max=len(states) - 1))
            x_BSD = _run(self.coda, x_BSD, rotation, mask, cache.coda)
            return self.head.logits(x_BSD if num_newest is None else x_BSD[:, -num_newest:], self.embedding.weight)

        for loop in range(cache.num_loops):
            caches = cache.at(loop, None if has_stops is None else exited_BS)
            new_BSD, _, _ = self.core.step(h_BSD, e_BSD=e_BSD, rotation=rotation, mask=mask, loop=loop, caches=caches)
            h_BSD = new_BSD if has_stops is None else torch.where(exited_BS[..., None], h_BSD, new_BSD)
            states = self.halting.update_history(states, h_BSD)
            if self.halting.gate is not None:
                gate_logits.append(self.halting.gate(h_BSD))
            if has_stops is not None and loop < cache.num_loops - 1:
                seen = Seen(h_BSD, lambda: self.halting.exit_mass(gate_logits), logits)
                exits_now_BS = has_stops(seen) & ~exited_BS
                last_BS = last_BS.masked_fill(exits_now_BS, loop)
                exited_BS = exited_BS | exits_now_BS
                if bool(exited_BS.all()):
                    break
        found = Decoded(logits(num_logits), last_BS + 1)
        cache.commit(tokens_BS.shape[1], loop + 1)
        return found

    @torch.no_grad()
    def unroll(self, batch: Batch, num_loops: int, freeze_routing: bool = False) -> Unrolled:
        """Run a batch from the evaluation's initial state and keep the state after every pass.

        Args:
            freeze_routing: every later pass takes the experts that the first one chose, weighted by the scores that
                the router gives them in that pass.
        """
        rotation, mask, e_BSD = self._begin(batch)
        states = [self._initial_state(e_BSD, None, None)]
        expert_indices: list[ExpertIndices] = []
        for loop in range(num_loops):
            frozen = expert_indices[0] if freeze_routing and loop > 0 else None
            new_BSD, _, chosen = self.core.step(
                states[-1], frozen, e_BSD=e_BSD, rotation=rotation, mask=mask, loop=loop
            )
            states.append(new_BSD)
            expert_indices.append(chosen)
        halting_output = self.halting(states[1:], tuple(range(num_loops)))
        return Unrolled(states, expert_indices, halting_output, rotation, mask)

    @torch.no_grad()
    def before_head(self, unrolled: Unrolled, loop: int) -> Tensor:
        """The coda's output, ``[B, S, D]``, when all tokens leave after pass ``loop`` (0-based)."""
        return _run(self.coda, unrolled.halting_output.states[loop], unrolled.rotation, unrolled.mask)

    @torch.no_grad()
    def predict(self, batch: Batch, num_loops: int) -> tuple[Tensor, Tensor | None]:
        """The likeliest next token after each pass, ``[T, B, S]``, and the exit distribution of a learned halting."""
        unrolled = self.unroll(batch, num_loops)
        read = [self.before_head(unrolled, loop) for loop in range(num_loops)]
        expert_indices = [self.head.logits(x_BSD, self.embedding.weight).argmax(-1) for x_BSD in read]
        return torch.stack(expert_indices), unrolled.halting_output.halting_TBS

    def new_cache(self, num_loops: int, capacity: int | None, policy: str = "all") -> DecodeCache:
        """An empty cache for decoding up to ``capacity`` tokens at ``num_loops`` passes each; None lets it grow."""
        counts = (len(self.prelude), len(self.core.blocks), len(self.coda))
        return DecodeCache(*counts, num_loops=num_loops, capacity=capacity, policy=policy)

    def _begin(self, batch: Batch) -> tuple[Rotation, Mask | None, Tensor]:
        """What every pass needs of a batch: angles, mask, and e."""
        rotation = self._rotation(batch.positions_BS)
        mask = None
        if batch.document_ids_BS is not None:
            dtype = compute_dtype(self.embedding.weight)
            width = None if isinstance(self.config.attention, MLAConfig) else self.config.head_dim
            mask = document_mask(batch.document_ids_BS, dtype, width, batch.num_documents)
        return rotation, mask, self.encode(batch.tokens_BS, rotation, mask)

    def _read(
        self,
        state_BSD: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        targets_BS: Tensor,
        is_one_of_many: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Coda and head at one exit."""
        x_BSD = _run(self.coda, state_BSD, rotation, mask)
        return self.head(x_BSD, self.embedding.weight, targets_BS, is_one_of_many)

    def _initial_state(self, e_BSD: Tensor, sample_ids_B: Tensor | None, noise_seed: int | None) -> Tensor:
        if self.config.initial_state == "embedding":
            return e_BSD
        if self.config.initial_state == "zero" or noise_seed is None or sample_ids_B is None:
            return torch.zeros_like(e_BSD)
        values_BSD = self.noise(noise_seed, sample_ids_B, *e_BSD.shape[1:])
        return (values_BSD * self.config.embedding_std).to(e_BSD.dtype)

    def _rotation(self, positions_BS: Tensor) -> Rotation:
        attention = self.config.attention
        width = attention.rope_head_dim if isinstance(attention, MLAConfig) else self.config.head_dim
        return rotation_at(positions_BS, width, attention.rope_base)


def _run(
    blocks: nn.ModuleList,
    x_BSD: Tensor,
    rotation: Rotation,
    mask: Mask | None,
    caches: Sequence[KVCache] | None = None,
) -> Tensor:
    """Dense blocks one after the other."""
    for layer, block in enumerate(blocks):
        x_BSD, _, _ = block(x_BSD, rotation, mask, None, None if caches is None else caches[layer])
    return x_BSD
