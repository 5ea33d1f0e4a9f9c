"""Sphinx configuration: Markdown pages and the API reference from docstrings.

Build with: pip install -e '.[docs]' && sphinx-build -b html docs docs/_build
"""

from kornia_lift import __version__

project = "kornia_lift"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"kornia_lift {release}"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True  # autodoc lists the fields of named tuples already
