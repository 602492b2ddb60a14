"""Mythos, a recurrent-depth transformer, for ``transformers``: prelude, a core that runs T times, coda, head.

``mythos export`` writes this module together with all definitions that it needs from the package.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from mythos.config.decoding import ExitRule, check_num_loops, check_rule_fits, exit_rule, num_cache_slots
from mythos.export.configuration import MythosConfig
from mythos.export.part_classes import FP32_MODULES
from mythos.export.plain import halting_config, model_config
from mythos.layers.cache import DecodeCache, NoCache
from mythos.model.mythos import Mythos


class MythosCache(DecodeCache):
    """The decoding cache with the methods that ``generate`` expects."""

    is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of cached tokens, padding included."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the sequences for beam search."""
        self.reorder(beam_idx)


@dataclass
class MythosOutput(CausalLMOutputWithPast):
    """Loss, logits and cache, and the number of loops of each token."""

    num_loops: Tensor | None = None
    """Loops that each input token ran, ``[batch, tokens]``."""


class MythosForCausalLM(PreTrainedModel, GenerationMixin):
    """A trained Mythos model; weights come from ``from_pretrained``.

    ``forward`` and ``generate`` take ``num_loops``, ``exit_rule``, ``exit_threshold`` and ``cache_policy``; ``config``
    has the defaults.
    """

    config_class = MythosConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block"]  # noqa: RUF012  (read by transformers)
    _keep_in_fp32_modules_strict = FP32_MODULES
    _supports_sdpa = True

    def __init__(self, config: MythosConfig) -> None:
        super().__init__(config)
        architecture = {**config.architecture, "vocab_size": config.vocab_size}  # resize_token_embeddings changes it
        self.model = Mythos(model_config(architecture), halting_config(config.halting))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: MythosCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_loops: int | None = None,
        exit_rule: str | None = None,
        exit_threshold: float | None = None,
        cache_policy: str | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> MythosOutput | tuple[Any, ...]:
        """Return next-token logits, and the loss if labels are given.

        Args:
            input_ids: ``[batch, tokens]``; with a cache, the tokens that follow the cached ones.
            attention_mask: ``[batch, tokens of cache and input]``, 0 at padding; pad on the left to generate.
            past_key_values: cache that an earlier call returned.
            labels: ``[batch, tokens]``, the input tokens, or -100 where a token is not a target.
            use_cache: return a cache; off by default, but ``generate`` turns it on.
            num_loops: number of loops over the core, or their maximum under an exit rule.
            exit_rule: rule by which a token exits the loop.
            exit_threshold: threshold of the rule.
            cache_policy: which keys and values of earlier tokens the cache keeps.
            logits_to_keep: number of last tokens whose logits are returned; 0 for all.
        """
        rule = self._rule(exit_rule, exit_threshold)
        keeps_cache = past_key_values is not None or bool(use_cache)
        cache = self._cache(past_key_values, keeps_cache or rule is not None, num_loops, cache_policy)
        self._check_length(input_ids.shape[1] + (0 if past_key_values is None else past_key_values.length))
        with self._autocast():
            decoded = self.model.decode_until(
                input_ids, cache, rule, _padding(attention_mask, input_ids), logits_to_keep or None
            )
        kept_cache: Any = cache if keeps_cache else None
        output = MythosOutput(
            loss=None if labels is None else _loss(decoded.logits_BSV, labels),
            logits=decoded.logits_BSV,
            past_key_values=kept_cache,
            num_loops=decoded.num_loops_BS,
        )
        return output.to_tuple() if return_dict is False else output

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding, which is also the output projection of a tied head."""
        return self.model.embedding

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the embedding by a resized one."""
        self.model.embedding = value

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        """Replace the output projection by a resized one."""
        self.model.head.projection = new_embeddings

    def get_output_embeddings(self) -> nn.Module | None:
        """The output projection; None for a tied head."""
        return self.model.head.projection

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the new rows of a resized embedding; refuse to initialise any other weights."""
        if isinstance(module, nn.Embedding):
            module.weight.data.normal_(std=self.model.config.embedding_std)
        elif any(not getattr(one, "_is_hf_initialized", False) for one in module.parameters(recurse=False)):
            raise ValueError("weights are missing: this file only runs exported weights; train new models with mythos.")

    def _prepare_cache_for_generation(
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> Any:
        """Create a cache of the size that ``generate`` needs."""
        if str(getattr(generation_mode, "value", generation_mode)) == "assisted_generation":
            raise ValueError(
                "assistant_model: assisted generation removes tokens from the cache, which this cache does not support."
            )
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"cache_implementation: {generation_config.cache_implementation!r} was given, but this model has its "
                "own cache; set cache_policy instead."
            )
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache:
            model_kwargs["past_key_values"] = self._new_cache(
                self._num_loops(model_kwargs.get("num_loops")),
                max_cache_length + 1,
                self._policy(model_kwargs.get("cache_policy")),
            )

    def _cache(
        self, past: MythosCache | None, is_needed: bool, num_loops: int | None, policy: str | None
    ) -> MythosCache | NoCache:
        """The given cache, a new one, or none."""
        if past is None:
            num_loops, policy = self._num_loops(num_loops), self._policy(policy)
            return self._new_cache(num_loops, None, policy) if is_needed else NoCache(num_loops)
        if not isinstance(past, MythosCache):
            raise ValueError(
                f"past_key_values: a {type(past).__name__} was given; give the cache that an earlier call returned."
            )
        for name, given, cached in (("num_loops", num_loops, past.num_loops), ("cache_policy", policy, past.policy)):
            if given is not None and given != cached:
                raise ValueError(
                    f"{name}: {given!r} was given, but the cache was created with {cached!r}; start without a cache."
                )
        return past

    def _new_cache(self, num_loops: int, capacity: int | None, policy: str) -> MythosCache:
        return self.model.new_cache_of(MythosCache, num_loops, capacity, policy)

    def _rule(self, kind: str | None, threshold: float | None) -> ExitRule | None:
        if kind is None and threshold is None:
            threshold = self.config.exit_threshold
        rule = exit_rule(kind or self.config.exit_rule, threshold)
        check_rule_fits(rule, self.model.halting.config.kind)
        return rule

    def _num_loops(self, num_loops: int | None) -> int:
        num_loops = self.config.num_loops if num_loops is None else num_loops
        check_num_loops(num_loops, self.model.core.max_loops)
        return num_loops

    def _policy(self, policy: str | None) -> str:
        policy = self.config.cache_policy if policy is None else policy
        num_cache_slots(policy, 1)
        return policy

    def _check_length(self, num_tokens: int) -> None:
        limit = self.model.config.max_seq_len
        if num_tokens > limit:
            raise ValueError(
                f"input_ids: {num_tokens} tokens including the cache, but the model takes {limit}; shorten the input."
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        """Run 16-bit weights as in training: matrix products in 16 bits, the rest in fp32."""
        weight = self.model.embedding.weight
        is_half = weight.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(weight.device.type, dtype=weight.dtype if is_half else None, enabled=is_half)


def _padding(attention_mask: Tensor | None, input_ids: Tensor) -> Tensor | None:
    """True at input tokens that are not padding; None if none is padding."""
    if attention_mask is None:
        return None
    is_real = attention_mask[:, -input_ids.shape[1] :].bool()
    return None if bool(is_real.all()) else is_real


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the next tokens; the labels are shifted here."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
