"""Sphinx: `pip install -e ".[docs]" && sphinx-build -W docs docs/_build`."""

project = "posembed_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True

SECTIONS = ("Args:", "Returns:", "Raises:")


def equations_are_literal(app, what, name, obj, options, lines):
    """The indented equations of a docstring keep their lines."""
    found, inside = [], False
    for line in lines:
        if line.strip() and not line.startswith(" "):
            inside = line in SECTIONS
        elif line.strip() and not inside and not found[-1].strip():
            found += ["::", ""]
            inside = True
        found.append(line)
    lines[:] = found


def setup(app):
    app.connect("autodoc-process-docstring", equations_are_literal, priority=400)  # napoleon's is 500
