"""`python -m pytest tests/golden [--cases DIR]`: one test for each case of DIR, and a table for each mechanism.

A mechanism that we do not have fails, with what is missing.
"""

import collections
import pathlib
import re
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from case import CASES  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--cases", type=pathlib.Path, default=CASES, help="folder of the golden cases to run")


def folder(config):
    return config.getoption("--cases", CASES)


def pytest_generate_tests(metafunc):
    if "case_name" in metafunc.fixturenames:
        metafunc.parametrize("case_name", sorted(path.stem for path in folder(metafunc.config).glob("*.npz")))


@pytest.fixture
def cases(pytestconfig):
    return folder(pytestconfig)


def pytest_terminal_summary(terminalreporter):
    counts = collections.defaultdict(collections.Counter)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            found = re.search(r"test_golden\[(\w+?)__", report.nodeid)
            if found:
                unsupported = outcome == "failed" and "Unsupported" in report.longreprtext
                counts[found[1]]["unsupported" if unsupported else outcome] += 1
    if not counts:
        return
    terminalreporter.section("golden cases")
    columns = {"matched": "passed", "mismatched": "failed", "unsupported": "unsupported"}
    terminalreporter.write_line(f"{'mechanism':24}" + "".join(f"{name:>12}" for name in columns))
    rows = {**dict(sorted(counts.items())), "all": sum(counts.values(), collections.Counter())}
    for mechanism, count in rows.items():
        terminalreporter.write_line(f"{mechanism:24}" + "".join(f"{count[key]:12}" for key in columns.values()))
