"""`python -m pytest tests/golden [--cases DIR]`: one test for each case of DIR, and a table for each mechanism.

In a run of all tests the mechanisms that we do not have yet are left out; asked for by name, they fail, each with what
is missing.
"""

import collections
import pathlib
import re
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from case import CASES, array_names  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--cases", type=pathlib.Path, default=CASES, help="folder of the golden cases to run")


def folder(config):
    return config.getoption("--cases", CASES)


def pytest_generate_tests(metafunc):
    if "case_name" in metafunc.fixturenames:
        metafunc.parametrize("case_name", sorted(path.stem for path in folder(metafunc.config).glob("*.npz")))


def pytest_collection_modifyitems(config, items):
    asked = [config.invocation_params.dir / argument.split("::")[0] for argument in config.args]
    if any(path == HERE or HERE in path.parents for path in asked):
        return
    from test_golden import check_of

    names = {item: item.callspec.params.get("case_name") for item in items if hasattr(item, "callspec")}
    cases = folder(config)
    left_out = {
        item for item, name in names.items() if name is not None and check_of(name, array_names(cases, name)) is None
    }
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


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
