"""Make ``import torchvision`` work beside a CPU-only torch.

torchvision's PyPI wheel is built against the CUDA build of torch. Beside the CPU build its C++ operators do
not load, and its import then fails because it registers fake kernels for operators that do not exist. The
two operators are never called here (they serve object detection), so declaring their schema is enough.
Every module of the bundle that imports torchvision (or timm, which does) calls :func:`define_missing` first.
"""

import importlib.util
from pathlib import Path

import torch

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# Declarations live as long as their Library object.
_library = torch.library.Library("torchvision", "FRAGMENT")


def define_missing() -> tuple[str, ...]:
    """Declare the torchvision operators that torchvision itself cannot load.

    Returns
    -------
    tuple of str
        The operators that this call declared; empty where torchvision's own load, or on a second call.
    """
    _load_own()
    missing = tuple(name for name in OPERATORS if not hasattr(torch.ops.torchvision, name))
    for name in missing:
        _library.define(name + SCHEMA)
    return missing


def _load_own():
    """Load torchvision's compiled operators if they fit this torch: a later declaration would clash."""
    spec = importlib.util.find_spec("torchvision")
    for folder in spec.submodule_search_locations if spec else ():
        for library in Path(folder).glob("_C*.so"):
            try:
                torch.ops.load_library(library)
            except OSError:
                return
