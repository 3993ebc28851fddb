"""Many networks of one architecture as the rows of one matrix, and run as one network.

Nodes that gossip (:mod:`lib.gossip`) and paths that go abreast (:mod:`lib.connectivity.abreast`) are such rows.
"""
