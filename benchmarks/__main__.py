"""``make bench``: all measurements, as tables and a figure under ``results/bench``."""

import argparse
import os
import platform

import torch

from benchmarks import gossip, path, training
from benchmarks.measure import machine
from lib import folders
from lib.figures import style

os.environ |= {"LIB_RESULTS": str(folders.RESULTS / "bench"), "LIB_PROFILE": f"bench, {platform.machine()}"}
from lib.report import figures, tables


def _growth():
    table = gossip.growth()
    nodes, spent = table["nodes"], table["ms a tick"]
    fig, (left, right) = style.panels(2, height=1.9)
    left.loglog(nodes, spent, "o-", color=style.BLUE, label="measured")
    proportional = spent.iloc[-1] * nodes / nodes.iloc[-1]
    left.loglog(nodes, proportional, ":", color=style.GREY, label="in proportion to the nodes")
    left.set(xlabel="nodes", ylabel="processor time of a tick (ms)")
    left.legend()
    right.loglog(nodes, table["memory_GiB"], "o-", color=style.BLUE)
    right.set(xlabel="nodes", ylabel="peak memory of the process (GiB)")
    caption = f"**Growth.** Plain gossip of LeNet5 on {machine()}: one run for each number of nodes, no band."
    figures.save(fig, "gossip-growth", table, source="digits, LeNet5", caption=caption)
    return table


TABLES = {
    "gossip-tick": (gossip.tick, "A tick of gossip against the plain loop and the arithmetic"),
    "gossip-step": (gossip.local_step, "One SGD step of 50 nodes, three ways"),
    "gossip-averaging": (gossip.averaging, "Sending and averaging of 50 nodes, 8 neighbours each"),
    "gossip-growth": (_growth, "Cost of a tick and peak memory of the process against the number of nodes"),
    "path-tick": (path.tick, "A tick of LLPF without its training"),
    "path-abreast": (path.abreast, "Several paths at once by the fixed schedule"),
    "path-drivers": (path.drivers, "SGD rounds to a path (results of the laptop profile)"),
    "training-batches": (training.batches, "Augmented batches"),
    "training-layouts": (training.layouts, "Images channels last: a step of 50, an evaluation of 200"),
    "training-precision": (training.precisions, "A training step of 32 images in bfloat16, and compiled"),
    "training-threads": (training.threads, "Workers and threads on this machine"),
}


def main():
    """Run the measurements whose name contains the given text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the names of the tables to renew")
    wanted = parser.parse_args().only
    torch.set_num_threads(1)
    print(machine())
    for name, (measure, caption) in TABLES.items():
        if wanted in name:
            table = tables.save(measure(), name, caption=caption, source=machine())
            print(f"\n{caption}\n{tables.markdown(table)}", flush=True)


if __name__ == "__main__":
    main()
