"""Families: their settings, the fixed schedule by budget, pictures of layers and repeats, the README's table."""

import csv
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import models, paths, runs, training
from lib.checkpoint import NoCheckpoint
from lib.figures import families as family_figures
from lib.studies import families
from lib.studies import m2m as study

SEARCH = dict(max_loss=0.08, batch=25, max_sgd_steps=100)
ROWS = {row["family"]: row for row in csv.DictReader((paths.DATA / "families.csv").open(encoding="utf-8"))}


@pytest.mark.parametrize("size", ["laptop", "paper"])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family_has_a_recipe_whose_epochs_can_be_set(name, size):
    recipe = families.recipe(name, size)
    assert families.recipe(name, size, epochs=recipe.epochs + 1) == replace(recipe, epochs=recipe.epochs + 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet5", dict(epochs=20, lr=0.01, momentum=0.0, schedule="constant")),
        ("resnet18", dict(epochs=70, batch=256, lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="onecycle")),
        ("dla", dict(epochs=120, batch=256, weight_decay=1e-4, schedule="cosine")),
        ("mobilenetv2", dict(epochs=200, batch=128, weight_decay=4e-5, milestones=(100,))),
        ("shufflenet", dict(epochs=300, batch=128, weight_decay=4e-5, milestones=(150, 225))),
        ("cct7", dict(epochs=300, optimiser="adamw", lr=5.5e-4, weight_decay=6e-2, warmup=10)),
    ],
)
def test_recipes_of_the_paper_members_are_the_published_ones(name, expected):
    recipe = families.recipe(name, "paper")
    assert {field: getattr(recipe, field) for field in expected} == expected


def test_a_search_takes_the_rate_of_its_family_unless_one_is_given():
    own = {name: families.adaptive(name, "laptop", lr=0, **SEARCH).lr for name in families.FAMILIES}
    assert own["dla"] > own["resnet18"] == own["cct7"] > own["lenet5"] > 0
    given = families.adaptive("lenet5", "laptop", lr=0.3, **SEARCH)
    assert given.lr == 0.3 and given.driver.max_loss == SEARCH["max_loss"] and given.order == "fdf"


def budgets(bound, sgd_steps):
    data = study.Data("digits", image_size=12, train_images=60)
    start, end = (study.Mode(data, "lenet5", seed, training.Recipe(epochs=1, batch=20)) for seed in (1, 2))
    return families.Budgets(start, end, bound, sgd_steps, lr=0.01, batch=20, anchors=2, interior_points=1)


def test_the_fixed_schedule_stops_at_the_first_budget_that_is_low_enough():
    everything, nothing = (
        families.fixed_schedule(budgets(bound, (20, 40)), NoCheckpoint()) for bound in (float("inf"), 0.0)
    )
    assert everything["reached"] and everything["sgd_steps"] == [20]
    assert not nothing["reached"] and nothing["sgd_steps"] == [20, 40]
    assert nothing["max_losses"][0] == everything["max_losses"][0], "same seed, same path"


def test_a_budget_is_a_config_of_a_run():
    found = runs.one(families.fixed_schedule, budgets(0.0, (5,)))
    assert found == runs.one(families.fixed_schedule, budgets(0.0, (5,)))
    assert len(found["max_losses"]) == 1


def line(values):
    return pd.DataFrame({"arc": np.linspace(0, 3, len(values)), "train_loss": values})


@given(st.lists(st.lists(st.floats(0, 9), min_size=2, max_size=6), min_size=1, max_size=4))
def test_the_band_holds_the_mean_and_every_repeat(repeats):
    table = family_figures.on_grid([line(values) for values in repeats], "train_loss")
    assert (table.low <= table["mean"] + 1e-9).all() and (table["mean"] <= table.high + 1e-9).all()
    assert table.high.iloc[0] == max(values[0] for values in repeats)
    assert table.low.iloc[-1] == min(values[-1] for values in repeats)


def test_the_distance_left_goes_from_one_to_nothing():
    points = pd.DataFrame({"arc": [0.0, 1.0, 2.0, 3.0], "anchor": [True, False, True, True]})
    distances = pd.DataFrame({"a": [3.0, 3.0, 0.0], "b": [4.0, 0.0, 0.0]})
    left = family_figures.distance_left({"points": points, "distances": distances})
    assert left.arc.tolist() == [0, 2, 3] and left.distance.tolist() == [1, 0.6, 0]


def test_layer_distances_are_means_over_the_repeats_of_every_weight_tensor():
    points = pd.DataFrame({"arc": [0.0, 1.0, 2.0], "anchor": True})
    repeats = [
        {"points": points, "weights": ["a"], "distances": pd.DataFrame({"a": middle, "a.weight": [1.0, 1.0, 1.0]})}
        for middle in ([2.0, 1.0, 0.0], [2.0, 0.0, 0.0])
    ]
    _, ax = plt.subplots()
    table = family_figures.mean_layer_distances(ax, repeats, title="toy")
    assert set(table.layer) == {"a"} and len(ax.lines) == 1
    assert table.distance.iloc[[0, 50, 100]].tolist() == [1, 0.25, 0]
    plt.close("all")


def test_a_graph_is_drawn_with_all_its_layers_and_edges():
    _, ax = plt.subplots()
    family_figures.layer_graph(ax, nx.DiGraph([(0, 1), (1, 2), (0, 2)]), title="toy")
    assert len(ax.lines) == 3 and len(ax.collections[0].get_offsets()) == 3
    highest = [max(line.get_ydata()) for line in ax.lines]
    assert sorted(height > 0 for height in highest) == [False, False, True], "the skip connection is an arc"
    plt.close("all")


def test_a_band_has_a_line_and_a_filled_area():
    _, ax = plt.subplots()
    family_figures.band(ax, family_figures.on_grid([line([1, 2]), line([2, 3])], "train_loss"), label="toy",
                        color="C0", ylabel="loss", log=True)  # fmt: skip
    assert len(ax.lines) == 1 and len(ax.collections) == 1 and ax.get_yscale() == "log"
    plt.close("all")


def test_the_table_of_families_is_complete():
    assert set(ROWS) == set(families.FAMILIES)
    assert all(row["evidence"] and row["variant_here"] for row in ROWS.values())


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_docs_say_how_large_the_papers_member_is(name):
    text = (paths.ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    cells = re.search(rf"^\| {name} \|(.*)\|$", text, re.MULTILINE).group(1).split("|")
    shape = (1, 28, 28) if name == "lenet5" else (3, 32, 32)
    here = models.from_entry({"name": name, "size": "paper", "image_shape": shape, "classes": 10})
    there = ROWS[name]["paper_code"]
    assert int(cells[1].replace(",", "")) == sum(p.numel() for p in here.parameters())
    assert cells[2].strip().replace(",", "") == (there or "unknown")
    if there and ROWS[name]["variant_here"] == "the same":
        assert cells[1].strip() == cells[2].strip()
