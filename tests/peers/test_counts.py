"""docs/peers.md says what pytest collects."""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import suites

ROOT = Path(__file__).parents[2]
MODULES = {module.__name__: module for module in suites.modules()}


@pytest.mark.parametrize("name", MODULES)
def test_each_test_is_a_peers_and_each_of_the_peers_is_here_or_has_a_reason(name):
    module = MODULES[name]
    assert sorted(suites.tests_of(module)) == sorted(module.SUITE.ours())
    for file in module.SUITE.files:
        named = [*file.here, *file.elsewhere()]
        assert max(Counter(named).values()) == 1, "a test is named twice"


def test_the_page_is_what_its_script_writes():
    path = ROOT / "docs" / "make_peers.py"
    spec = importlib.util.spec_from_file_location("make_peers", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert path.with_name("peers.md").read_text() == script.page()


def test_the_counts_of_the_page_are_those_of_pytest():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(Path(__file__).parent)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    collected = Counter(re.findall(r"^tests/peers/(test_\w+)\.py::", out, re.MULTILINE))
    page = (ROOT / "docs" / "peers.md").read_text()
    counts = {row[0]: int(row[1]) for row in re.findall(r"\| `(test_\w+)\.py` \|.* (\d+) \|$", page, re.MULTILINE)}
    assert counts == {name: collected[name] for name in MODULES}
