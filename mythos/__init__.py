"""Mythos: distributed pretraining of recurrent-depth mixture-of-experts transformers.

The names below are the public Python API; docs/python.md describes it. Each is imported when it is first used, so that
``import mythos`` alone loads neither torch nor the configuration.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mythos.api.config import load_config
    from mythos.api.evaluate import evaluate
    from mythos.api.generate import Generation, generate
    from mythos.api.load import Loaded, load
    from mythos.api.model import LanguageModel, Prediction, build_model
    from mythos.api.trace import trace
    from mythos.config.base import ConfigError
    from mythos.config.model import ModelConfig
    from mythos.config.run import RunConfig
    from mythos.train.start import TrainingResult, train

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "Generation",
    "LanguageModel",
    "Loaded",
    "ModelConfig",
    "Prediction",
    "RunConfig",
    "TrainingResult",
    "build_model",
    "evaluate",
    "generate",
    "load",
    "load_config",
    "trace",
    "train",
]

_MODULES = {
    "ConfigError": "mythos.config.base",
    "Generation": "mythos.api.generate",
    "LanguageModel": "mythos.api.model",
    "Loaded": "mythos.api.load",
    "ModelConfig": "mythos.config.model",
    "Prediction": "mythos.api.model",
    "RunConfig": "mythos.config.run",
    "TrainingResult": "mythos.train.start",
    "build_model": "mythos.api.model",
    "evaluate": "mythos.api.evaluate",
    "generate": "mythos.api.generate",
    "load": "mythos.api.load",
    "load_config": "mythos.api.config",
    "trace": "mythos.api.trace",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name == "train":  # the package itself, which can be called
        return import_module("mythos.train")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
