"""Which edits of this library make which runs anew, and which data: on copies of the tree and of data."""

import os
import shutil

import pytest

from lib import folders, sources
from lib.runs import cache, code
from lib.studies import gossip, modes
from lib.studies import m2m as connectivity

STUDIES = {
    "modes": "lib.studies.modes",
    "paths": "lib.studies.m2m",
    "methods": "lib.studies.methods",
    "gossip": "lib.studies.gossip",
    "vanishing": "lib.studies.vanishing",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(folders.ROOT / "lib", root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.parametrize(
    ("edited", "anew"),
    [
        ("connectivity/baselines/neb", {"methods"}),
        ("connectivity/baselines/curves", {"methods"}),
        ("connectivity/analysis/simplification", set()),
        ("connectivity/llpf", {"paths", "methods"}),
        ("studies/methods", {"methods"}),
        ("studies/vanishing", {"vanishing"}),
        ("figures/paths", set()),
        ("figures/gossip", set()),
        ("gossip/simulation", {"gossip", "vanishing"}),
        ("gossip/reference", set()),
        ("report/tables", set()),
        ("training", set(STUDIES)),
        ("sphere", set(STUDIES)),
    ],
)
def test_an_edit_makes_anew_what_uses_it_and_nothing_else(tree, monkeypatch, edited, anew):
    monkeypatch.setattr(folders, "ROOT", tree)
    file = tree / "lib" / f"{edited}.py"
    text, before = file.read_text(), {name: code.code_hash(module) for name, module in STUDIES.items()}
    file.write_text(f"{text}\nedited = True\n")
    after = {name: code.code_hash(module) for name, module in STUDIES.items()}
    file.write_text(text)
    assert {name for name in STUDIES if after[name] != before[name]} == anew


def write_images(folder, content):
    for part in ("train", "test"):
        (folder / part / "a").mkdir(parents=True)
        (folder / part / "a" / "1.png").write_bytes(content)
    return folder


def test_runs_on_a_folder_depend_on_what_is_in_it_and_not_on_where_it_lies(tmp_path, monkeypatch):
    mode = modes.Mode(modes.Data("folder"), "lenet5", 0)
    configs = (
        (modes.mode, mode),
        (connectivity.straight_line, connectivity.Straight(mode, mode)),
        (gossip.gossip_run, gossip.Run("folder", "lenet5", gossip.regular(4, 2), gossip.SYSTEMS["gossip"], 9, 0)),
    )
    keys = []
    for name, content in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        monkeypatch.setenv("DATA_DIR", str(write_images(tmp_path / name, content)))
        keys.append([cache.entry(function, config).key for function, config in configs])
    assert keys[0] == keys[1]
    assert all(a != b for a, b in zip(keys[0], keys[2], strict=True))
    (tmp_path / "linked").mkdir()
    for part in ("train", "test"):
        (tmp_path / "linked" / part).symlink_to(tmp_path / "other" / part)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "linked"))
    assert [cache.entry(function, config).key for function, config in configs] == keys[2]
    (tmp_path / "other/train/a/2.png").write_bytes(b"3")
    assert [cache.entry(function, config).key for function, config in configs] != keys[2]


def test_images_are_read_once_for_all_processes_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CACHE", tmp_path / "cache")
    folder, read = write_images(tmp_path / "images", b"1"), []
    original = type(folder).read_bytes
    monkeypatch.setattr(type(folder), "read_bytes", lambda file: read.append(file.name) or original(file))

    def fingerprint():
        sources._digest.cache_clear()  # as in a new process
        return sources.fingerprint("folder", folder)

    first = fingerprint()
    assert (fingerprint(), len(read)) == (first, 2)
    (memory,) = (tmp_path / "cache" / "fingerprints").iterdir()
    for damage in (b"", b"\xff", b"0" * 63):
        memory.write_bytes(damage)
        assert fingerprint() == first
    assert len(read) == 8
    image = folder / "train" / "a" / "1.png"
    image.write_bytes(b"2")
    os.utime(image, ns=(1, 1))
    changed = fingerprint()
    assert changed != first and len(read) == 10
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file in its place")
    assert fingerprint() == changed


def test_data_that_are_the_same_everywhere_have_no_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert {sources.fingerprint(name) for name in sources.NAMES if name != "folder"} == {""}
