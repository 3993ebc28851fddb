import logging
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import storage
from lib.checkpoint import Checkpoint, NoCheckpoint
from lib.errors import InputError

keys = st.text(max_size=6).filter(lambda key: not key.startswith("$"))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=12,
)


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path / "run", every=0)


@settings(max_examples=50)
@given(st.dictionaries(keys, values, max_size=4))
def test_json_values_come_back_exactly(state):
    assert storage.decode(*storage.encode(state)) == state


def test_every_bit_of_every_kind_of_tensor_comes_back(checkpoint):
    x = torch.randn(3, 4)
    state = {
        "transposed": x.t(),
        "row": x[1],
        "same row": x[1],
        "column": x[:, 1],
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "half": x.half(),
        "bfloat16": x.bfloat16(),
        "double": x.double() / 3,
        "bool": x > 0,
        "int": torch.arange(3),
        "byte": torch.arange(3, dtype=torch.uint8),
        "special": torch.tensor([math.nan, math.inf, -0.0]),
        "parameter": torch.nn.Parameter(x),
        "images": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "expanded": x[:1].expand(5, 4),
    }
    checkpoint.save({"nested": {"deeper": state}, "list": [x, 1]})
    loaded = checkpoint.load()
    for name, tensor in loaded["nested"]["deeper"].items():
        bits = state[name].detach().contiguous()
        assert tensor.dtype == bits.dtype, name
        assert (
            tensor.numpy(force=True).tobytes() == bits.numpy().tobytes()
            if name != "bfloat16"
            else torch.equal(tensor, bits)
        ), name
        assert tensor.is_contiguous(), name
    assert torch.equal(loaded["list"][0], x)


def test_tables_come_back_with_their_types(checkpoint):
    table = pd.DataFrame(
        {
            "i": np.arange(3, dtype="int16"),
            "f": np.array([0.1, math.nan, 1e-300]),
            "s": ["a", None, ""],
            "b": [True, False, True],
        },
        index=[4, 2, 9],
    ).rename_axis("node")
    objects = pd.DataFrame({"o": pd.Series([None, [1, 2], "x"], dtype=object)})
    checkpoint.save({"table": table, "none": table[:0], "objects": objects, "bare": pd.DataFrame()})
    loaded = checkpoint.load()
    pd.testing.assert_frame_equal(loaded["table"], table, check_exact=True)
    pd.testing.assert_frame_equal(loaded["none"], table[:0])
    pd.testing.assert_frame_equal(loaded["objects"], objects)
    assert loaded["bare"].shape == (0, 0)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {1: 2}}, r"a: keys must be strings without a leading \$, got 1"),
        ({"$tensor": 2}, r"state: keys must be strings without a leading \$"),
        ({"a": [1, {2}]}, r"a\[1\]: cannot store a set; allowed are numbers"),
        ({"a": np.zeros(2)}, "a: cannot store a ndarray"),
        (
            {"t": pd.DataFrame({"d": pd.to_datetime(["2026-01-01"])})},
            "t.d: cannot store a column of type datetime",
        ),
        ({"t": pd.DataFrame({1: [2]})}, "t: column names must be different strings"),
        ({"t": pd.DataFrame([[1, 2]], columns=["a", "a"])}, "t: column names must be different strings"),
        (
            {"t": pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)]))},
            "MultiIndex cannot be stored",
        ),
    ],
)
def test_what_would_not_come_back_is_refused(checkpoint, state, message):
    checkpoint.save({"former": 1})
    with pytest.raises(TypeError, match=message):
        checkpoint.save(state)
    assert checkpoint.load() == {"former": 1}


def test_two_values_never_take_the_same_place(checkpoint):
    state = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), "a.b[0]": torch.ones(2), "c": [torch.zeros(2)]}
    checkpoint.save(state)
    loaded = checkpoint.load()
    assert torch.equal(loaded["a"]["b"], torch.zeros(1))
    assert torch.equal(loaded["a.b"], torch.ones(1))


def test_nothing_there_is_none_without_a_word(checkpoint, caplog):
    assert checkpoint.load() is None
    assert caplog.text == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data + b"\0",
        *[
            lambda data, i=i: (
                data[: i * len(data) // 40]
                + bytes([data[i * len(data) // 40] ^ 4])
                + data[i * len(data) // 40 + 1 :]
            )
            for i in range(40)
        ],
    ],
)
def test_a_damaged_state_is_noticed_in_one_line(checkpoint, damage, caplog):
    checkpoint.save({"x": torch.arange(100.0), "step": 3, "text": '"sha256":"' + "0" * 64})
    file = checkpoint.folder / "state.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load() is None
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]
    assert "is not usable" in caplog.text


def test_a_disk_that_takes_no_more_costs_the_checkpoint_only(tmp_path, caplog):
    (tmp_path / "run").write_text("a file where the folder should be")
    Checkpoint(tmp_path / "run").save({"step": 1})
    assert "checkpoint not saved, going on without" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_save_that_fails_leaves_the_former_state(checkpoint, monkeypatch, caplog):
    checkpoint.save({"step": 1})

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    checkpoint.save({"step": 2})
    assert checkpoint.load() == {"step": 1}
    assert "No space left on device" in caplog.text
    assert [file.name for file in checkpoint.folder.iterdir()] == ["state.safetensors"]


def test_due_after_the_given_seconds(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("lib.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path, every=5)
    assert not checkpoint.due()
    now[0] += 5
    assert checkpoint.due()
    checkpoint.save({})
    assert not checkpoint.due()


def test_children_keep_their_own_state_and_go_with_the_parent(checkpoint):
    checkpoint.save({"part": "path"})
    checkpoint.child("mode-a").save({"part": "a"})
    assert checkpoint.child("mode-a").load() == {"part": "a"}
    assert checkpoint.child("mode-b").load() is None
    assert checkpoint.load() == {"part": "path"}
    checkpoint.clear()
    assert checkpoint.load() is checkpoint.child("mode-a").load() is None


@pytest.mark.parametrize("name", ["", "a/b", "../a"])
def test_a_childs_name_is_one_folder_name(checkpoint, name):
    with pytest.raises(ValueError, match="a child's name must be one folder name"):
        checkpoint.child(name)


@pytest.mark.parametrize("every", [-1, math.nan])
def test_seconds_between_saves_are_not_negative(tmp_path, every):
    with pytest.raises(ValueError, match="every must be >= 0 seconds"):
        Checkpoint(tmp_path, every=every)


def test_no_checkpoint_keeps_nothing():
    checkpoint = NoCheckpoint().child("a")
    checkpoint.save({"step": 1})
    checkpoint.clear()
    assert checkpoint.load() is None
    assert not checkpoint.due()


def test_rows_are_written_once_and_a_state_costs_the_same_however_many_there_are(tmp_path):
    checkpoint, sizes = Checkpoint(tmp_path), []
    rows = checkpoint.rows()
    for number in range(40):
        rows.append(torch.full((1000,), float(number)))
        checkpoint.save({"anchors": rows.state(), "vector": torch.zeros(1000)})
        sizes.append((tmp_path / "state.safetensors").stat().st_size)
    assert max(sizes) - min(sizes) <= 8, "a digit more of the count"
    assert (tmp_path / "rows.bin").stat().st_size == 40 * 4000
    assert torch.equal(rows.tensor()[:, 0], torch.arange(40.0))


def test_rows_go_on_behind_the_saved_state(tmp_path):
    checkpoint, row = Checkpoint(tmp_path), torch.arange(5.0)
    rows = checkpoint.rows()
    rows.append(row)
    state = rows.state()
    rows.append(row + 1)  # after the state that was saved: cut off
    rows.state()
    again = checkpoint.rows()
    assert again.restored(state, row)
    again.append(row + 2)
    assert torch.equal(again.tensor(), torch.stack([row, row + 2]))


@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
def test_rows_that_do_not_fit_their_state_are_not_used(tmp_path, caplog, damage):
    checkpoint, row = Checkpoint(tmp_path), torch.arange(5.0)
    rows = checkpoint.rows()
    rows.append(row)
    state, file = rows.state(), tmp_path / "rows.bin"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[:-1] if damage == "short" else bytes([whole[0] ^ 1]) + whole[1:])
    again = checkpoint.rows()
    assert not again.restored(state, row)
    assert "starting afresh" in caplog.text
    again.append(row)
    assert torch.equal(again.tensor(), row[None])


@pytest.mark.parametrize("obstacle", ["folder is a file", "rows are a folder", "state is a folder"])
def test_what_stands_in_the_place_of_a_checkpoint_costs_the_checkpoint_only(tmp_path, caplog, obstacle):
    folder = tmp_path / "run"
    if obstacle == "folder is a file":
        folder.write_text("x")
    else:
        (folder / ("rows.bin" if obstacle == "rows are a folder" else "state.safetensors")).mkdir(parents=True)
    checkpoint = Checkpoint(folder, every=0)
    rows, row = checkpoint.rows(), torch.arange(5.0)
    assert checkpoint.load() is None
    for number in range(3):
        rows.append(row + number)
        checkpoint.save({"anchors": rows.state()})
    assert torch.equal(rows.tensor(), torch.stack([row, row + 1, row + 2]))
    assert "going on without" in caplog.text
    if (state := checkpoint.load()) is not None:
        assert not checkpoint.rows().restored(state["anchors"], row)


def test_a_save_that_takes_long_puts_off_the_next(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lib.checkpoint.time.monotonic", lambda: now[0])

    def slow(path):
        now[0] += 1

    monkeypatch.setattr(storage, "sync", slow)
    checkpoint, due, saving = Checkpoint(tmp_path, every=5), [], 0.0
    for _ in range(200):
        now[0] += 1
        if checkpoint.due():
            due.append(now[0])
            checkpoint.save({"step": 1})  # two syncs, two seconds
            saving += now[0] - due[-1]
    assert due[0] == 5 and min(np.diff(due)) >= 20
    assert saving < 0.1 * now[0]


def test_a_state_without_arguments_is_nobodys(tmp_path):
    Checkpoint(tmp_path).save({"step": 1})
    assert Checkpoint(tmp_path).load() == {"step": 1}
    with pytest.raises(InputError, match="its state belongs to other arguments"):
        Checkpoint(tmp_path).of(seed=1).load()
    Checkpoint(tmp_path).of(seed=1).save({"step": 2})
    assert Checkpoint(tmp_path).load() == Checkpoint(tmp_path).of(seed=1).load() == {"step": 2}
    part = Checkpoint(tmp_path).of(seed=1).child("part")
    part.save({"step": 3})
    assert part.of(seed=2).folder == tmp_path / "part"


def test_rows_without_a_checkpoint_leave_no_file():
    rows = NoCheckpoint().rows()
    rows.append(torch.ones(3))
    name, kept = rows._file.name, rows.tensor()
    del rows
    assert not os.path.exists(name)
    assert torch.equal(kept, torch.ones(1, 3))
