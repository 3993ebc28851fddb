"""Configuration of the report for Sphinx; :mod:`lib.report.site` copies it beside the pages as ``conf.py``.

Everything works without a network: formulas become MathML, no script is fetched from elsewhere.
"""

from html import escape

from docutils.nodes import SkipNode
from docutils.utils.math import MathError, latex2mathml, wrap_math_code

author = "the maintainers"
project = "Layer-wise connectivity and gossip averaging"
html_title = project
extensions = ["myst_nb"]
html_theme = "sphinx_book_theme"
html_extra_path = ["extra"]
html_static_path = ["static"]
html_css_files = ["report.css"]
exclude_patterns = ["extra", "static"]
html_copy_source = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the side bar has a search field
}
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
html_math_renderer = "mathml"
# Notebooks start sections as they like; of an output in several forms, one that is known is enough.
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]


def _inline(translator, node):
    translator.body.append(_mathml(node.astext(), as_block=False))
    raise SkipNode


def _block(translator, node):
    code = wrap_math_code(node.astext(), as_block=True)
    translator.body.append(f'<div class="math">{_mathml(code, as_block=True)}</div>')
    raise SkipNode


def _mathml(code, *, as_block):
    try:
        return latex2mathml.tex2mathml(code, as_block=as_block)
    except MathError:  # a command that docutils does not know: show the source
        return f"<code>{escape(code)}</code>"


def setup(app):
    """Register the renderer for formulas."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
