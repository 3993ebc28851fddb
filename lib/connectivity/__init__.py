"""Low-loss paths between independently trained networks (paper 1, arXiv 2505.02604)."""

from lib.connectivity.abreast import connect_abreast
from lib.connectivity.analysis.simplification import simplify
from lib.connectivity.llpf import connect
from lib.connectivity.origin import M2O, cross_spheres, to_origin
from lib.connectivity.path import Path
from lib.connectivity.settings import M2M, Adaptive, Fixed

__all__ = [
    "M2M",
    "M2O",
    "Adaptive",
    "Fixed",
    "Path",
    "connect",
    "connect_abreast",
    "cross_spheres",
    "simplify",
    "to_origin",
]
