"""The Lightning module, the trackers, and the composition root.

The package can be called, since ``mythos.train`` is also the name of a function of the public API.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mythos.config.run import RunConfig
    from mythos.train.start import TrainingResult


class _CallablePackage(ModuleType):
    def __call__(self, config: "RunConfig") -> "TrainingResult":
        """Train in this process; see ``mythos.train.start.train``."""
        from mythos.train.start import train

        return train(config)


sys.modules[__name__].__class__ = _CallablePackage
