"""The gossip experiments: complete outcomes, and tables that say what the curves say."""

import dataclasses
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from lib import gossip
from lib.batched.grouped import GroupedNetwork
from lib.checkpoint import NoCheckpoint
from lib.errors import InputError
from lib.figures import gossip as draw
from lib.figures import style
from lib.models.small_resnet import SmallResNet
from lib.studies import gossip as study
from lib.studies import outcomes, vanishing
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


GROUP = {"gossip": [curve(0.1, 0.1, 0.1, 0.5)], "corrected gossip": [curve(0.1, 0.6, 0.9), curve(0.3, 0.8, 0.9)]}


def test_simulate_keeps_the_nesting_and_takes_the_next_seeds():
    found = outcomes.simulate({1: {"gossip": RUN}, 2: {"gossip": dataclasses.replace(RUN, seed=5)}}, repeats=2)
    assert {value: [*group] for value, group in found.items()} == {1: ["gossip"], 2: ["gossip"]}
    alone = study.gossip_run(dataclasses.replace(RUN, seed=6), NoCheckpoint())
    assert found[2]["gossip"][1]["history"].equals(alone["history"]) and len(found[1]["gossip"]) == 2


def test_federated_learning_is_measured_at_its_server():
    often = dataclasses.replace(QUICK, record_every=1)
    run = dataclasses.replace(RUN, averaging=gossip.Federated(), ticks=12, settings=often)
    (outcome,) = outcomes.simulate({"federated": run}, repeats=1)["federated"]
    assert outcome["history"].tick.tolist() == [5, 6, 7, 8, 9]
    assert outcome["history"].lowest.equals(outcome["history"].highest), "all have the server's model"
    assert outcome["difference"].tick.tolist() == [*range(12)]


def test_summary_and_ratio():
    table = outcomes.summary(GROUP, level=0.6, batch=10).set_index("system")
    assert math.isnan(table.loc["gossip", "ticks to 0.6"]) and math.isnan(table.loc["gossip", "slowest seed"])
    corrected = table.loc["corrected gossip"]
    assert corrected["ticks to 0.6"] == corrected["samples to 0.6"] == pytest.approx(80)
    assert (corrected["fastest seed"], corrected["slowest seed"]) == pytest.approx((60, 100))
    assert table["last tick"].tolist() == [300, 200]
    assert outcomes.ratio(GROUP, "gossip", "corrected gossip", level=0.6) == outcomes.Ratio(300 / 80, at_least=True)
    assert math.isnan(outcomes.ratio(GROUP, "corrected gossip", "gossip", level=0.6).value)


def test_a_frame_has_a_column_for_every_level():
    table = outcomes.frame({4: GROUP}, "nodes", "system")
    assert table.columns.tolist()[:4] == ["nodes", "system", "repeat", "tick"]
    assert table.groupby(["nodes", "system", "repeat"]).size().tolist() == [3, 3, 4]


@pytest.mark.parametrize(("ratios", "least"), [
    ([(3.0, False), (2.0, True)], (2.0, True)), ([(2.0, False), (2.0, True)], (2.0, True)),
    ([(4.0, True)], (4.0, True)),
])  # fmt: skip
def test_the_smallest_ratio_says_whether_it_is_a_bound(ratios, least):
    assert outcomes.smallest([outcomes.Ratio(*each) for each in ratios]) == outcomes.Ratio(*least)
    missing = outcomes.smallest([outcomes.Ratio(1.0), outcomes.Ratio(math.nan)])
    assert math.isnan(missing.value), "a value that is missing is not left out"


def test_what_was_not_reached_is_an_arrow_joined_to_nothing():
    groups = {value: GROUP for value in (1, 2.5)}
    table = outcomes.sweep(groups, "size", level=0.55, batch=1)
    shown = outcomes.frame(groups, "size", "system").query("system == 'corrected gossip'")
    fig = draw.sweep(table, shown, level=0.55, chance=0.1)
    left, right = fig.axes
    assert [line.get_label() for line in right.lines if line.get_label()[0] != "_"] == ["1", "2.5"]
    arrows = [each.xy for each in left.texts if each.arrow_patch is not None]
    assert [x for x, _ in arrows] == [1, 2.5] and all(y > 300 for _, y in arrows)
    assert [each.get_label() for each in left.containers] == ["corrected gossip"], "no line where nothing was reached"
    plt.close(fig)


def test_labels_of_lines_that_end_together_do_not_overlap():
    fig, (ax,) = style.panels(1, width=style.COLUMN, height=2)
    for name in ("gossip", "corrected gossip", "isolated", "federated"):
        ax.plot([0, 1], [0, 0.5], **style.look(name))
    style.label_ends(ax)
    fig.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 4 and all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    plt.close(fig)


def test_a_name_without_a_look_is_refused():
    with pytest.raises(InputError, match="look of 'mine'"):
        style.look("mine")
