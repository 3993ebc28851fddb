"""Low-loss paths between independently trained networks (paper 1, arXiv 2505.02604)."""

from lib.connectivity.llpf import M2M, Adaptive, Fixed, connect
from lib.connectivity.path import Path

__all__ = ["M2M", "Adaptive", "Fixed", "Path", "connect"]
