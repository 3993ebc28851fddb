"""Gossip learning and vanishing variance (paper 2, Tian et al., arXiv 2404.04616)."""

from lib.gossip import labels, measures, reference, topology
from lib.gossip.algorithms import (
    Average,
    Federated,
    Isolated,
    LearningSystem,
    TransferLike,
    VarianceCorrected,
    average,
)
from lib.gossip.labels import IID, Dirichlet, Halves, Partition, Shards
from lib.gossip.messages import Compressed, Partitioned, Sampled, Whole
from lib.gossip.simulation import Settings, Simulation, simulate

__all__ = [
    "IID",
    "Average",
    "Compressed",
    "Dirichlet",
    "Federated",
    "Halves",
    "Isolated",
    "LearningSystem",
    "Partition",
    "Partitioned",
    "Sampled",
    "Settings",
    "Shards",
    "Simulation",
    "TransferLike",
    "VarianceCorrected",
    "Whole",
    "average",
    "labels",
    "measures",
    "reference",
    "simulate",
    "topology",
]
