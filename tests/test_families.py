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

from lib import folders, models, runs, training
from lib.checkpoint import NoCheckpoint
from lib.figures import paths as draw
from lib.figures import style
from lib.studies import families, path_tables
from lib.studies import m2m as study

SEARCH = dict(max_loss=0.08, batch=25, max_sgd_steps=100)
ROWS = {row["family"]: row for row in csv.DictReader((folders.DATA / "families.csv").open(encoding="utf-8"))}


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


def along(repeats):
    lines = [pd.DataFrame({"arc": np.linspace(0, 3, len(each)), "train_loss": each}) for each in repeats]
    return path_tables.frame({"LLPF": lines})


@given(st.lists(st.lists(st.floats(0, 9), min_size=2, max_size=6), min_size=1, max_size=4))
def test_repeats_on_one_grid_keep_their_ends_and_their_range(repeats):
    table = draw.on_grid(along(repeats), "train_loss")
    assert table.shape == (101, len(repeats))
    assert table.iloc[0].tolist() == [each[0] for each in repeats]
    assert table.iloc[-1].tolist() == [each[-1] for each in repeats]
    assert (table.max() <= [max(each) + 1e-9 for each in repeats]).all()


def test_distances_go_from_one_to_nothing_layer_by_layer_and_together():
    points = pd.DataFrame({"arc": [0.0, 1.0, 2.0, 3.0], "anchor": [True, False, True, True]})
    distances = pd.DataFrame({"a.weight": [3.0, 3.0, 0.0], "b.bias": [4.0, 0.0, 0.0]})
    path = {"points": points, "distances": distances, "weights": ["a.weight"]}
    table = path_tables.distances([path, path])
    assert set(table.layer) == {"a", "all"} and set(table.repeat) == {0, 1}
    together = table[(table.layer == "all") & (table.repeat == 0)]
    assert together.fraction.tolist() == [0, 2 / 3, 1] and together.distance.tolist() == [1, 0.6, 0]
    assert table[table.layer == "a"].distance.tolist() == [1, 1, 0] * 2


def test_a_graph_is_drawn_with_all_its_layers_and_edges():
    _, ax = plt.subplots()
    draw.layer_graph(ax, nx.DiGraph([(0, 1), (1, 2), (0, 2)]), title="toy")
    assert len(ax.lines) == 3 and len(ax.collections[0].get_offsets()) == 3
    highest = [max(line.get_ydata()) for line in ax.lines]
    assert sorted(height > 0 for height in highest) == [False, False, True], "the skip connection is an arc"
    plt.close("all")


@pytest.mark.parametrize(("repeats", "areas"), [([[1, 2]], 0), ([[1, 2], [2, 3]], 1)])
def test_a_band_has_a_line_and_an_area_where_there_are_repeats(repeats, areas):
    _, ax = plt.subplots()
    style.band(ax, draw.on_grid(along(repeats), "train_loss"), "LLPF")
    assert len(ax.lines) == 1 and len(ax.collections) == areas
    plt.close("all")


def test_the_table_of_families_is_complete():
    assert set(ROWS) == set(families.FAMILIES)
    assert all(row["evidence"] and row["variant_here"] for row in ROWS.values())


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_docs_say_how_large_the_papers_member_is(name):
    text = (folders.ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    cells = re.search(rf"^\| {name} \|(.*)\|$", text, re.MULTILINE).group(1).split("|")
    shape = (1, 28, 28) if name == "lenet5" else (3, 32, 32)
    here = models.from_entry({"name": name, "size": "paper", "image_shape": shape, "classes": 10})
    there = ROWS[name]["paper_code"]
    assert int(cells[1].replace(",", "")) == sum(p.numel() for p in here.parameters())
    assert cells[2].strip().replace(",", "") == (there or "unknown")
    if there and ROWS[name]["variant_here"] == "the same":
        assert cells[1].strip() == cells[2].strip()
