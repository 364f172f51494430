"""Sphinx: `pip install -e ".[docs]" && sphinx-build -W docs docs/_build`."""

project = "posembed_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True
