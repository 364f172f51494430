"""Imports go one way, and `import posembed_jax` needs neither Flax nor anything that draws."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import posembed_jax

PACKAGE = Path(posembed_jax.__file__).parent

CORE = {"chex", "jax", "numpy"}
FLAX = CORE | {"flax"}
ALL_BUT_FACES = {
    "attention",
    "checks",
    "contracts",
    "convolution",
    "lookup",
    "masks",
    "mrope",
    "positions",
    "resize",
    "scheme",
    "schemes",
    "tokens",
    "vision",
}

# file or folder of the package -> (what it may import of the package, what of others)
ARROWS = {
    "checks": (set(), CORE),
    "scheme": ({"checks"}, CORE),
    "contracts": ({"checks", "scheme"}, CORE),
    "lookup": ({"checks"}, CORE),
    "positions": ({"checks"}, CORE),
    "mrope": ({"checks", "mrope"}, CORE),
    "convolution": ({"checks"}, CORE),
    "resize": ({"checks", "lookup"}, CORE),
    "vision": ({"checks", "resize"}, CORE),
    "masks": ({"checks", "contracts"}, CORE),
    "tokens": ({"checks", "lookup"}, CORE),
    "schemes": ({"checks", "contracts", "scheme", "lookup", "schemes"}, CORE),
    "attention": ({"checks", "contracts", "scheme", "positions", "masks", "attention"}, CORE),
    "linen": ({"checks", "contracts", "scheme", "tokens", "attention"}, FLAX),
    "nnx": ({"checks", "contracts", "scheme", "tokens", "attention"}, FLAX),
    "hf": ({"checks", "contracts", "scheme", "resize", "vision", "schemes", "hf"}, CORE | {"safetensors"}),
    "__init__": (ALL_BUT_FACES, set()),
}


def modules_imported(path):
    """Dotted names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            if node.module == "posembed_jax":
                yield from (f"posembed_jax.{alias.name}" for alias in node.names)
            else:
                yield node.module


def part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path):
    own, others = ARROWS[part(path)]
    for name in modules_imported(path):
        root, _, rest = name.partition(".")
        if root == "posembed_jax":
            assert rest.split(".")[0] in own, f"{path.name} imports {name}"
        elif root not in sys.stdlib_module_names:
            assert root in others, f"{path.name} imports {name}"


def test_every_arrow_is_of_a_file():
    assert {part(path) for path in PACKAGE.rglob("*.py")} == set(ARROWS)


WITHOUT_FLAX = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"flax", "matplotlib", "optax", "orbax", "safetensors", "tokenizers"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
import jax
import posembed_jax as pe
import posembed_jax.hf

jax.config.update("jax_num_cpu_devices", 3)  # refused once a backend has started, so no import may start one
positions = pe.positions.arange(3)
x = pe.embed(jax.numpy.ones((5, 8)), positions)[None, :, None]
rotation = pe.RoPE(dim=8, layout="half").bind({})
out = pe.attend(rotation(x, positions), x, x, bias=pe.ALiBi(heads=1).bind({}), causal=True)
assert out.shape == (1, 3, 1, 8) and jax.device_count() == 3
"""

FACES_START_NO_BACKEND = """
import jax
import posembed_jax.linen, posembed_jax.nnx

jax.config.update("jax_num_cpu_devices", 3)
assert jax.device_count() == 3
"""

LEAN = """
import sys
import posembed_jax

assert not {"flax", "matplotlib"} & set(sys.modules)
"""


@pytest.mark.parametrize("script", [WITHOUT_FLAX, FACES_START_NO_BACKEND, LEAN], ids=["blocked", "faces", "lean"])
def test_fresh_import(script, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    done = subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
