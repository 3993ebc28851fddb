"""Low-loss paths between independently trained networks (paper 1, arXiv 2505.02604)."""

from lib.connectivity.llpf import connect
from lib.connectivity.path import Path
from lib.connectivity.settings import M2M, Adaptive, Fixed

__all__ = ["M2M", "Adaptive", "Fixed", "Path", "connect"]
