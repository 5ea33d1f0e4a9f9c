"""Sphinx configuration: Markdown pages and the API reference from docstrings.

Build with: pip install -e '.[docs]' && sphinx-build -b html docs docs/_build
"""

import sys
from pathlib import Path

from kornia_lift import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from address import HOME
from source_links import resolve as linkcode_resolve  # noqa: F401 (Sphinx looks for this name)

project = "kornia_lift"
copyright = "2026, the kornia_lift developers"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_copybutton",
    "mathml",
    "programs",
    "api_pages",
    "docstrings",
]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = f"kornia_lift {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme_options = {
    "source_repository": HOME,
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {"color-brand-primary": "#b3401f", "color-brand-content": "#1f5fbf"},
    "dark_css_variables": {"color-brand-primary": "#ff9a76", "color-brand-content": "#7fb2ff"},
}
copybutton_exclude = ".linenos, .gp, .go"
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch says of every forward that it should be overridden
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True  # autodoc lists the fields of named tuples already
# classes of one short name in two modules: autodoc writes the types of constructors by their short names
suppress_warnings = ["ref.python"]
