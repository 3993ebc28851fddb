"""Layer-wise connectivity and gossip averaging: the library behind the notebooks of this bundle.

``from lib import connectivity, gossip`` is all that a user needs. Submodules load on first use, so that
tools which only read files (the notebook runner, the claims check) start without torch's models.
"""

import importlib

__version__ = "0.1.0"
_SUBMODULES = ("connectivity", "gossip", "layers", "models", "runs", "sphere", "task", "training")


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"lib.{name}")
    raise AttributeError(f"module 'lib' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *_SUBMODULES])
