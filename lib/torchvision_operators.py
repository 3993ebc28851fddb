"""Make ``import torchvision`` work beside a CPU-only torch.

torchvision's PyPI wheel is built against the CUDA build of torch. Beside the CPU build its C++ operators do
not load, and its import then fails because it registers fake kernels for operators that do not exist. The
two operators are never called here (they serve object detection), so declaring their schema is enough.
Every module of the bundle that imports torchvision (or timm, which does) calls :func:`define_missing` first.
"""

import torch

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# Declarations live as long as their Library object.
_library = torch.library.Library("torchvision", "FRAGMENT")


def define_missing() -> tuple[str, ...]:
    """Declare the torchvision operators that are not there yet.

    Returns
    -------
    tuple of str
        The operators that this call declared; empty where torchvision's own are loaded or on a second call.
    """
    missing = tuple(name for name in OPERATORS if not hasattr(torch.ops.torchvision, name))
    for name in missing:
        _library.define(name + SCHEMA)
    return missing
