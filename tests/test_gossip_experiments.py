"""The gossip experiments: complete outcomes, and tables that say what the curves say."""

import dataclasses
import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from lib import gossip
from lib.batched.grouped import GroupedNetwork
from lib.checkpoint import NoCheckpoint
from lib.figures import gossip as draw
from lib.models.small_resnet import SmallResNet
from lib.studies import gossip as study
from lib.studies import vanishing
from lib.studies.graphs import from_file

QUICK = gossip.Settings(batch=4, eval_images=20, record_every=3)
RUN = study.Run(
    data="digits", model="lenet_caffe", graph=study.regular(6, 3), averaging=gossip.Average(), ticks=7,
    seed=0, image_size=16, settings=QUICK,
)  # fmt: skip


def curve(*accuracy):
    """An outcome with a known learning curve, a record every 100 ticks."""
    ticks = [100 * i for i in range(len(accuracy))]
    return {"history": pd.DataFrame({"tick": ticks, "accuracy": accuracy, "lowest": accuracy, "highest": accuracy})}


def test_a_run_on_an_edge_file_follows_its_content(tmp_path):
    one, same, other = (tmp_path / name for name in ("one.csv", "same.txt", "other.csv"))
    one.write_text("a,b\nb,c\nc,d\n")
    same.write_text("d c\nc b\nb a\n")
    other.write_text("a,b\nb,c\nc,a\na,d\n")
    configs = [from_file(file) for file in (one, same, other)]
    assert configs[0] == configs[1] != configs[2]
    plain, _, changed = (study.gossip_run(dataclasses.replace(RUN, graph=each), NoCheckpoint())
                           for each in configs)  # fmt: skip
    assert plain["history"].tick.tolist() == [0, 3, 6]
    assert not plain["history"].equals(changed["history"])


@pytest.mark.parametrize("change", [
    {}, {"labels": gossip.Dirichlet(0.5)}, {"graph": study.regular(6, 3, rewired_every=4)},
    {"graph": study.GraphConfig("directed_regular", {"num_nodes": 6, "degree": 2})},
    {"model": "small_resnet", "averaging": gossip.VarianceCorrected()},
])  # fmt: skip
def test_outcome_is_complete(change):
    outcome = study.gossip_run(dataclasses.replace(RUN, **change), NoCheckpoint())
    assert outcome["history"].tick.tolist() == [0, 3, 6]
    assert outcome["evaluated_on"].startswith("20 of ")
    assert 1 <= outcome["classes_seen"] <= 10
    assert set(outcome["variance"].columns) == {"tick", "layer", "start", "trained", "averaged"}


def test_small_resnet_is_stacked():
    model = SmallResNet((1, 16, 16), 10).eval()
    grouped = GroupedNetwork(model)
    parameters = {name: p.detach()[None].repeat(3, *[1] * p.ndim) for name, p in model.named_parameters()}
    statistics = {n: b[None].repeat(3, 1) for n, b in model.named_buffers() if "running" in n}
    x = torch.randn(4, 1, 16, 16)
    for images in (x, x[:, None].expand(-1, 3, -1, -1, -1)):
        logits = grouped(parameters, statistics, images, training=False)
        torch.testing.assert_close(logits, model(x).expand(3, -1, -1), atol=1e-5, rtol=1e-5)


def test_averaging_steps_keep_or_lose_variance():
    config = vanishing.OneStep("digits", "lenet5", study.regular(8, 4), steps=20, seed=0, image_size=16)
    outcome = vanishing.averaging_steps(config, NoCheckpoint())
    widest = outcome["layers"].index("fc2.weight")
    assert float(outcome["plain"][1, widest]) == pytest.approx(0.25 + 0.25 / 4, rel=0.02)
    assert float(outcome["plain"][-1, widest]) == pytest.approx(1 / 8, rel=0.03)
    assert float(outcome["corrected"][-1].mean()) == pytest.approx(1, rel=0.02)


def test_weight_removal():
    config = vanishing.Removal("digits", "lenet5", steps=30, ratios=(0.0, 1.0), seed=0, image_size=16)
    outcome = vanishing.weight_removal(config, NoCheckpoint())
    assert outcome["removed"][1] == outcome["scaled"][1] > outcome["removed"][0] == outcome["scaled"][0]


def test_summary_and_ratio():
    outcomes = {"gossip": curve(0.1, 0.1, 0.1, 0.5), "corrected gossip": [curve(0.1, 0.6, 0.9), curve(0.3, 0.8, 0.9)]}
    table = draw.summary(outcomes, level=0.6, batch=10).set_index("system")
    assert math.isnan(table.loc["gossip", "ticks to 0.6"])
    assert table.loc["corrected gossip", "ticks to 0.6"] == pytest.approx(80)
    assert table.loc["corrected gossip", "samples to 0.6"] == pytest.approx(80)
    assert draw.ratio(outcomes, "gossip", "corrected gossip", level=0.6) == pytest.approx(300 / 80)
    assert draw.frame(outcomes).groupby("system").size().to_dict() == {"gossip": 4, "corrected gossip": 6}


def test_a_federated_outcome_is_judged_by_its_server():
    history = pd.DataFrame({"tick": [0, 5, 20, 25, 34, 39], "accuracy": range(6)})
    assert draw.of_server({"history": history})["history"].tick.tolist() == [5, 25, 39]


@pytest.mark.parametrize("values", [(1, 2.5), ("few", "many")])
def test_sweep_figure_marks_what_never_arrived(values):
    groups = {value: {"gossip": curve(0.1, 0.2), "corrected gossip": curve(0.1, 0.9)} for value in values}
    table = draw.sweep(groups, "size", level=0.5, batch=1)
    assert draw.speed_ups(groups, level=0.5)["speed-up"].to_list() == pytest.approx([2.0, 2.0])
    fig = draw.sweep_figure(groups, table, level=0.5, last=100)
    ax, curves = fig.axes
    assert [line.get_label() for line in curves.lines] == [str(value) for value in values]
    late = [line.get_ydata() for line in ax.lines if line.get_marker() == "^"]
    assert [list(ticks) for ticks in late] == [[100, 100], [], []]
    plt.close(fig)
