import io
import re
from types import SimpleNamespace

import pytest

from mythos.callbacks.progress import Progress
from mythos.config import records


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


TRAINING = {records.TRAIN_LOSS: 5.5, records.MEAN_LOOPS: 8.0}


def shown(progress: Progress, trainer: SimpleNamespace, step: int, validation: dict[int, float] | None) -> None:
    result = SimpleNamespace(step=step, validation=validation, training=TRAINING, speed=None)
    progress.on_step_end(trainer, None, result)
    if progress.bar is not None:
        progress.bar.refresh()


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_bar_and_line_name_the_depth_of_the_held_out_loss(stream: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", output := stream())
    monkeypatch.setenv("COLUMNS", "200")
    progress, trainer = Progress(4), SimpleNamespace(global_step=0, is_global_zero=True)
    progress.on_train_start(trainer, None)
    shown(progress, trainer, 1, None)
    shown(progress, trainer, 2, {1: 4.75, 16: 4.25})
    shown(progress, trainer, 3, None)
    progress.on_train_end(trainer, None)
    texts = [text for text in re.split(r"[\r\n]+", output.getvalue()) if "loss" in text]
    assert "held-out" not in texts[0]
    assert "loss 5.500, held-out 4.250 at T=16, mean depth 8.0" in texts[-1]
