"""The report: built from results alone, readable without a network, not built twice; its text, style and links."""

import inspect
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from nbformat import v4

from lib import connectivity, folders, gossip
from lib.errors import InputError
from lib.report import claims, notebook_pages, pages, parameters, plan, readme, site

pytestmark = pytest.mark.xdist_group("report")  # one build serves all tests of the report


class References(HTMLParser):
    """Addresses that a page loads or leads to, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        address = found.get("href") or found.get("src")
        if address and tag != "a":
            self.loaded.append(address)
        elif address:
            self.links.append(address)


@pytest.fixture(scope="module")
def read(report):
    files = {file.relative_to(report).as_posix(): file for file in report.rglob("*.html")}
    return {name: References(file.read_text()) for name, file in files.items() if not name.startswith("_static/")}


def test_nothing_is_loaded_from_a_network_and_no_link_is_broken(report, read):
    for name, page in read.items():
        assert [address for address in page.loaded if urlsplit(address).netloc] == [], name
        for address in page.loaded + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (report / name).parent / unquote(parts.path) if parts.path else report / name
            assert target.exists(), f"{name}: {address}"
            key = target.resolve().relative_to(report.resolve()).as_posix()
            if parts.fragment and key in read:
                assert unquote(parts.fragment) in read[key].anchors, f"{name}: {address}"
    for style in report.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text(errors="replace")), style


def test_every_formula_is_mathml(report):
    pages = {page.relative_to(report): page.read_text() for page in report.rglob("*.html")}
    assert sum(text.count("<math") for text in pages.values()) > 100
    assert [page for page, text in pages.items() if 'class="formula"' in text] == []


def test_sphinx_has_nothing_to_complain_about(report):
    assert (report / ".warnings").read_text() == ""


def test_an_executed_notebook_shows_what_it_printed_and_another_what_is_committed(report, executed_notebook):
    ran = (report / f"{executed_notebook}.html").read_text()
    assert "measured 42" in ran
    assert "executed, profile" in ran
    committed = (report / "gossip/03-variance-correction.html").read_text()
    assert "not executed here" in committed
    assert committed.count("<img") >= 2
    assert "ticks to" in committed, "the table of results"
    assert "Claims that this notebook measures" in committed
    assert 'href="../notebooks/gossip/03-variance-correction.ipynb"' in committed


def test_the_first_page_tells_what_fails_and_each_claim_has_a_row(report):
    first, table = (report / "index.html").read_text(), (report / "claims.html").read_text()
    verdicts = claims.judge("laptop", states=plan.states([], report.parent), folder=report.parent)
    failing = [verdict.claim for verdict in verdicts if verdict.kind == "fails"]
    assert failing
    for claim in failing:
        assert _plain(claim.sentence) in _plain(re.sub(r"<[^>]*>", "", first)), claim.id
    profiles = {"laptop", *(profile.name for profile in pages.committed())}
    assert table.count("<tr data-kind") == sum(bool(profiles & {*claim.profiles}) for claim in claims.load())
    assert first.index("What does not reproduce") < first.index("All items")


def _plain(text):
    return re.sub(r"[^a-z0-9.]", "", text.lower())


def test_profiles_stand_side_by_side(report):
    page = (report / "figures.html").read_text()
    both = next(group for group in page.split('<div class="sides')[1:] if "variance-correction.png" in group)
    assert "<strong>digits</strong>" in both
    assert "<strong>MNIST</strong>" in both


def test_every_public_name_of_both_methods_is_documented(report):
    for package in (connectivity, gossip):
        name = package.__name__.rpartition(".")[2]
        page = (report / f"api/{name}.html").read_text()
        for public in package.__all__:
            if not inspect.ismodule(getattr(package, public)):
                assert f'id="{package.__name__}.{public}"' in page, public


def test_words_of_the_glossary_are_linked_once_with_their_definition(report):
    page = (report / "concepts/connectivity.html").read_text()
    links = re.findall(r'<a class="term[^>]*href="\.\./glossary.html#([^"]*)" title="([^"]*)"', page)
    assert ("term-LLPF", "Low-loss path finding, the method of paper 1: move, correct, train, correct.") in links
    assert len(links) == len(set(links))


def test_up_to_date_is_not_built_again_and_what_changed_is(report, tmp_path, monkeypatch):
    folder, built = tmp_path / report.parent.name, []
    shutil.copytree(report.parent, folder)
    states = plan.states([], folder)
    monkeypatch.setattr(site, "_sphinx", lambda source, target: (built.append(source), target.mkdir()))
    assert site.build("laptop", states=states, folder=folder) == folder / "report/index.html"
    assert built == []
    (folder / "figures/scalability.png").write_bytes(b"other")
    site.build("laptop", states=states, folder=folder)
    site.build("laptop", states={**states, "gossip/08-scalability": "failed: cell [3]: KeyError"}, folder=folder)
    assert len(built) == 2
    assert not list(folder.glob("report-*")), "nothing half-built stays"


def test_failed_and_stale_notebooks_come_before_everything():
    states = {"gossip/03-variance-correction": "failed: cell [3]: KeyError: 'x'", "gossip/08-scalability": "stale"}
    own = pages.Profile.of("laptop", folders.RESULTS / "laptop", states)
    sources = {name: "# A title" for name in states}
    first = site.templates().get_template("index.md.j2").render(pages.content(own, sources))
    warned = first[: first.index("## Six results")]
    assert "[A title](gossip/03-variance-correction.ipynb): `failed: cell [3]: KeyError: 'x'`" in warned
    assert "[A title](gossip/08-scalability.ipynb): made by other code" in warned
    assert own.counts["failed"] > 0


def test_no_results(tmp_path):
    with pytest.raises(InputError, match="profile=smoke: no results; run: make reproduce PROFILE=smoke"):
        site.build("smoke", states={}, folder=tmp_path)


def test_a_notebook_that_did_not_run_shows_the_results_that_its_cells_save(tmp_path):
    (tmp_path / "figures").mkdir()
    for file in ("curve.png", "curve.md", "part-one.png", "part-two.png", "other.png"):
        (tmp_path / "figures" / file).write_bytes(b"png")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/curve.md").write_text("| a |")
    cells = [
        'figures.save(fig, "curve", data, source=""); tables.save(df, "curve", caption="", source="")',
        'for each in "one", "two":\n    figures.save(fig, f"part-{each}", data, source="")',
        "model.save('other')",
    ]
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    shown = notebook_pages.with_results(notebook, tmp_path, {"figures/part-two"})
    kinds = [[key for output in cell.outputs for key in output.data] for cell in shown.cells]
    assert kinds == [["image/png", "text/markdown", "text/markdown"], ["image/png"], []]


def test_every_committed_figure_is_on_the_page_of_one_notebook():
    saved = {}
    for name, path in plan.find().items():
        cells = [cell.source for cell in notebook_pages.read(path).cells if cell.cell_type == "code"]
        for kind, stem in (found for cell in cells for found in notebook_pages.saved(cell)):
            saved.setdefault(f"{kind}/{stem}", []).append(name)
    assert {stem: names for stem, names in saved.items() if len(names) > 1} == {}
    patterns = re.compile("|".join(stem.replace("*", "[a-z0-9-]+") for stem in saved))
    for profile in pages.DATA:
        for png in (folders.RESULTS / profile / "figures").glob("*.png"):
            assert patterns.fullmatch(f"figures/{png.stem}"), png


def test_code_is_folded_but_for_the_method():
    cells = [v4.new_markdown_cell("# T"), v4.new_code_cell("a"), v4.new_markdown_cell("## Method\nText"),
             v4.new_code_cell("b"), v4.new_markdown_cell("## Experiment"), v4.new_code_cell("c")]  # fmt: skip
    page = notebook_pages.page(v4.new_notebook(cells=cells), head="head", foot="foot")
    tags = {cell.source: cell.metadata.get("tags", []) for cell in page.cells if cell.cell_type == "code"}
    assert tags == {"a": ["hide-input"], "b": [], "c": ["hide-input"]}
    assert [page.cells[1].source, page.cells[-1].source] == ["head", "foot"]


def test_headlines_name_quantities_items_and_figures_that_exist():
    quantities = {claim.quantity for claim in claims.load()}
    items = {row["item"]: row["files"].split() for row in claims.read_rows(folders.DATA / "items.csv")}
    for row in claims.read_rows(folders.DATA / "headlines.csv"):
        assert set(row["quantity"].split()) <= quantities
        assert f"figures/{row['figure']}.png" in items[row["item"]]


def test_the_example_for_papermill_names_parameters_that_the_notebook_has():
    workflow = yaml.safe_load((site.DOCS / "papermill.yml").read_text())
    command = workflow["jobs"]["notebook"]["steps"][3]["run"]
    path = re.search(r"notebooks/(\S+)\.ipynb", command)[1]
    declared = parameters.declared(nbformat.read(folders.NOTEBOOKS / f"{path}.ipynb", as_version=4), name=path)
    given = re.findall(r"-p (\w+)", command)
    assert given
    assert set(given) <= set(declared)


@pytest.mark.parametrize("file", [readme.README, readme.ITEMS], ids=lambda file: file.name)
def test_tables_and_code_of_the_readme_are_up_to_date(file):
    text = file.read_text(encoding="utf-8")
    assert "make readme -->" in text
    assert readme.fill(text) == text, "run: make readme"


def test_the_readme_is_short_and_holds_both_methods_in_forty_lines():
    text = readme.README.read_text(encoding="utf-8")
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len(without_code.split()) < 1200
    code = [line for line in readme.methods().splitlines()[1:-1] if line.strip()]
    assert len(code) <= 44
