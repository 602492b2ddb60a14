"""The arrays of one traced text, as ``mythos trace`` writes them and notebooks read them. Needs numpy only.

Shape suffixes: S tokens of the text, T loops (index 0 is the first loop), L core layers, K experts per token,
C core layers and H heads whose attention was requested, W distinct tokens that appear in the text or a prediction.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mythos.files import replacing

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class TokenTrace(NamedTuple):
    """One text, token by token and loop by loop."""

    token_S: Integers
    """Token ids; the first opens a document."""
    state_norm_TS: Floats
    """Root mean square of the state after each loop."""
    relative_change_TS: Floats
    """|h' - h| / |h'| over each loop; 1 in the first loop where h_0 is zero."""
    top_token_TSR: Integers
    """The R = 5 most probable next tokens, best first, decoded through coda, norm and head after each loop."""
    top_prob_TSR: Floats
    """Their probabilities."""
    next_prob_TS: Floats
    """Probability of the token that follows in the text; NaN after the last one."""
    entropy_TS: Floats
    """Entropy of the predicted distribution, in nats."""
    halting_TS: Floats | None
    """Probability of exiting after each loop, or ACT's weights; sums to one over T. None when halting is fixed."""
    expert_TLSK: Integers | None
    """Experts that each token is routed to, best first. None when the core is dense."""
    attention_TCHSS: Floats
    """Weight of each earlier token (last axis) for each token (the axis before); rows sum to one."""
    layer_C: Integers
    """Core layers of ``attention_TCHSS``, 0-based."""
    head_H: Integers
    """Heads of ``attention_TCHSS``, 0-based."""
    word_id_W: Integers
    """Ids of all tokens that appear above, ascending."""
    word_W: npt.NDArray[np.str_]
    """Their texts."""
    further_attention_TCHSS: Floats | None = None
    """Weights of the second attention that a loop part adds, such as that over the keys of the loop before; zero in the
    first loop. None without such a part."""
    further_gate_CH: Floats | None = None
    """Factor of what it adds to each head; None without gates."""


def write_arrays(path: Path, trace: TokenTrace) -> None:
    """Write a compressed npz with one array per field; fields that are None are left out."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: part for name, part in trace._asdict().items() if part is not None})
