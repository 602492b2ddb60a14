"""The looped transformer: embedding, prelude, core looped T times, coda, head."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

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
from mythos.loop.growth import jacobian_growth
from mythos.loop.observers import ExitStates, LoopHistory, RouterTotals, StateChange
from mythos.loop.part import LoopInputs, LoopState, Watch, watch_nothing
from mythos.loop.recorder import LoopRecorder
from mythos.loop.run import ExpertIndices, FrozenRouting, Observer, Schedule, TrainingSchedule, run_loop
from mythos.loop.state import Noise
from mythos.loop.variable_depth import SAME_DEPTH, Sequences, variable_depth_batch
from mythos.model.block import Block
from mythos.model.core import Core
from mythos.model.decoding import Decoding, EarlyExit
from mythos.model.head import Head
from mythos.types import Batch, ModelOutput, Regularizers

C = TypeVar("C", bound=DecodeCache)


class Unrolled(NamedTuple):
    """States and statistics of every loop of one forward."""

    states: list[Tensor]
    """State before the first loop, then after each."""
    expert_indices: list[ExpertIndices]
    """Expert indices of each loop."""
    watched: list[list[Any]]
    """Results of ``watch`` for each block of each loop."""
    halting_output: HaltingOutput
    """Inputs of the coda after each loop."""
    rotation: Rotation
    mask: Mask | None


class Decoded(NamedTuple):
    """The result of decoding new tokens."""

    logits_BSV: Tensor
    """Next-token logits, fp32."""
    num_loops_BS: Tensor
    """Loops that each token ran; all loops at padding."""


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
        """Dtype of the state and the residual stream, set from outside; None for that of the weights, at least fp32."""
        self.observers: tuple[Observer, ...] = ()
        """Further observers of every forward, set from outside."""

    def forward(
        self,
        batch: Batch,
        num_loops: int,
        num_grad_loops: int | None = None,
        exits: tuple[int, ...] | np.ndarray | None = None,
        trace: bool = False,
        noise_seed: int | None = None,
        regularizers: Regularizers = Regularizers(),  # noqa: B008  (immutable)
        loops_B: np.ndarray | None = None,
        damping: float = 1.0,
    ) -> ModelOutput:
        """Return the loss of every target at every exit.

        Args:
            num_loops: T, the number of loops over the core.
            num_grad_loops: k, the number of last loops that keep gradients; None for all.
            exits: ascending 0-based loops after which coda and head are applied; None for the last one. ``[X, B]``
                gives each sequence its own, of which the last is the last loop (``halting=ponder``).
            trace: also return the loop trace.
            noise_seed: seed of the initial state's noise, in training; None starts from zero.
            regularizers: differentiable figures that penalties request.
            loops_B: loops of each row, int64 on the host, ``num_loops`` the largest; None runs all rows alike. Rows
                end together and have one exit, the last; the output keeps the order of ``batch``.
            damping: see ``TrainingSchedule``.
        """
        exits = (num_loops - 1,) if exits is None else exits
        _check_exits(exits, num_loops)
        sequences = self._sequences(batch, num_loops, exits, loops_B)
        batch = sequences.sort(batch)
        inputs = self._inputs(batch)
        recorder = LoopRecorder(batch.tokens_BS, self.core.router_bias.shape[-1], sequences) if trace else None
        change = StateChange() if regularizers.consistency else None
        router, reached = RouterTotals(sequences), ExitStates(self.halting.required_exits(num_loops, exits))
        observers = [each for each in (change, recorder, router, reached, *self.observers) if each is not None]
        state = run_loop(
            self.core.step,
            self._start(inputs, batch.sample_ids_B, noise_seed),
            inputs if recorder is None else inputs._replace(watch=recorder.watch, watch_part=recorder.watch_part),
            TrainingSchedule(num_loops, num_grad_loops, sequences, self.core.remat, damping),
            observers,
        )
        growth_B = None
        if regularizers.num_power_iterations:
            direction_BSD = self.noise(noise_seed or 0, batch.sample_ids_B, *state.h_BSD.shape[1:])
            own_loops = sequences.own_loop(num_loops)  # the loop after the last one, and the number of loops
            at = inputs._replace(loop=own_loops, num_loops=own_loops)
            growth_B = jacobian_growth(self.core.step, state, at, regularizers.num_power_iterations, direction_BSD)
        halted = self.halting(reached.states, exits)
        read = [self._read(h_BSD, inputs, batch.targets_BS, len(exits) > 1) for h_BSD in halted.states]
        nll_XBS, lse_XBS = map(torch.stack, zip(*read, strict=True))
        output = ModelOutput(
            nll_XBS=nll_XBS,
            lse_XBS=lse_XBS,
            exit_prob_XBS=halted.exit_prob_XBS,
            router_stats=router.totals(),
            state_BSD=state.h_BSD,
            trace=None if recorder is None else recorder.trace(),
            halting_TBS=halted.halting_TBS,
            ponder_BS=halted.ponder_BS,
            stop_logit_TBS=halted.stop_logit_TBS,
            change_T=None if change is None else change.change_T(),
            jacobian_growth_B=growth_B,
        )
        return sequences.restore(output)

    def logits_at(self, batch: Batch, num_loops: int, exits: tuple[int, ...]) -> Tensor:
        """Next-token logits, fp32, ``[X, B, S, V]``, when all tokens exit after each of some ascending 0-based loops.

        The initial state has no noise, and gradients flow through all loops.
        """
        inputs, reached = self._inputs(batch), ExitStates(self.halting.required_exits(num_loops, exits))
        schedule = TrainingSchedule(num_loops, remat=self.core.remat)
        run_loop(self.core.step, self._start(inputs), inputs, schedule, (reached,))
        states = self.halting(reached.states, exits).states
        read = (_run(self.coda, h_BSD, inputs.rotation, inputs.mask) for h_BSD in states)
        return torch.stack([self.head.logits(x_BSD, self.embedding.weight) for x_BSD in read])

    def encode(
        self,
        tokens_BS: Tensor,
        rotation: Rotation,
        mask: Mask | None,
        caches: Sequence[KVCache] | None = None,
    ) -> Tensor:
        """Return e, the normed output of the prelude."""
        x_BSD = self.embedding(tokens_BS)
        x_BSD = x_BSD.to(self.state_dtype or torch.promote_types(x_BSD.dtype, torch.float32))
        return self.prelude_norm(_run(self.prelude, x_BSD, rotation, mask, caches))

    @torch.no_grad()
    def decode(self, tokens_BS: Tensor, cache: DecodeCache, is_real_BS: Tensor | None = None) -> Tensor:
        """Return next-token logits ``[B, S, V]``, fp32, after all loops; see ``decode_until``."""
        return self.decode_until(tokens_BS, cache, None, is_real_BS).logits_BSV

    def decode_until(
        self,
        tokens_BS: Tensor,
        cache: DecodeCache | NoCache,
        rule: ExitRule | None,
        is_real_BS: Tensor | None = None,
        num_logits: int | None = None,
    ) -> Decoded:
        """Return next-token logits, where each token exits the loop when the rule fires for it.

        A token that has exited keeps its state; the loop ends when all have exited. Gradients flow through all loops.

        Args:
            tokens_BS: tokens that follow those in the cache.
            rule: None runs all loops.
            is_real_BS: False at padding; None where there is none.
            num_logits: number of last new tokens for which logits are returned; None for all.
        """
        positions_BS, mask = cache.positions_and_mask(tokens_BS, is_real_BS)
        rotation = self._rotation(positions_BS)
        inputs = LoopInputs(self.encode(tokens_BS, rotation, mask, cache.prelude), rotation, mask)

        def logits(h_BSD: Tensor, num_last: int | None = None) -> Tensor:
            x_BSD = _run(self.coda, h_BSD, rotation, mask, cache.coda)
            return self.head.logits(x_BSD if num_last is None else x_BSD[:, -num_last:], self.embedding.weight)

        schedule = Decoding(self.halting, cache, tokens_BS)
        if rule is not None:
            exited_BS = torch.zeros_like(tokens_BS) if is_real_BS is None else ~is_real_BS.bool()
            schedule = EarlyExit(self.halting, cache, tokens_BS, exited_BS.bool(), rule, self.core.freeze, logits)
        run_loop(self.core.step, self._start(inputs), inputs, schedule)
        decoded = Decoded(logits(schedule.exit_output(), num_logits), schedule.last_BS + 1)
        cache.commit(tokens_BS.shape[1], schedule.num_run)
        return decoded

    @torch.no_grad()
    def unroll(
        self, batch: Batch, num_loops: int, freeze_routing: bool = False, watch: Watch = watch_nothing
    ) -> Unrolled:
        """Run a batch from the initial state of evaluation and return the state after every loop.

        Args:
            freeze_routing: every later loop uses the experts of the first one, weighted by the router's scores in that
                loop.
            watch: called with the input and the output of each block of each loop.
        """
        inputs, history = self._inputs(batch), LoopHistory()
        schedule = FrozenRouting(num_loops) if freeze_routing else Schedule(num_loops)
        run_loop(self.core.step, self._start(inputs), inputs._replace(watch=watch), schedule, (history,))
        return Unrolled(
            states=history.states,
            expert_indices=[stats.expert_indices for stats in history.stats],
            watched=[stats.watched for stats in history.stats],
            halting_output=self.halting(history.states[1:], tuple(range(num_loops))),
            rotation=inputs.rotation,
            mask=inputs.mask,
        )

    @torch.no_grad()
    def before_head(self, unrolled: Unrolled, loop: int) -> Tensor:
        """Return the coda's output, ``[B, S, D]``, when all tokens exit after loop ``loop`` (0-based)."""
        return _run(self.coda, unrolled.halting_output.states[loop], unrolled.rotation, unrolled.mask)

    @torch.no_grad()
    def predict(self, batch: Batch, num_loops: int) -> tuple[Tensor, Tensor | None]:
        """Return the predicted token after each loop, ``[T, B, S]``, and the exit distribution of learned halting."""
        unrolled = self.unroll(batch, num_loops)
        read = [self.before_head(unrolled, loop) for loop in range(num_loops)]
        predictions = [self.head.logits(x_BSD, self.embedding.weight).argmax(-1) for x_BSD in read]
        return torch.stack(predictions), unrolled.halting_output.halting_TBS

    def new_cache(self, num_loops: int, capacity: int | None, policy: str = "all") -> DecodeCache:
        """Return an empty cache for ``capacity`` tokens at ``num_loops`` loops each; None lets it grow."""
        return self.new_cache_of(DecodeCache, num_loops, capacity, policy)

    def new_cache_of(self, kind: type[C], num_loops: int, capacity: int | None, policy: str) -> C:
        """Return an empty cache of a class."""
        counts = (len(self.prelude), len(self.core.blocks), len(self.coda))
        parts = [part.new_cache(num_loops, capacity) for part in self.core.loop_parts()]
        return kind(*counts, num_loops=num_loops, capacity=capacity, policy=policy, parts=parts)

    def _sequences(
        self, batch: Batch, num_loops: int, exits: tuple[int, ...] | np.ndarray, loops_B: np.ndarray | None
    ) -> Sequences:
        """Return which sequences run in which loop."""
        if loops_B is None:
            return SAME_DEPTH
        assert num_loops == loops_B.max(), f"num_loops is {num_loops}, but the deepest sequence has {loops_B.max()}"
        assert exits == (num_loops - 1,), f"sequences of different depth have no common exits {exits}"
        assert self.halting.gate is None, "sequences of different depth have no halting"
        return variable_depth_batch(loops_B, batch.tokens_BS.device)

    def _inputs(self, batch: Batch) -> LoopInputs:
        """Return the inputs of every loop: e, rotation and mask."""
        rotation = self._rotation(batch.positions_BS)
        mask = None
        if batch.document_ids_BS is not None:
            dtype = compute_dtype(self.embedding.weight)
            width = None if isinstance(self.config.attention, MLAConfig) else self.config.head_dim
            mask = document_mask(batch.document_ids_BS, dtype, width, batch.num_documents)
        return LoopInputs(self.encode(batch.tokens_BS, rotation, mask), rotation, mask)

    def _start(
        self, inputs: LoopInputs, sample_ids_B: Tensor | None = None, noise_seed: int | None = None
    ) -> LoopState:
        """Return the state before the first loop."""
        return self.core.start(self._initial_state(inputs.e_BSD, sample_ids_B, noise_seed), inputs.e_BSD)

    def _read(
        self, state_BSD: Tensor, inputs: LoopInputs, targets_BS: Tensor, is_one_of_many: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Apply coda and head at one exit."""
        x_BSD = _run(self.coda, state_BSD, inputs.rotation, inputs.mask)
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


def _check_exits(exits: tuple[int, ...] | np.ndarray, num_loops: int) -> None:
    """Assert that the exits of all sequences, or of each one, ascend within the loops."""
    each = np.reshape(exits, (len(exits), -1))
    assert (np.diff(each, axis=0) > 0).all(), f"exits must ascend, got {exits}"
    assert 0 <= each.min() <= each.max() < num_loops, f"exits {exits} outside {num_loops} loops"
    assert isinstance(exits, tuple) or (each[-1] == num_loops - 1).all(), f"the last exit is not the last loop: {exits}"


def _run(
    blocks: nn.ModuleList,
    x_BSD: Tensor,
    rotation: Rotation,
    mask: Mask | None,
    caches: Sequence[KVCache] | None = None,
) -> Tensor:
    """Run dense blocks in sequence."""
    for layer, block in enumerate(blocks):
        x_BSD = block(x_BSD, rotation, mask, None, None if caches is None else caches[layer]).x_BSD
    return x_BSD
