"""Bad input to the runner, the claims and the figures: one clear line, before anything runs."""

import ast

import pandas as pd
import papermill
import pytest
from matplotlib.figure import Figure

from lib import folders
from lib.errors import InputError
from lib.report import claims, figures, notebooks, parameters, site, tables
from lib.report.plan import plan

GOOD = 'seed: int = 0  # seed\nrate: float = 0.1  # rate\ndata: str = "digits"  # data set'


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_notebook):
    root = tmp_path_factory.mktemp("bundle")
    write_notebook(root / "notebooks/good/a.ipynb", GOOD)
    write_notebook(root / "notebooks/good/b.ipynb", "nodes: list[int] = [1, 2]\nbeta: 'Optional[float]' = None")
    write_notebook(root / "notebooks/good/c.ipynb", 'options: dict = {}\nfile: str = ""\nmodel: str = ""')
    bad = {
        "untagged": None,
        "computed": "seed: int = 1 + x",
        "untyped": "seed = 1",
        "mistyped": 'seed: int = "one"',
        "exotic": "seed: complex = 1",
        "broken": "seed: int = (",
    }
    for name, cell in bad.items():
        write_notebook(root / f"notebooks/bad/{name}.ipynb", cell)
    write_notebook(root / "notebooks/bad/code.ipynb", GOOD, "x = (")
    profiles = {
        "elsewhere": "good/d: {seed: 1}",
        "unknown": "good/a: {sead: 1}",
        "wrong": "good/a: {seed: 1.5}",
        "yaml": "good/a: [",
        "list": "- good/a",
        "flat": "good/a: 3",
    }
    (root / "notebooks/bad/damaged.ipynb").write_text('{"cells": [')
    (root / "notebooks/profiles").mkdir()
    for name, text in profiles.items():
        (root / f"notebooks/profiles/{name}.yaml").write_text(text)
    return root


# Profile, notebooks, parameters, device, and the message.
PLANS = [
    ("laptop", "gud/a", "", "auto", "notebooks='gud/a': no such notebook: did you mean good/a"),
    ("laptop", "good/a nothing*", "", "auto", r"notebooks='nothing\*': no such notebook"),
    ("laptop", " ", "", "auto", "notebooks='': expected names or patterns"),
    ("lap", "good/a", "", "auto", "profile='lap': did you mean laptop"),
    ("elsewhere", "good/a", "", "auto", "profile elsewhere: unknown notebook 'good/d'"),
    ("unknown", "good/a", "", "auto", "good/a: unknown parameter 'sead': did you mean seed"),
    ("wrong", "good/a", "", "auto", "good/a: parameter seed=1.5: expected int"),
    ("yaml", "good/a", "", "auto", "profile yaml: not readable as YAML"),
    ("list", "good/a", "", "auto", "profile list: expected 'notebook:'"),
    ("flat", "good/a", "", "auto", "profile flat: good/a: expected 'parameter: value' lines, got 3"),
    ("laptop", "good/a", "size=3", "auto", "good/a: unknown parameter 'size'.*data, rate, seed"),
    ("laptop", "good/*", "seed=3", "auto", "good/b: unknown parameter 'seed'"),
    ("laptop", "good/a", "seed", "auto", "parameters: 'seed': expected name=value"),
    ("laptop", "good/a", "seed=[1", "auto", "parameters: 'seed=.1': the value is not readable"),
    ("laptop", "good/a", "seed=true", "auto", "parameter seed=True: expected int"),
    ("laptop", "good/a", "rate=fast", "auto", "parameter rate='fast': expected float"),
    ("laptop", "good/a", "rate=.nan", "auto", "parameter rate=nan: expected float"),
    ("laptop", "good/a", "data=3", "auto", "parameter data=3: expected str"),
    ("laptop", "good/b", "nodes=3", "auto", r"parameter nodes=3: expected list\[int\]"),
    ("laptop", "good/b", "nodes=[3,x]", "auto", r"parameter nodes\[1\]='x': expected int"),
    ("laptop", "good/b", "beta=x", "auto", "parameter beta='x': expected float"),
    ("laptop", "good/c", "options=[1]", "auto", r"parameter options=\[1\]: expected dict"),
    ("laptop", "good/a", "", "gpu", "device='gpu': expected auto, cpu, cuda"),
    ("laptop", "good/a", "", "mps", "device='mps': not available on this machine"),
    ("laptop", "bad/untagged", "", "auto", "bad/untagged: 0 cells with the tag 'parameters'"),
    ("laptop", "bad/computed", "", "auto", "'seed: int = 1 . x': expected 'name: type = value'"),
    ("laptop", "bad/untyped", "", "auto", "'seed = 1': expected 'name: type = value'"),
    ("laptop", "bad/mistyped", "", "auto", "bad/mistyped: parameter seed='one': expected int"),
    ("laptop", "bad/exotic", "", "auto", "parameter seed: type 'complex': expected int, float"),
    ("laptop", "bad/damaged", "", "auto", "bad/damaged: not a notebook, or damaged"),
    ("laptop", "bad/code", "", "auto", "bad/code: source: line 4 is not valid Python"),
    ("laptop", "bad/broken", "", "auto", "bad/broken: parameters cell, line 1"),
]


@pytest.mark.parametrize(("profile", "patterns", "changes", "device", "message"), PLANS)
def test_plan_refuses(root, profile, patterns, changes, device, message):
    with pytest.raises(InputError, match=message) as caught:
        plan(profile, patterns, parameters.parse_assignments(changes), device=device, root=root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--profile", "huge"], {}, "profile='huge'"),
        (["--notebooks", "no/such"], {}, "no such notebook"),
        (["--jobs", "0"], {}, "jobs=0: expected at least 1"),
        ([], {"DATA_DIR": "no/such/folder"}, "DATA_DIR=no/such/folder: no such folder"),
        (["--parameters", "bananas=2"], {}, "unknown parameter 'bananas'"),
    ],
)
def test_command_line_refuses_in_one_line(arguments, environment, message, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert notebooks.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_results_that_cannot_be_written_are_one_line(root, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "results")

    monkeypatch.setattr(notebooks, "run", full)
    assert notebooks.main([]) == 2
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'results'\n"


def test_missing_data_set_is_found_before_anything_runs(root, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    jobs = plan("laptop", "good/a", {"data": "mnist"}, root=root)
    with pytest.raises(InputError, match="mnist") as caught:
        notebooks.run(jobs)
    assert "\n" not in str(caught.value)
    assert not jobs[0].executed(".partial.ipynb").exists()
    with pytest.raises(InputError, match="unknown data set"):
        notebooks.run(plan("laptop", "good/a", {"data": "mnits"}, root=root))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", 1, 1.0),
        ("float", "1e-3", 0.001),
        ("Optional[float]", None, None),
        ("Optional[int]", 2, 2),
        ("list[float]", [1, 0.5], [1.0, 0.5]),
        ("list", ("a", 1), ["a", 1]),
        ("dict", {"a": [1]}, {"a": [1]}),
        ("bool", True, True),
    ],
)
def test_values_become_what_the_annotation_says(kind, value, expected):
    converted = parameters.convert("x", ast.parse(kind, mode="eval").body, value)
    assert converted == expected
    assert type(converted) is type(expected)


def test_another_file_or_function_under_the_same_name_is_another_job(root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    weights, code = tmp_path / "weights.pt", tmp_path / "mine/models.py"
    code.parent.mkdir()
    keys = []
    for content, source in ((b"a", "x = 1"), (b"b", "x = 1"), (b"b", "x = 2"), (b"b", "x = 2")):
        weights.write_bytes(content)
        code.write_text(source)
        (job,) = plan("laptop", "good/c", {"file": str(weights), "model": "mine.models:net"}, root=root)
        keys.append(job.key)
    assert len(set(keys)) == 3
    assert keys[2] == keys[3]


def test_papermill_inspects_the_same_parameters(root):
    path = root / "notebooks/good/b.ipynb"
    seen = papermill.inspect_notebook(str(path))
    assert {name: value["inferred_type_name"] for name, value in seen.items()} == {
        "nodes": "list[int]",
        "beta": "Optional[float]",
    }


ROW = {
    "id": "c", "paper": "p", "item": "F1", "sentence": "s", "quantity": "q", "relation": "<", "value": 1.0,
    "tolerance": 0.0, "profiles": ("laptop",), "source": "here", "evidence": "ours", "expected": "reproduced",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relation": "="}, "claim c: relation='=': expected one of <, >, within"),
        ({"expected": "maybe"}, "claim c: expected='maybe'"),
        ({"relation": "within", "tolerance": -1.0}, "claim c: tolerance=-1: expected 0, or more for 'within'"),
        ({"tolerance": 0.5}, "claim c: tolerance=0.5: expected 0"),
        ({"expected": "not reproduced", "evidence": ""}, "needs its reason in the column evidence"),
    ],
)
def test_claims_that_make_no_sense(change, message):
    with pytest.raises(InputError, match=message):
        claims.Claim(**{**ROW, **change})


def test_claims_file_with_a_word_for_a_value(tmp_path):
    file = tmp_path / "claims.csv"
    names = ("id", "paper", "item", "sentence", "quantity", "relation", "value", "tolerance", "profiles")
    file.write_text(f"{','.join(names)},source,evidence\nc,p,F1,s,q,<,much,,laptop,here,ours\n")
    with pytest.raises(InputError, match=r"claims\.csv: claim c: value and tolerance must be numbers, got 'much'"):
        claims.load(file)


@pytest.mark.parametrize("row", ["a, b, c", "a"])
def test_a_row_with_an_unquoted_comma_or_too_few_fields(tmp_path, row):
    file = tmp_path / "items.csv"
    file.write_text(f"item,figure\nF1,one\n{row}\n")
    with pytest.raises(InputError, match=r"items\.csv, line 3: not 2 fields; quote commas"):
        claims.read_rows(file)


def test_record_wants_a_number():
    with pytest.raises(InputError, match=r"claims.record\('q'\): value='high': expected a number"):
        claims.record("q", "high")


@pytest.mark.parametrize("name", ["", "A b", "../up", "a_b", "-a"])
def test_names_of_files(name):
    with pytest.raises(InputError, match="expected lower-case words"):
        figures.save(Figure(), name, pd.DataFrame({"x": [1]}), source="s", caption="c")
    with pytest.raises(InputError, match="expected lower-case words"):
        tables.save(pd.DataFrame({"x": [1]}), name, caption="c", source="s")


@pytest.mark.parametrize("command", [claims.main, site.main])
def test_profile_without_results(command, capsys):
    assert command(["--profile", "never-run"]) == 2
    assert capsys.readouterr().err.startswith("error: profile='never-run': expected one of cifar, laptop")
    assert not (folders.RESULTS / "never-run").exists()
