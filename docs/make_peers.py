"""Writes peers.md from the suites in tests/peers: `python docs/make_peers.py`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "peers"))

import suites  # noqa: E402

HEAD = """# Peers' test suites

What other libraries test of their position and token embeddings, tested here of ours: one test for each of theirs that
applies, with the same name, our own code, and their numbers. They run by default, without torch or the peers:

```sh
python -m pytest tests/peers
```

All pass; if one did not, CI would fail. "Cases" are what pytest collects, parametrized tests counted by their
parameters; a test compares them with this page, which `docs/make_peers.py` writes from the lists in `tests/peers`. Of
each suite the test functions in its files about positions and embeddings are counted.

| file | peer | its tests | here | do not apply | cases |
| --- | --- | ---: | ---: | ---: | ---: |
"""


def row(module) -> str:
    suite, cases = module.SUITE, sum(suites.tests_of(module).values())
    here, absent = len(suite.ours()), sum(len(file.elsewhere()) for file in suite.files)
    return f"| `{module.__name__}.py` | {suite.peer} | {here + absent} | {here} | {absent} | {cases} |\n"


def section(suite: suites.Suite) -> str:
    lines = [f"## {suite.peer}\n", f"[{suite.repository}](https://github.com/{suite.repository}), {suite.licence}."]
    lines[-1] += f" Read at {suite.commit}.\n"
    lines += ["| file | its tests | here | do not apply |", "| --- | ---: | ---: | ---: |"]
    for file in suite.files:
        here, absent = len(file.here), len(file.elsewhere())
        lines.append(f"| `{file.path}` | {here + absent} | {here} | {absent} |")
    reasons: dict[str, list[str]] = {}
    for file in suite.files:
        for reason, names in file.absent.items():
            reasons.setdefault(reason, []).extend(f"`{name}`" for name in names)
    if reasons:
        lines += ["\nWhat does not apply, and why:\n"]
        lines += [f"- {reason}: {', '.join(dict.fromkeys(names))}." for reason, names in reasons.items()]
    if suite.notes:
        lines += ["\nWhat the numbers showed:\n", *(f"- {note}" for note in suite.notes)]
    return "\n".join(lines) + "\n"


def page() -> str:
    modules = list(suites.modules())
    return HEAD + "".join(map(row, modules)) + "".join("\n" + section(module.SUITE) for module in modules)


if __name__ == "__main__":
    (HERE / "peers.md").write_text(page())
