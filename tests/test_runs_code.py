"""What changes the key of a run and what does not, on a small library that the tests write."""

import sys
import time

import pytest

from lib import folders
from lib.errors import InputError
from lib.runs import code
from lib.runs.code import code_hash, code_hash_of_source

SOURCES = {
    "__init__": "from lib import unrelated",
    "experiments": '"""Runs."""\nfrom lib import middle, missing_name, runs\n\nrun = lambda x: middle.f(x)\n',
    "middle": "from .deep.leaf import v\nfrom . import side\ndef f(x):\n    # a comment\n    return 2 * x",
    "deep/__init__": "",
    "deep/leaf": "from ..parent import above\nfrom . import sister\n\nv = 1\n",
    "deep/sister": "x = 1",
    "parent": "above = 1",
    "side": "import lib.dotted as d\n\n\ndef f():\n    import lib\n\n    return lib.lazy.g()\n",
    "dotted": "class A:\n    '''Doc.'''\n\n    def g(self):\n        'Doc.'\n        return 1\n",
    "lazy": "g = 1",
    "unrelated": "x = 1",
    "runs/__init__": "from lib.runs import cache",
    "runs/cache": "x = 1",
}
ELSEWHERE = {"__init__", "unrelated", "runs/__init__", "runs/cache"}


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "ROOT", tmp_path)
    for name, text in SOURCES.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root, name, text):
    file = root / "lib" / f"{name}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    code._read_version.cache_clear()  # two writes within one tick of the clock


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - ELSEWHERE))
def test_a_change_in_any_module_that_is_imported_directly_or_not_changes_the_hash(library, name):
    before = code_hash("lib.experiments")
    write(library, name, SOURCES[name] + "\nchanged = 1\n")
    assert code_hash("lib.experiments") != before


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_a_change_elsewhere_does_not(library, name):
    before = code_hash("lib.experiments")
    write(library, name, SOURCES[name] + "\nchanged = 1\n")
    assert code_hash("lib.experiments") == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("middle", "# a comment", "# another, longer comment"),
        ("middle", "    # a comment\n", ""),
        ("middle", "2 * x", "(2 *   x)  # said otherwise"),
        ("experiments", '"""Runs."""\n', '"""Other words."""\n\n\n'),
        ("experiments", '"""Runs."""\n', ""),
        ("dotted", "'''Doc.'''", "'''More.\n\n    Lines.\n    '''"),
        ("dotted", "        'Doc.'\n", ""),
    ],
)
def test_comments_docstrings_and_layout_do_not(library, name, old, new):
    before = code_hash("lib.experiments")
    assert old in SOURCES[name]
    write(library, name, SOURCES[name].replace(old, new))
    assert code_hash("lib.experiments") == before


@pytest.mark.parametrize(("old", "new"), [("2 * x", "3 * x"), ("2 * x", "2.0 * x"), ("f(x)", "f(x, y=1)")])
def test_a_formula_does(library, old, new):
    before = code_hash("lib.experiments")
    write(library, "middle", SOURCES["middle"].replace(old, new))
    assert code_hash("lib.experiments") != before


def test_a_new_module_of_the_name_that_was_imported_counts(library):
    before = code_hash("lib.experiments")
    write(library, "missing_name", "x = 1")
    assert code_hash("lib.experiments") != before


def test_a_source_hashes_with_what_it_imports(library):
    text = "from lib import experiments  # a comment\n%matplotlib inline\nexperiments.run(3)"
    before = code_hash_of_source(text)
    assert code_hash_of_source(text.replace("  # a comment", "")) == before
    assert code_hash_of_source(text.replace("3", "4")) != before
    write(library, "deep/sister", "x = 2")
    assert code_hash_of_source(text) != before


def test_several_subjects_hash_in_any_order():
    assert code_hash("lib.side", "lib.middle") == code_hash("lib.middle", "lib.side")
    assert code_hash("lib.side") != code_hash("lib.parent")


def test_a_function_stands_for_its_module():
    def here():
        pass

    assert code_hash(here) == code_hash(__name__) == code_hash(sys.modules[__name__])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: code_hash("lib.nowhere"), "no source file for module 'lib.nowhere'"),
        (lambda: code_hash("no_such_module"), "no source file for module 'no_such_module'"),
        (lambda: code_hash("sys"), "no source file for module 'sys'"),
        (lambda: code_hash_of_source("x = ("), "source: line 1 is not valid Python"),
    ],
)
def test_what_has_no_source_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_code_that_was_edited_after_it_was_loaded_does_not_run(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "lib.experiments", object())
    monkeypatch.setitem(sys.modules, "lib.middle", object())
    monkeypatch.setattr(code, "_STARTED", time.time() + 60)
    code.require_current("lib.experiments")
    monkeypatch.setattr(code, "_STARTED", time.time() - 60)
    with pytest.raises(InputError, match=r"lib/\w+.py was changed after this process loaded it: restart"):
        code.require_current("lib.experiments")


FRONT = {
    "front/__init__": "'''Doc.'''\nfrom lib.front.one import f\nfrom .two import g as h\n\n__all__ = ['f', 'h']\n",
    "front/one": "def f():\n    return 1\n",
    "front/two": "def g():\n    return 2\n",
    "front/three": "x = 3\n",
}


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("from lib.front import f", {"front/one"}),
        ("from lib.front import h", {"front/two"}),
        ("from lib.front import three", {"front/three"}),
        ("from lib.front.two import g", {"front/two"}),
        ("from lib import front", {"front/__init__", "front/one", "front/two"}),
        ("import lib.front", {"front/__init__", "front/one", "front/two"}),
    ],
)
def test_what_comes_through_a_package_that_only_imports_is_what_defines_it(library, text, needed):
    for name, source in FRONT.items():
        write(library, name, source)
    before, changed = code_hash_of_source(text), set()
    for name, source in FRONT.items():
        write(library, name, source + "\nchanged = 1\n" if name != "front/__init__" else source.replace("'h'", "'f'"))
        if code_hash_of_source(text) != before:
            changed.add(name)
        write(library, name, source)
    assert changed == needed


@pytest.mark.parametrize("door", ["from lib.front import one as f\n", "from lib.front.two import g as f\n"])
def test_what_a_package_means_by_a_name_counts(library, door):
    for name, source in FRONT.items():
        write(library, name, source)
    before = code_hash_of_source("from lib.front import f, h")
    write(library, "front/__init__", door + "from .two import g as h\n")
    assert code_hash_of_source("from lib.front import f, h") != before


def test_a_package_that_does_something_counts(library):
    for name, source in FRONT.items():
        write(library, name, source)
    before = code_hash_of_source("from lib.front import f")
    write(library, "front/__init__", FRONT["front/__init__"] + "f.rate = 2\n")
    assert code_hash_of_source("from lib.front import f") != before
