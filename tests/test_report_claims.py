"""Claims: the verdict on each, the files, and the exit code."""

import json

import pytest

from lib import folders
from lib.report import claims

PARTS = {"paper": "gossip", "item": "nothing", "source": "abstract", "evidence": "slow machine"}


def claim(relation="<", value=1.0, tolerance=0.0, expected="reproduced", item="nothing"):
    return claims.Claim(
        id=f"c{relation}", sentence="It is | small", quantity="q", relation=relation, value=value,
        tolerance=tolerance, profiles=("smoke",), expected=expected, **{**PARTS, "item": item},
    )  # fmt: skip


def verdict(tmp_path, measured, state="current", **row):
    (tmp_path / "quantities").mkdir(exist_ok=True)
    (tmp_path / "quantities/a.json").write_text(json.dumps(measured))
    return claims.judge("smoke", states={"a": state}, claims=[claim(**row)], folder=tmp_path)[0]


@pytest.mark.parametrize(
    ("ours", "row", "result"),
    [
        (0.5, {}, "reproduced"),
        (1.0, {}, "not reproduced"),
        (float("nan"), {}, "not reproduced"),
        (float("inf"), {"relation": ">"}, "reproduced"),
        (0.5, {"relation": ">"}, "not reproduced"),
        ({"at_least": 1.5}, {"relation": ">"}, "reproduced"),
        ({"at_least": 0.5}, {"relation": ">"}, "not reproduced"),
        ({"at_least": 0.5}, {}, "not reproduced"),
        ({"at_least": 7.0}, {"relation": "within", "value": 7.0}, "not reproduced"),
        (1.09, {"relation": "within", "tolerance": 0.1}, "reproduced"),
        (1.2, {"relation": "within", "tolerance": 0.1}, "not reproduced"),
        (7.0, {"relation": "within", "value": 7.0}, "reproduced"),
        (2.0, {"expected": "not reproduced"}, "not reproduced (known: slow machine)"),
        (0.5, {"expected": "not reproduced"}, "reproduced (unexpected)"),
    ],
)
def test_verdicts(tmp_path, ours, row, result):
    found = verdict(tmp_path, {"q": ours}, **row)
    assert found.result == result
    assert found.failed == (result == "not reproduced")


@pytest.mark.parametrize(
    ("state", "ours", "row", "result", "failed"),
    [
        ("stale", 0.5, {}, "stale (made by other code, parameters or data)", False),
        ("as committed", 0.5, {}, "as committed (holds)", False),
        ("as committed", 1.5, {}, "as committed (does not hold)", True),
        ("as committed", 1.5, {"expected": "not reproduced"}, "as committed (does not hold, as known)", False),
        ("failed: cell [3]: KeyError: 'x'", 0.5, {}, "failed (cell [3]: KeyError: 'x')", True),
    ],
)
def test_only_a_current_notebook_makes_a_verdict_of_this_run(tmp_path, state, ours, row, result, failed):
    found = verdict(tmp_path, {"q": ours}, state, **row)
    assert (found.result, found.failed) == (result, failed)
    assert "0 of 1 claims reproduced, 1 " in claims.summary([found])


def test_missing_quantity_fails_only_if_its_notebooks_ran(tmp_path, monkeypatch):
    (tmp_path / "items.csv").write_text("item,notebook\nnothing,a\nlater,a b\n")
    monkeypatch.setattr(folders, "DATA", tmp_path)
    ran, later = verdict(tmp_path, {}), verdict(tmp_path, {}, item="later")
    assert (ran.result, ran.failed) == ("not recorded", True)
    assert (later.result, later.failed) == ("not run", False)


def test_table_counts_and_exit_code(tmp_path, capsys):
    good = verdict(tmp_path, {"q": 0.5})
    bad = verdict(tmp_path, {"q": 0.5}, relation=">")
    assert claims.show([good]) == 0
    assert claims.show([good, bad]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 claims reproduced, 1 not reproduced." in out
    assert out.endswith("FAILED: c>\n")
    assert "It is &#124; small" in claims.markdown([good])


def test_other_profiles_are_not_judged(tmp_path):
    assert claims.judge("paper", states={}, claims=[claim()], folder=tmp_path) == []


def test_recorded_quantities_make_one_file_that_check_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("LIB_RESULTS", str(tmp_path))
    monkeypatch.setenv("LIB_NOTEBOOK", "toys/a")
    monkeypatch.setattr(claims, "_recorded", {})
    claims.record("b", 1)
    claims.record("a", True)
    assert (tmp_path / "quantities/toys/a.json").read_text() == '{\n "a": 1.0,\n "b": 1.0\n}\n'
    claims.record("b", 2, at_least=True)
    assert json.loads((tmp_path / "quantities/toys/a.json").read_text()) == {"a": 1.0, "b": {"at_least": 2.0}}
    claims.check("smoke", states={}, folder=tmp_path)
    assert (tmp_path / "claims.md").read_text().startswith("Claims of the papers at profile smoke.")


def test_the_claims_and_items_of_the_bundle_fit_together():
    rows = claims.load()
    items = {row["item"] for row in claims.read_rows(folders.DATA / "items.csv")}
    assert len({row.id for row in rows}) == len(rows) > 0
    assert {row.item for row in rows} <= items
    assert {profile for row in rows for profile in row.profiles} <= {"smoke", "laptop", "cifar", "paper"}
    assert all(row.sentence and row.source and row.evidence for row in rows)
