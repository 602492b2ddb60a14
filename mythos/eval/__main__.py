"""The command line of lm-evaluation-harness with the model ``mythos`` and the local tasks.

``python -m mythos.eval --model mythos --model_args run=runs/quickstart,num_loops=8 --tasks piqa_local --metadata
'{"data_dir": "evals"}'`` takes every option of ``lm_eval``. The harness has no entry point through which an installed
package could add a model to the plain command ``lm_eval``, so this module imports the model first.
"""

import sys

from lm_eval.__main__ import cli_evaluate

from mythos.config.base import ConfigError
from mythos.eval.harness import TASKS
from mythos.terminal import plain_output, printable

if __name__ == "__main__":
    if "--include_path" not in sys.argv and any(name.startswith("--task") for name in sys.argv):
        sys.argv += ["--include_path", str(TASKS)]
    try:
        with plain_output():
            cli_evaluate()
    except ConfigError as error:
        print(printable(f"mythos: {error}"), file=sys.stderr)
        sys.exit(2)
