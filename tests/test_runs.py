"""The cache of runs: what is reused, what comes back, and what happens to what is damaged or fails."""

import json
import logging
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from run_functions import Config, Hinted, Inner, OtherInner, Thawed, digest, everything, nested, no_dict

from lib import folders, runs, storage
from lib.checkpoint import Checkpoint
from lib.errors import InputError
from lib.runs import cache, contents
from lib.runs.__main__ import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def calls(tmp_path):
    """The name of a file with one line for each time that a run was really executed."""
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


def executed(calls):
    return calls.read_text().split()


def test_values_tables_and_tensors_come_back_the_same_first_and_later():
    first, later = runs.one(everything, Config()), runs.one(everything, Config())
    for outcome in (first, later):
        assert torch.equal(outcome["product"], first["product"])
        assert outcome["state"]["a.weight"].dtype == torch.bfloat16
        assert [str(kind) for kind in outcome["table"].dtypes] == [
            "int64",
            "float64",
            "float32",
            "str",
            "bool",
        ]
        assert (outcome["third"], outcome["many"], outcome["name"]) == (1 / 3, 10**30, "é")
        assert (outcome["flag"], outcome["nothing"], outcome["list"]) == (
            True,
            None,
            [1, 2.5, float("inf"), "x"],
        )
    pd.testing.assert_frame_equal(first["table"], later["table"], check_exact=True)
    assert digest(first) == digest(later)
    assert digest(runs.one(everything, Config(seed=1))) != digest(first)


def test_a_run_uses_one_thread_and_leaves_threads_and_generator_as_they_were():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    first = runs.one(everything, Config(seed=1))
    assert (first["threads"], torch.get_num_threads()) == (1, 2)
    torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert runs.one(everything, Config(seed=2))["global"] == first["global"]


def test_only_what_is_missing_runs_and_equal_configs_run_once(calls, capsys):
    runs.one(everything, Config(seed=0, calls=str(calls)))
    with runs.local_cluster(workers=1):
        outcomes = runs.map(
            everything, [Config(seed=seed, calls=str(calls)) for seed in (1, 0, 1)], label="m2m"
        )
    assert executed(calls) == ["0", "1"]
    assert torch.equal(outcomes[0]["product"], outcomes[2]["product"])
    assert not torch.equal(outcomes[0]["product"], outcomes[1]["product"])
    said = capsys.readouterr().out.splitlines()
    assert said == ["everything: 1 run, 0 reused, 1 to run", "m2m: 2 runs, 1 reused, 1 to run"]


def test_nothing_to_do_is_an_empty_list(capsys):
    assert runs.map(everything, []) == []
    assert capsys.readouterr().out == "everything: 0 runs, 0 reused, 0 to run\n"


def test_a_run_may_ask_for_runs(capsys):
    total = runs.one(nested, Config())["sum"]
    assert capsys.readouterr().out == "nested: 1 run, 0 reused, 1 to run\n"
    parts = runs.map(everything, [Config(seed=1), Config(seed=2)])
    assert float(total) == float(sum(part["product"].sum() for part in parts))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Config(seed=0), Config(seed=1)),
        (Config(inner=Inner()), Config(inner=OtherInner())),
        (Config(inner=Inner(0.5)), Config(inner=Inner(0.25))),
        (Config(how="a"), Config(calls="a")),
        (Config(inner=None), Config(inner="None")),
        (Config(inner=(1, 2)), Config(inner=((1,), 2))),
    ],
)
def test_the_key_tells_configs_apart(one, other):
    assert cache.entry(everything, one).key == cache.entry(everything, one).key
    assert cache.entry(everything, one).key != cache.entry(everything, other).key
    assert cache.entry(everything, one).folder != cache.entry(nested, one).folder


def test_values_that_fit_their_annotations_are_taken():
    hinted = Hinted(sizes=(), some=3, flag=np.bool_(True), either=OtherInner())
    assert cache.entry(everything, Config(inner=hinted)).key != cache.entry(everything, Config()).key


def test_numpy_numbers_in_configs_count_as_numbers():
    assert (
        cache.entry(everything, Config(seed=np.int64(3))).key == cache.entry(everything, Config(seed=3)).key
    )


def test_the_entry_says_what_made_it(folder):
    runs.one(everything, Config(inner=Inner(0.25)))
    entry = cache.entry(everything, Config(inner=Inner(0.25))).folder
    assert sorted(file.name for file in entry.iterdir()) == [
        "DONE", "about.json", "config.json", "metrics.json", "tensors.safetensors",
    ]  # fmt: skip
    config = json.loads((entry / "config.json").read_text())
    assert config["function"] == "run_functions.everything"
    assert config["config"]["inner"] == {"$type": "run_functions.Inner", "beta": 0.25}
    about = json.loads((entry / "about.json").read_text())
    assert about["versions"].keys() >= {"python", "torch", "numpy"}
    assert {"seconds", "device", "host", "created", "checksums"} <= about.keys()
    assert json.loads((entry / "metrics.json").read_text())["third"] == 1 / 3


def truncated(data):
    return data[: len(data) // 2]


def flipped(data, part=0.5):
    place = int(part * (len(data) - 1))
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


FILES = ("DONE", "about.json", "config.json", "metrics.json", "tensors.safetensors")
DAMAGES = {
    "truncated": truncated,
    "emptied": lambda data: b"",
    "flipped": flipped,
    "missing": None,
    "last byte lost": lambda data: data[:-1],
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_noticed_in_one_line_and_run_again(name, damage, calls, caplog):
    config = Config(calls=str(calls))
    whole = digest(runs.one(everything, config))
    file = cache.entry(everything, config).folder / name
    if DAMAGES[damage] is None:
        file.unlink()
    else:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert digest(runs.one(everything, config)) == whole
    assert executed(calls) == ["0", "0"]
    (message,) = (record.getMessage() for record in caplog.records)
    assert "is damaged (" in message
    assert "\n" not in message
    assert digest(runs.one(everything, config)) == whole
    assert executed(calls) == ["0", "0"]


def test_what_was_half_written_when_the_power_went_is_never_read(calls):
    config = Config(calls=str(calls))
    runs.one(everything, config)
    folder = cache.entry(everything, config).folder
    folder.rename(folder.with_name(f".{folder.name}.0123.tmp"))
    runs.one(everything, config)
    assert executed(calls) == ["0", "0"]


def test_a_worker_stores_in_the_cache_of_its_client_and_sends_the_same_bytes_to_any_other():
    entry, stored = cache.entry(everything, Config()), []
    with cache.at_home() as home:
        assert cache.is_home(home)
        for probe in (home, f"/elsewhere/{home.rpartition('/')[2]}"):
            sent = runs.work.execute(everything, Config(), entry.key, probe)
            assert (sent is None) == (probe == home)
            stored.append(digest(runs._keep(entry, sent)))
            stored.append([(entry.folder / name).read_bytes() for name in ("metrics.json", "tensors.safetensors")])
            cache.remove(entry.folder)
    assert stored[:2] == stored[2:]
    assert not cache.is_home(home)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux where memory lies")
def test_large_tensors_are_written_from_where_they_lie_and_stay_on_the_disk(monkeypatch, tmp_path):
    rows = Checkpoint(tmp_path).rows()
    for number in range(5):
        rows.append(torch.full((1000,), float(number)))
    anchors = rows.tensor()
    _, encoded = storage.encode({"anchors": anchors, "row": anchors[2], "columns": anchors[:, :3]})
    kept = {name.split()[1]: tensor.data_ptr() - anchors.data_ptr() for name, tensor in encoded.items()}
    assert kept["anchors"] == 0 and kept["row"] == 2 * 4000, "not copied"
    entry = cache.entry(everything, Config())
    monkeypatch.setattr(cache, "_ON_DISK", anchors.nbytes)
    cache.write(entry, {"anchors": anchors, "small": anchors[0]}, {})
    found = cache.read(entry)
    assert torch.equal(found["anchors"], anchors) and torch.equal(found["small"], anchors[0])
    on_disk = {name: lies_in(tensor, "tensors.safetensors") for name, tensor in found.items()}
    assert on_disk == {"anchors": True, "small": False}
    found["anchors"].zero_()  # the reader's own: what is on the disk stays
    assert torch.equal(cache.read(entry)["anchors"], anchors)
    cache.remove(entry.folder)
    assert float(found["anchors"].sum()) == 0, "what is mapped outlives its name"


def lies_in(tensor, file):
    """Whether the memory of a tensor is a part of a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return line.endswith(file)
    return False


def test_what_belongs_to_another_run_is_not_taken(calls, caplog):
    one, other = Config(seed=1, calls=str(calls)), Config(seed=2, calls=str(calls))
    first = digest(runs.one(everything, one))
    shutil.copytree(cache.entry(everything, one).folder, cache.entry(everything, other).folder)
    assert digest(runs.one(everything, other)) != first
    assert "is damaged (it belongs to another run), running again" in caplog.text
    assert executed(calls) == ["1", "2"]


STRAY = {
    "file": lambda place: place.write_text("x"),
    "empty file": lambda place: place.touch(),
    "empty folder": lambda place: place.mkdir(),
    "folder of folders": lambda place: [(place / name).mkdir(parents=True) for name in ("DONE", "about.json")],
    "link to nowhere": lambda place: place.symlink_to("nowhere"),
    "link to a folder": lambda place: place.symlink_to("/tmp"),
    "other JSON": lambda place: (place.mkdir(), [(place / name).write_text("[1]") for name in FILES]),
    "no text": lambda place: (place.mkdir(), [(place / name).write_bytes(b"\xff") for name in FILES]),
}


@pytest.mark.parametrize("name", STRAY)
def test_what_lies_in_the_place_of_an_entry_or_a_checkpoint_is_named_and_replaced(name, caplog, capsys):
    entry, whole = cache.entry(everything, Config()), digest(runs.one(everything, Config(seed=0)))
    cache.remove(entry.folder)
    beside = entry.checkpoints.with_name(".DS_Store"), folders.CACHE / "runs" / "x"
    for place in (entry.folder, entry.checkpoints, *beside):
        place.parent.mkdir(parents=True, exist_ok=True)
        STRAY[name](place)
    main(["list"])
    assert "entries" in capsys.readouterr().out
    for _ in range(2):
        assert digest(runs.one(everything, Config(seed=0))) == whole
    said = [record.getMessage() for record in caplog.records if "cache entry" in record.getMessage()]
    assert len(said) == 1 and "\n" not in said[0]
    main(["clean"])
    assert digest(cache.read(entry)) == whole


def test_a_failed_run_is_one_line(capsys):
    with pytest.raises(runs.RunFailed) as failure:
        runs.one(everything, Config(how="badly"))
    message = str(failure.value)
    assert "everything: 1 of 1 runs failed: Config(seed=0, how='badly'" in message
    assert message.endswith("FloatingPointError: training diverged at tick 3, layer conv1")
    assert "\n" not in message


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(folder, calls):
    folder.write_text("a file where the folder should be")
    with pytest.raises(
        InputError, match=r"the cache folder .* cannot be written \(Not a directory\); LIB_CACHE"
    ):
        runs.one(everything, Config(calls=str(calls)))
    assert executed(calls) == []


def test_a_full_disk_is_one_line_and_nothing_half_written_stays(folder):
    runs.one(everything, Config(seed=1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(runs.RunFailed, match=r"OSError: \[Errno 27\] File too large"):
            runs.one(everything, Config(seed=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    entries = list((folder / "runs" / "run_functions.everything").iterdir())
    assert entries == [cache.entry(everything, Config(seed=1)).folder]


def test_two_processes_that_store_the_same_run_are_both_content():
    entry = cache.entry(everything, Config())
    cache.write(entry, {"x": torch.ones(3)}, {})
    cache.write(entry, {"x": torch.zeros(3)}, {})
    assert torch.equal(cache.read(entry)["x"], torch.ones(3))
    (entry.folder / "DONE").unlink()
    cache.write(entry, {"x": torch.ones(3)}, {})
    assert torch.equal(cache.read(entry)["x"], torch.ones(3))


@pytest.mark.parametrize(
    ("function", "config", "message"),
    [
        (everything, Thawed(), "a config must be a frozen dataclass"),
        (everything, Config, "a config must be a frozen dataclass"),
        (everything, {"seed": 1}, "a config must be a frozen dataclass"),
        (everything, Config(inner={1, 2}), r"config.inner: a config holds numbers, .* got a set"),
        (everything, Config(inner=(1, torch.ones(1))), r"config.inner\[1\]: a config holds .* got a Tensor"),
        (everything, Config(seed=1.5), "everything: config.seed=1.5: expected int"),
        (everything, Config(seed=True), "config.seed=True: expected int"),
        (everything, Config(how=None), "config.how=None: expected str"),
        (everything, Config(inner=Inner(float("nan"))), "config.inner.beta=nan: expected float"),
        (everything, Config(inner=Inner("high")), "config.inner.beta='high': expected float"),
        (everything, Config(inner=Hinted(sizes=3)), r"config.inner.sizes=3: expected tuple\[int, ...\]"),
        (everything, Config(inner=Hinted(some="x")), r"config.inner.some='x': expected float | None"),
        (everything, Config(inner=Hinted(flag=1)), "config.inner.flag=1: expected bool"),
        (everything, Config(inner=Hinted(either=3)), r"config.inner.either=3: expected"),
        (lambda config, checkpoint: {}, Config(), "must be defined at the top level of a module file"),
    ],
)
def test_what_cannot_be_a_run_is_refused_before_anything_runs(function, config, message, folder):
    with pytest.raises(InputError, match=message):
        runs.one(function, config)
    assert not folder.exists()


def test_a_run_must_return_a_dict():
    with pytest.raises(runs.RunFailed, match="a run must return a dict, got a int"):
        runs.one(no_dict, Config())


def test_a_checkpoint_is_there_during_the_run_and_gone_after_it(folder, monkeypatch):
    seen = []

    def watched(config, checkpoint):
        checkpoint.child("part").save({"step": 1})
        seen.extend(file for file in (folder / "checkpoints").rglob("*.safetensors"))
        return {}

    monkeypatch.setattr(watched, "__qualname__", "everything")
    runs.one(watched, Config())
    assert len(seen) == 1
    assert not list((folder / "checkpoints").rglob("*.safetensors"))


@pytest.mark.parametrize(("given", "seconds"), [(None, 5.0), ("", 5.0), ("0.5", 0.5)])
def test_seconds_between_checkpoints_come_from_the_environment(given, seconds, monkeypatch):
    monkeypatch.delenv("LIB_CHECKPOINT_SECONDS", raising=False)
    if given is not None:
        monkeypatch.setenv("LIB_CHECKPOINT_SECONDS", given)
    assert runs.work.checkpoint_seconds() == seconds


@pytest.mark.parametrize("given", ["often", "-1", "nan"])
def test_seconds_between_checkpoints_are_checked(given, monkeypatch):
    monkeypatch.setenv("LIB_CHECKPOINT_SECONDS", given)
    with pytest.raises(
        runs.RunFailed, match=f"LIB_CHECKPOINT_SECONDS={given}: must be a number of at least 0"
    ):
        runs.one(everything, Config())


class TestCommands:
    """``python -m lib.runs list | clean``."""

    @pytest.fixture
    def entries(self, folder):
        """A current, a stale and a damaged entry, one of a module that is gone, and an unfinished run."""
        for seed in range(4):
            runs.one(everything, Config(seed=seed))
        current, stale, damaged, gone = (cache.entry(everything, Config(seed=seed)) for seed in range(4))
        stale.folder.rename(stale.folder.with_name("0" * 12 + stale.folder.name[12:]))
        (damaged.folder / "DONE").unlink()
        removed = folder / "runs" / "lib.experiments.removed.run" / gone.folder.name
        removed.parent.mkdir()
        gone.folder.rename(removed)
        (current.checkpoints.parent / current.folder.name).mkdir(parents=True)
        return current

    def test_list_says_what_is_current_stale_damaged_and_unfinished(self, entries, capsys):
        main(["list"])
        lines = capsys.readouterr().out.splitlines()
        states = sorted(line.split()[0] for line in lines[:-1])
        assert states == ["current", "damaged", "stale", "stale", "unfinished"]
        assert any(
            "run_functions.everything" in line and "inner=Inner(beta=0.5), seed=0" in line for line in lines
        )
        assert "5 entries" in lines[-1]
        assert "3 stale or damaged" in lines[-1]

    def test_a_finished_run_can_be_read_without_its_function(self, entries):
        (item,) = (item for item in contents.items() if item.state == "current")
        assert item.function.endswith("run_functions.everything")
        assert item.settings["inner"] == "Inner"
        assert item.settings["inner.beta"] == Config().inner.beta
        assert digest(item.outcome()) == digest(runs.one(everything, Config(seed=0)))
        (item.folder / "tensors.safetensors").write_bytes(b"")
        with pytest.raises(ValueError, match=r"tensors\.safetensors does not fit its checksum"):
            item.outcome()

    def test_clean_removes_what_nobody_will_ask_for_again(self, entries, capsys):
        main(["clean"])
        assert "removed 3 entries" in capsys.readouterr().out
        assert entries.folder.is_dir()
        assert entries.checkpoints.is_dir()
        main(["clean", "--all"])
        assert "removed 2 entries" in capsys.readouterr().out
        assert not entries.folder.exists()

    def test_results_of_a_users_own_module_are_not_called_stale(self, folder, capsys):
        runs.one(everything, Config())
        own = folder / "runs" / "my_own_module.run"
        shutil.move(cache.entry(everything, Config()).folder.parent, own)
        main(["clean"])
        assert len(list(own.iterdir())) == 1

    def test_an_empty_cache_is_an_empty_list(self, capsys):
        main(["list"])
        assert "0 entries" in capsys.readouterr().out


def test_the_first_lines_of_the_help_name_both_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "list" in capsys.readouterr().out
