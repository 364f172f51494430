"""The documentation runs: every docstring example, every Python block of the README, and every file that it names.

Each Python block of the README is a program of its own; it runs alone.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.util
import io
import pkgutil
import re
import tomllib
from pathlib import Path

import jax
import pytest

import posembed_jax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(path.name for path in ROOT.glob("*.md"))
MODULES = ["posembed_jax", *(m.name for m in pkgutil.walk_packages(posembed_jax.__path__, "posembed_jax."))]


def blocks(*languages):
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for language, text in fences if language in languages]


def commands():
    """The lines of shell blocks, comments off, a line that ends in a backslash joined to the next."""
    text = "\n".join(blocks("sh", "bash", "console", "shell")).replace("\\\n", " ")
    return [line.partition(" #")[0].strip() for line in text.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_doctests():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 20


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_readme_python(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(blocks("python")[number], f"README.md, Python block {number}", "exec")
    # A user's configuration, not the tests' strict one.
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        exec(code, {"__name__": "__main__"})


def test_readme_has_what_the_others_run():
    assert blocks("python") and commands()


@pytest.mark.parametrize("command", commands())
def test_readme_commands_name_what_exists(command):
    """Files, extras of pyproject.toml, and flags of our own scripts."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    scripts = [word for word in command.split() if re.search(r"\.(py|sh|md|toml|txt)$|^\.ci/", word)]
    for word in scripts:
        assert (ROOT / word).exists(), f"{word}, in: {command}"
    for names in re.findall(r"\.\[([\w,]+)\]", command):
        assert set(names.split(",")) <= set(extras), command
    if len(scripts) == 1:
        source = (ROOT / scripts[0]).read_text()
        for flag in re.findall(r"--[\w-]+", command.partition(scripts[0])[2]):
            assert flag in source, f"{scripts[0]} has no {flag}"


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in re.findall("^#+ (.*)$", text, re.M)
    }
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if not re.match(r"\w+:", link):
            assert (ROOT / target).exists(), f"{page} links to {link}"
            assert target or anchor in anchors, f"{page} links to {link}"


def test_ci_runs_the_readmes_test_command():
    tests = [re.search(r"pytest.*", command)[0] for command in commands() if "pytest" in command]
    assert tests, "README.md has no pytest command"
    for command in tests:
        assert command in (ROOT / ".ci/run").read_text()


@pytest.mark.slow
def test_the_page_of_models_is_what_its_script_writes():
    path = ROOT / "docs" / "make_models.py"
    spec = importlib.util.spec_from_file_location("make_models", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert path.with_name("models.md").read_text() == script.page()
    _, counts = script.table(script.facts())
    assert counts["resolved"] >= 0.97 * counts["types"]
    assert counts["golden"] + counts["same code"] >= 0.97 * counts["types"]
