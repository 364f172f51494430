"""Conventions of the API, checked on every public name and in every file."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from schemes import TABLE

import posembed_jax as pe
from posembed_jax import contracts, hf, linen, masks, mrope, nnx, positions, scheme, vision

PACKAGE = Path(pe.__file__).parent
FILES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in FILES.items()}


def public(module):
    """The public functions and classes of a module: in `posembed_jax` all that it exports, else what it defines."""
    prefix = "" if module is pe else module.__name__.removeprefix("posembed_jax.") + "."
    owner = "posembed_jax" if module is pe else module.__name__
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    kinds = inspect.isfunction, inspect.isclass
    return {
        prefix + name: value
        for name, value in values.items()
        if any(kind(value) for kind in kinds) and value.__module__.startswith(owner)
    }


PUBLIC = {
    name: value
    for module in (pe, positions, mrope, vision, masks, linen, nnx, hf)
    for name, value in public(module).items()
}
CONTRACTS = {
    name
    for name, value in PUBLIC.items()
    if inspect.isclass(value) and value.__module__ in (scheme.__name__, contracts.__name__)
}
CONTRACTS |= {"Scaling"}
DESCRIBED = sorted(PUBLIC.keys() - CONTRACTS)
SCHEMES = list({type(row.scheme): row.scheme for row in TABLE}.values())
PUBLISHED = {type(s).__name__ for s in SCHEMES} | {"alibi_slopes", "attend", "embed", "logits", "rotate"}
PUBLISHED |= {
    "mrope.positions",
    "mrope.timestamps",
    "mrope.xdrope_positions",
    "mrope.drawn_positions",
    "mrope.canvas_positions",
    "hf.scaling",
    "hf.from_config",
    "hf.multimodal",
    "hf.patch_positions",
    "hf.patch_table",
    "hf.read",
    "hf.load",
}
PUBLISHED |= {f"vision.{name}" for name in ("merged_grid", "windows", "patch_centers", "augmented", "table_taps")}
PUBLISHED |= {"vision.lengths", "vision.nearest_rows"}
PUBLISHED |= {"positions.pose", "positions.randomized", "positions.zigzag"}
PUBLISHED |= {
    "conv_positions",
    "weight_norm",
    "embed_hashed",
    "vision.mask_coordinates",
    "resize_matrix",
    "resize_table",
    "resize_bias_table",
    "resize_to_shapes",
    "sample_table",
}
PUBLISHED |= {"SteppedTemperature", "LogTemperature", "yarn_softmax_scale"}


def own_docstring(name):
    """Not an inherited one, nor the signature that `dataclass` writes."""
    doc = vars(PUBLIC[name])["__doc__"] if inspect.isclass(PUBLIC[name]) else PUBLIC[name].__doc__
    return "" if doc is None or doc.startswith(f"{PUBLIC[name].__name__}(") else inspect.cleandoc(doc)


def test_schemes_are_all_here():
    concrete = {name for name, value in PUBLIC.items() if inspect.isclass(value) and issubclass(value, pe.Scheme)}
    assert {type(s).__name__ for s in SCHEMES} == concrete - CONTRACTS


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_docstring(name):
    doc = own_docstring(name)
    assert doc.partition("\n")[0].endswith((".", ":")), "the first line is a sentence"
    sources = re.findall(r"Source: (\S*)", doc)
    assert len(sources) == 1 if name in PUBLISHED else len(sources) <= 1
    assert all(source.startswith("https://") for source in sources)


@pytest.mark.parametrize("name", DESCRIBED)
def test_example(name):
    """A contract is only subclassed; everything else shows how it is called."""
    assert ">>> " in own_docstring(name)


@pytest.mark.parametrize("name", DESCRIBED)
def test_shapes(name):
    """Whatever takes arrays says their shapes, `[B, T]`, or prints them; a scheme says those of its parameters."""
    value, doc = PUBLIC[name], own_docstring(name)
    if inspect.isclass(value) and issubclass(value, pe.Scheme):
        assert "Params: " in doc
    elif inspect.isclass(value) and issubclass(value, pe.Scaling):
        pass  # settings and frequencies, on the host
    elif inspect.isclass(value) or "jax.Array" in str(value.__annotations__):
        assert re.search(r"`[^`]*\[[^`]*\]", doc) or ".shape" in doc


def functions_of(name):
    """A public function; of a public class, what it defines itself and `dataclass` did not write."""
    value = PUBLIC[name]
    if inspect.isfunction(value):
        return {name: value}
    own = {key: getattr(f, "__func__", f) for key, f in vars(value).items() if not key.startswith("_") or "call" in key}
    if not dataclasses.is_dataclass(value):
        own["__init__"] = vars(value).get("__init__")
    return {f"{name}.{key}": f for key, f in own.items() if inspect.isfunction(f) and f.__module__ == value.__module__}


FUNCTIONS = {key: f for name in sorted(PUBLIC) for key, f in functions_of(name).items()}
# Defaults that are data, and the signature of jax.nn.initializers.
POSITIONAL_DEFAULTS = {
    ("Initializer.__call__", "dtype"),
    ("init", "dtype"),
    ("RoPE.cos_sin", "params"),
    ("linen.Attention.__call__", "positions"),
    ("nnx.Attention.__call__", "positions"),
    ("positions.arange", "offset"),
}


def test_options_are_keyword_only():
    found = {
        (name, parameter.name)
        for name, function in FUNCTIONS.items()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
    }
    assert found == POSITIONAL_DEFAULTS


def test_random_functions_take_a_key():
    for name, function in FUNCTIONS.items():
        parameters = list(inspect.signature(function).parameters)
        assert not {"rng", "seed", "prng_key", "random_key"} & set(parameters), name
        if name.startswith("positions.") and "key" in parameters:
            assert parameters[0] == "key", name


def test_keywords_are_spelled_out():
    """A `**kwargs` is where a mask or a dropout gets lost."""
    taking = {
        f"{file}: {node.name}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.args.kwarg
    }
    assert taking == {"attention/block.py: refuse_given"}  # names to refuse, whatever they are


@pytest.mark.parametrize("one", SCHEMES, ids=lambda s: type(s).__name__)
def test_schemes_are_values(one):
    fields = dataclasses.fields(one)
    assert all(field.kw_only for field in fields)
    same = dataclasses.replace(one)
    assert same is not one and same == one and hash(same) == hash(one) and repr(same) == repr(one)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, fields[0].name, 1)
    # The settings are the whole identity: a theta left out of it would share a trace with another theta.
    for field in (f for f in fields if f.type == "float"):
        other = dataclasses.replace(one, **{field.name: getattr(one, field.name) * 2})
        assert other != one and hash(other) != hash(one)


def settings(cls):
    """Name -> default, of a Linen module's attributes or an NNX module's arguments."""
    skipped = {"self", "parent", "name", "rngs"}
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in skipped and p.kind is not p.VAR_KEYWORD}


FACES = sorted(name.removeprefix("linen.") for name in public(linen))
# What one face has and the other cannot: Flax's own names for shardings, NNX's input size, no call argument in Linen.
ONLY_LINEN = {"logical_axes", "positions"}
ONLY_NNX = {"out_sharding", "features"}


def test_faces_have_the_same_names():
    assert sorted(name.removeprefix("nnx.") for name in public(nnx)) == FACES


@pytest.mark.parametrize("name", FACES)
def test_faces_agree(name):
    ours, theirs = settings(getattr(linen, name)), settings(getattr(nnx, name))
    assert set(ours) - set(theirs) <= ONLY_LINEN and set(theirs) - set(ours) <= ONLY_NNX
    for key in set(ours) & set(theirs):
        same_kind = callable(ours[key]) and getattr(ours[key], "__qualname__", 0) == theirs[key].__qualname__
        assert ours[key] == theirs[key] or same_kind, key


@pytest.mark.parametrize("name", [name for name in FACES if name != "AttentionFn"])  # Flax sets that signature
def test_faces_are_called_alike(name):
    for method, function in functions_of(f"linen.{name}").items():
        if not method.endswith(".setup"):
            other = getattr(getattr(nnx, name), method.rpartition(".")[2])
            assert inspect.signature(function) == inspect.signature(other), method


@pytest.mark.parametrize("file", FILES)
def test_no_state(file):
    """Module-level names are constants: nothing caches, declares `global`, or assigns into one."""
    tree = TREES[file]
    targets = [t for node in tree.body for t in getattr(node, "targets", [getattr(node, "target", None)])]
    constants = {target.id for target in targets if isinstance(target, ast.Name)}
    mutators = {"append", "extend", "insert", "pop", "popitem", "clear", "update", "setdefault", "add", "remove"}
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("functools."):
            assert "cache" not in node.attr, f"line {node.lineno} caches"
        assert not (isinstance(node, ast.ImportFrom) and node.module == "functools"), "import functools whole"
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.value, ast.Name):
            into = isinstance(node.ctx, ast.Store | ast.Del) or getattr(node, "attr", "") in mutators
            assert not (into and node.value.id in constants), f"line {node.lineno} changes {node.value.id}"


def code_lines(node):
    """How many lines, docstrings not counted."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = [n.body[0] for n in ast.walk(node) if isinstance(n, documented) and ast.get_docstring(n) is not None]
    first = node.body[0].lineno if node.body else 0
    last = node.body[-1].end_lineno if node.body else -1
    return last - first + 1 - sum(doc.end_lineno - doc.lineno + 1 for doc in docs)


@pytest.mark.parametrize("file", FILES)
def test_sizes(file):
    """250 lines of code in a file and 60 in the body of a function."""
    assert code_lines(TREES[file]) <= 250
    for node in ast.walk(TREES[file]):
        assert not isinstance(node, ast.FunctionDef) or code_lines(node) <= 60, node.name


@pytest.mark.parametrize("file", FILES)
def test_refusals_are_never_assert_statements(file):
    """`python -O` removes them."""
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(TREES[file]))


def test_exports_are_aliases():
    """`x as x` is the export list: a type checker reads it, and no `__all__` can drift from it."""
    names = [
        alias for node in ast.walk(TREES["__init__.py"]) if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert names and all(alias.asname == alias.name for alias in names)


def test_version():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == pe.__version__
