"""The model card: architecture, training data, held-out loss by number of loops, and usage."""

import json
from pathlib import Path
from typing import Final

from mythos.account.parameters import count_parameters
from mythos.checkpoint.manifest import Manifest
from mythos.config import records
from mythos.config.base import encode
from mythos.config.run import RunConfig

_PREFIX: Final = "val/loss/T"

_CARD: Final = """---
library_name: transformers
pipeline_tag: text-generation
tags: [mythos, recurrent-depth]
---
# {name}

A recurrent-depth transformer, trained with Mythos and exported from step {step}. Its {num_prelude} prelude, {num_core}
core and {num_coda} coda layers have {num_parameters:,} parameters, {num_active:,} of them active. The core runs
`num_loops` times on one state, by default {num_loops} times.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(".", trust_remote_code=True)
inputs = tokenizer(["A text to continue"], return_tensors="pt", padding=True, return_token_type_ids=False)
model.generate(**inputs, max_new_tokens=20, num_loops={num_loops})
model.generate(**inputs, max_new_tokens=20, exit_rule="relative_change", exit_threshold=0.03, cache_policy="last")
```

`trust_remote_code` runs `modeling_mythos.py` of this folder; it needs PyTorch 2.11 or later and transformers 5.17 or
later, but not Mythos. The tokenizer begins each text with the separator, as each document of the training data does.

## Training

| | |
|---|---|
| tokens | {tokens:,} in sequences of {seq_len} |
| data | {data} |
| data fingerprint | {data_fingerprint} |
| depth | {depth} |
| halting | {halting} |
| code | {code_version} |
| configuration | fingerprint {fingerprint}; `config.json` has the architecture |

Held-out loss by number of loops, in nats per token{losses}

## Limits and licence

The model has not been aligned, and its output is not filtered; only the training data were filtered, by their own
pipeline. The code in this folder is part of Mythos (Apache-2.0). The licence of the weights depends on that of the
training text, which the export does not know: state it before you publish this folder.

## Configuration of the run

```json
{config}
```
"""


def model_card(run: Path, manifest: Manifest, config: RunConfig, num_loops: int) -> str:
    """Text of the ``README.md`` of an exported model."""
    model = config.model
    step, losses = held_out_losses(run / records.FILE_NAME, manifest.step)
    rows = "".join(f"\n| {loops} | {loss:.4f} |" for loops, loss in losses.items())
    return _CARD.format(
        name=config.run.name,
        step=manifest.step,
        num_prelude=model.num_prelude_layers,
        num_core=model.num_core_layers,
        num_coda=model.num_coda_layers,
        num_parameters=count_parameters(model, config.halting).total,
        num_active=count_parameters(model, config.halting, active=True).total,
        num_loops=num_loops,
        tokens=manifest.tokens,
        seq_len=config.data.seq_len,
        data=", ".join(f"`{Path(directory).name}`" for directory in config.data.directories),
        data_fingerprint=manifest.data_fingerprint,
        depth=json.dumps(encode(config.depth)),
        halting=json.dumps(encode(config.halting)),
        code_version=manifest.code_version,
        fingerprint=manifest.fingerprint,
        losses=f", at step {step}:\n\n| loops | loss |\n|---|---|{rows}" if losses else ": none was recorded.",
        config=json.dumps(manifest.config, indent=1),
    )


def held_out_losses(path: Path, step: int) -> tuple[int, dict[int, float]]:
    """Step and values, by number of loops, of the last held-out losses recorded up to a step; empty if there are none.

    A line that was cut off while it was written is skipped.
    """
    last: tuple[int, dict[int, float]] = (0, {})
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        losses = {records.index_of(name): value for name, value in record.items() if name.startswith(_PREFIX)}
        if losses and record["step"] <= step:
            last = record["step"], {loops: loss for loops, loss in sorted(losses.items()) if loops is not None}
    return last
