"""Configuration of the report for Sphinx; :mod:`lib.report.site` lays out the pages beside a copy of this file.

Everything works without a network, opened as files too: formulas become MathML, no script is fetched from
elsewhere, and the search has its excerpts at hand.
"""

import json
import re
import sys
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import pictures  # noqa: E402

pictures.draw(HERE / "static")

author = "the maintainers"
project = "Layer-wise connectivity and gossip averaging"
html_title = project
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "sphinx_book_theme"
html_extra_path = ["extra"]
html_static_path = ["static"]
html_css_files = ["report.css"]
html_js_files = ["report.js"]
exclude_patterns = ["extra", "static", "lib", "_*"]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the side bar has a search field
    "search_bar_text": "Search",
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "a11y-dark",
}
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_render_markdown_format = "myst"  # the tables
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
html_math_renderer = "mathml"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
default_role = "code"
highlight_language = "none"  # commands of a shell
# Notebooks start sections as they like; of an output in several forms, one that is known is enough.
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]


UNLINKED = ("glossary", "figures", "claims", "map")  # pages without prose


def _inline(translator, node):
    translator.body.append(_mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="math">{_mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(code, *, as_block):
    known = re.sub(r"\\([bB]ig)(?![a-z])", r"\\\1l", code).replace(r"\dots", r"\ldots")  # as docutils calls them
    try:
        return latex2mathml.tex2mathml(known, as_block=as_block)
    except MathError:  # a command that docutils does not know: show the source
        return f'<code class="formula">{escape(code)}</code>'


def _link_terms(app, doctree, page):
    """Link the first use of each word of the glossary on a page; the definition is the link's title."""
    if page in UNLINKED or page.startswith("api/"):
        return
    left = dict(_glossary(app))
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(left, key=len, reverse=True)))})\b", re.IGNORECASE)
    address = app.builder.get_relative_uri(page, "glossary")
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.paragraph):
            text.parent.replace(text, _linked(text.astext(), pattern, left, address))


def _linked(text, pattern, left, address):
    parts, end = [], 0
    for match in pattern.finditer(text):
        if found := left.pop(match[0].lower(), None):
            anchor, definition = found
            parts.append(nodes.Text(text[end : match.start()]))
            parts.append(
                nodes.reference("", match[0], refuri=f"{address}#{anchor}", reftitle=definition, classes=["term"])
            )
            end = match.end()
    return [*parts, nodes.Text(text[end:])]


def _glossary(app):
    """Anchor and definition by word, in lower case."""
    items = app.env.get_doctree("glossary").findall(nodes.definition_list_item)
    pairs = [(term, item.next_node(nodes.definition).astext()) for item in items for term in item.findall(nodes.term)]
    return {term.astext().lower(): (term["ids"][0], text.replace("\n", " ")) for term, text in pairs}


def _collect_text(app, page, template, context, doctree):
    """Give the search page the text of all pages: a page that is opened as a file may not read another."""
    if doctree is not None:
        app.texts = getattr(app, "texts", {}) | {page: " ".join(doctree.astext().split())}
    elif page == "search":
        app.add_js_file("texts.js")


def _write_texts(app, error):
    if error is None:
        script = f"const TEXTS = {json.dumps(app.texts)};\n"
        Path(app.outdir, "_static", "texts.js").write_text(script, encoding="utf-8")


def setup(app):
    """Register the renderer for formulas, and what happens to a page on its way."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    app.connect("doctree-resolved", _link_terms)
    app.connect("html-page-context", _collect_text)
    app.connect("build-finished", _write_texts)
