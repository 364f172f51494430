"""Write posembed_jax/hf/position_types.json: what transformers' model types do about positions besides rotation.

Run it in an environment that has the transformers release to read (and torch):

    python tests/golden/make_positions.py posembed_jax/hf/position_types.json

The facts are the rows of `position_rows.py`. For each the script builds the model of the default configuration, without
memory for its numbers, finds the parameter that the row speaks of, and compares its shape with the row's settings, for
the default configuration and for one with other values. It adds which body of code does it: a digest of the statements
of its class that speak of positions, with the names of classes, variables and keys taken out. Digests are those of
Python 3.11's ast.unparse.
"""

import argparse
import ast
import hashlib
import importlib
import inspect
import json
import logging
import math
import pathlib
import re
import textwrap
import warnings

from position_rows import CODE_OF, LAYERS, NO_SCHEME, ROTATIONS, ROWS, WITHOUT

from posembed_jax.hf.expressions import evaluate, names_in

KEPT = ("place", "kind", "when", "requires", "each", "about", "instead_of_rotation")
NO_SETTINGS = {*KEPT, "tensor", "code", "stacked"}
SPEAKS = re.compile(
    r"pos|rel_|relative|alibi|sinusoid|timescale|bucket|distance|coords|grid|freq|slopes|resize|interpol"
)
POSITIONAL = re.compile(r"position|rope|rotary|alibi|relative|rel_pos|pos_emb|pos_att|sinus|window_size|_buckets")
LENGTH = re.compile(r"^(max_position_embeddings|n_positions|max_seq_len)$")


class Renamed(ast.NodeTransformer):
    """Variables, attributes of self and keys of configurations by number, in the order in which they come."""

    def __init__(self, function):
        stored = {
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        arguments = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
        self.local = (stored | arguments) - {"self"}
        self.numbers = {}

    def number(self, name):
        return f"v{self.numbers.setdefault(name, len(self.numbers))}"

    def visit_Name(self, node):
        return ast.Name(self.number(node.id), node.ctx) if node.id in self.local else node

    def visit_arg(self, node):
        return ast.arg(self.number(node.arg) if node.arg != "self" else "self", None)

    def visit_Attribute(self, node):
        text = ast.unparse(node.value)
        if text in ("self", "config", "self.config") and node.attr != "config":
            return ast.Attribute(
                ast.Name(text.split(".")[-1], ast.Load()), self.number(f"{text}.{node.attr}"), node.ctx
            )
        self.generic_visit(node)
        return node


def speaking(statements, speaks):
    """The statements that speak of positions, and the headers of the blocks around them."""
    found = []
    for statement in statements:
        if not speaks(ast.unparse(statement)):
            continue
        if hasattr(statement, "body") and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            statement.body = speaking(statement.body, speaks) or [ast.Pass()]
            statement.orelse = speaking(getattr(statement, "orelse", []), speaks)
        found.append(statement)
    return found


def body(thing, attribute=None):
    """A digest of a class or function; of a class with more to do, what it does with the attribute of the table."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    texts = []
    for function in functions:
        if isinstance(function.body[0], ast.Expr) and isinstance(function.body[0].value, ast.Constant):
            function.body = function.body[1:] or [ast.Pass()]
        if isinstance(tree, ast.ClassDef) and attribute is not None:
            function.body = speaking(function.body, lambda text: SPEAKS.search(text) or f"self.{attribute}" in text)
        if not function.body or function.name in ("_init_weights", "extra_repr"):
            continue
        function.decorator_list, function.returns = [], None
        for node in ast.walk(function):
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                node.annotation = ast.Name("_", ast.Load())
        name = function.name if isinstance(tree, ast.ClassDef) else "f"
        renamed = Renamed(function).visit(function)
        renamed.name = name
        for node in ast.walk(renamed):  # super().forward(...) is that of the same base
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = []
        texts.append(ast.unparse(ast.fix_missing_locations(renamed)))
    prefix = re.compile(
        r"\b[A-Z]\w*?(?=(Embedding|Attention|Model|Encoder|Decoder|Layer|Position|Relative|Sinus|Learned)\w*)"
    )
    bases = [ast.unparse(base) for base in tree.bases] if isinstance(tree, ast.ClassDef) else []
    text = prefix.sub("", "\n".join([*bases, *texts]))
    return hashlib.sha1(text.encode()).hexdigest()[:8]


def modeling(config_class):
    """The modules with the models of a configuration class: its own, then its neighbours."""
    package, _, name = config_class.__module__.rpartition(".")
    own = name.replace("configuration_", "modeling_")
    folder = pathlib.Path(inspect.getfile(config_class)).parent
    stems = [path.stem for path in folder.glob("*.py") if path.stem.startswith("modeling_") or path.stem == "vision"]
    names = sorted(stems, key=lambda stem: (stem != own, stem))
    return [importlib.import_module(f"{package}.{name}") for name in names]


def models(modules, config_class):
    """Model classes, those of this configuration first."""
    from transformers import PreTrainedModel

    found = [
        thing
        for module in modules
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, PreTrainedModel) and thing.__module__ == module.__name__
    ]
    found = [thing for thing in found if not thing.__name__.endswith("PreTrainedModel")]
    return sorted(found, key=lambda thing: thing.config_class is not config_class)


def built(model_class, config):
    import torch

    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception:
        return None


def parameters(model, ending):
    """(class that has it, attribute, shape) of each parameter or buffer of that name."""
    import torch

    modules = dict(model.named_modules())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name == ending or name.endswith("." + ending):
            owner, _, attribute = name.rpartition(".")
            if type(modules[owner]).__module__.startswith("torch."):
                owner, _, attribute = owner.rpartition(".")
            while isinstance(modules[owner], torch.nn.ParameterList | torch.nn.ModuleList):
                owner, _, attribute = owner.rpartition(".")
            yield type(modules[owner]), attribute, tuple(tensor.shape)


def shape_of(kind, settings):
    """What the row says of its parameter: how many numbers, and the sizes that its shape must have."""
    if kind == "learned":
        rows = settings["length"] + settings.get("index_offset", 0)
        return rows * settings["features"], {settings["features"]}
    if kind in ("t5", "t5_axes"):
        return settings["buckets"] * settings["heads"], {settings["buckets"], settings["heads"]}
    if kind in ("swin", "beit"):  # BEiT has three more, for a class token
        window = settings.get("window") or settings.get("shape")
        rows = math.prod(2 * size - 1 for size in window) + 3 * (kind == "beit")
        return rows * settings["heads"], {rows, settings["heads"]}
    if kind == "swin_v2":
        rows = math.prod(2 * size - 1 for size in settings["window"])
        return 2 * rows, {2}
    if kind == "levit":
        rows = math.prod(settings["shape"])
        return rows * settings["heads"], {rows}
    if kind == "decomposed":
        rows = 2 * settings["shape"][0] - 1
        return rows * settings["dim"], {rows, settings["dim"]}
    if kind == "axial":
        return settings["shape"][0] * settings["features"], {settings["features"]}
    if kind in ("shaw", "shaw_values"):
        rows = settings["left"] + 1 + settings["right"]
        return rows * settings["dim"], {rows, settings["dim"]}
    if kind == "clipped":
        rows = settings["left"] + 1 + settings["right"]
        return rows * settings["heads"], {rows, settings["heads"]}
    if kind == "tiles":
        rows = settings["tiles"] * settings["patches"] * settings["features"]
        return settings["arrangements"] * rows, {settings["arrangements"], rows}
    if kind == "relative_logits":
        return settings["extent"] * settings["features"], {settings["extent"], settings["features"]}
    raise ValueError(kind)


def shapes(row, names):
    settings = {key: value for key, value in row.items() if key not in NO_SETTINGS}
    each = evaluate(row["each"], names) if "each" in row else (None,)
    found = [shape_of(row["kind"], evaluate(settings, {**names, "each": one, "i": i})) for i, one in enumerate(each)]
    return [(found[0][0] * len(found), found[0][1])] if row.get("stacked") else found


def names_of(config, row):
    known = names_in([value for key, value in row.items() if key not in ("tensor", "code")]) - {"each", "i"}
    return {
        name: plain(getattr(config, name, None) if name in OPTIONAL else getattr(config, name))
        for name in sorted(known)
    }


OPTIONAL = {"embedding_size", "position_buckets", "max_relative_positions"}  # read by `getattr(config, name, None)`


def plain(value):
    if isinstance(value, dict | list | tuple | str | int | float | bool | type(None)):
        return list(value) if isinstance(value, tuple) else value
    return value.to_dict() if hasattr(value, "to_dict") else str(value)


def other(name, value):
    """Another value for a key, that a model still takes."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 2:
        return value
    return value * 4  # a square of a square


def fits(wanted, found):
    return all(any(math.prod(shape) == size and dims <= set(shape) for shape in found) for size, dims in wanted)


def check(model_type, row, config_class, modules):
    """The body of the row's code; complains of a shape that the row does not say."""
    config = default(config_class)
    if "code" in row:
        return row["code"], body(next(getattr(m, row["code"]) for m in modules if hasattr(m, row["code"])))
    wanted, seen = shapes(row, names_of(config, row)), []
    on = evaluate(row.get("when", True), names_of(config, row))
    switches = {} if on else switched_on(row, config)
    for model_class in models(modules, config_class):
        model = built(model_class, config_with(config_class, switches))
        found = [] if model is None else list(parameters(model, row["tensor"]))
        seen += found[:1]
        if found and fits(wanted, [shape for _, _, shape in found]):
            break
    else:
        raise LookupError(f"{row['tensor']} of {wanted} among {seen}")
    changed = {name: other(name, value) for name, value in names_of(config, row).items()}
    verified = varied(row, config_class, model_class, {**changed, **switches})
    if not verified:
        print(f"{model_type} {row['place']}: its shape was not seen to follow {sorted(changed)}")
    owner, attribute, _ = found[0]
    return owner.__name__, body(owner, attribute)


def varied(row, config_class, model_class, changed):
    """Whether another configuration has another shape, and the row says which."""
    before = shapes(row, names_of(default(config_class), row))
    for changes in (changed, *({name: value} for name, value in changed.items())):
        try:
            config = config_with(config_class, changes)
        except Exception:
            continue
        model = built(model_class, config)
        if model is None:
            continue
        wanted = shapes(row, names_of(config, row))
        found = [shape for _, _, shape in parameters(model, row["tensor"])]
        assert not found or fits(wanted, found), (changes, wanted, found[:2])
        if found and wanted != before:
            return True
    return False


def switched_on(row, config):
    """Values with which the row counts."""
    for name in names_in(row["when"]):
        for value in (True, False, 0, 1, "absolute", "learned", "transient-global"):
            if evaluate(row["when"], {**names_of(config, row), name: value}):
                return {name: value}
    return {}


FILLED = {"prediction_length": 8, "vocab_size": 33, "cardinality": [1], "pad_token_id": 1}  # that defaults leave open


def default(config_class):
    return config_with(config_class, {})


def config_with(config_class, values):
    config = config_class(**values)
    open_ones = {k: v for k, v in FILLED.items() if k in vars(config) and getattr(config, k) is None}
    return config_class(**open_ones, **values) if open_ones else config


def unread(config_class, modules):
    """Keys that speak of positions and that the model's code does not name -> their default."""
    source = "\n".join(map(inspect.getsource, modules))
    names = {name: alias for alias, name in config_class.attribute_map.items()}
    return {
        key: plain(value)
        for key, value in vars(default(config_class)).items()
        if POSITIONAL.search(key) and not LENGTH.search(key)
        if not any(re.search(rf"\b{name}\b", source) for name in (key, names.get(key, key)))
    }


def config_of(model_type):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def facts_of(model_type, config_class, rows):
    modules, config = modeling(config_of(CODE_OF.get(model_type, model_type))), default(config_class)
    places, values = [], {}
    for row in rows:
        where, digest = check(model_type, row, config_class, modules)
        values |= {k: plain(getattr(config_class(), k, None)) for k in names_of(config, row)}
        settings = {key: value for key, value in row.items() if key not in NO_SETTINGS}
        kept = {key: row[key] for key in KEPT if key in row}
        places.append({**kept, "settings": settings, "code": where, "body": digest})
    aliases = {alias: name for alias, name in config_class.attribute_map.items() if {alias, name} & set(values)}
    facts = {"config": values, "places": places, "keys": sorted(k for k in vars(config) if POSITIONAL.search(k))}
    if aliases:
        facts["attribute_map"] = aliases
    if ignored := unread(config_class, modules):
        facts["unread"] = ignored
    return facts


def rotation_of(model_type, about):
    found = {"about": about} | ({"layers": LAYERS[model_type]} if model_type in LAYERS else {})
    config, names = config_of(model_type)(), names_in(found) - {"i"}
    return found | {"config": {name: plain(getattr(config, name)) for name in sorted(names)}}


def only(arguments, name):
    return arguments.only is None or name in arguments.only.split(",")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path, nargs="?", help="file to write")
    parser.add_argument("--only", help="check the rows of these model types alone, with commas")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    types, failed = {}, {}
    for model_type in sorted(CONFIG_MAPPING.keys()):
        config_class = CONFIG_MAPPING[model_type]
        if model_type not in ROWS or not only(arguments, model_type):
            continue
        try:
            types[model_type] = facts_of(model_type, config_class, ROWS[model_type])
        except Exception as error:
            failed[model_type] = error
            print(f"{model_type}: {type(error).__name__} {str(error)[:300]}")
    result = {
        "transformers_version": transformers.__version__,
        "rotations": {name: rotation_of(name, about) for name, about in ROTATIONS.items()},
        "types": types,
        "no_scheme": NO_SCHEME,
        "without": sorted(WITHOUT),
    }
    rotary = json.loads((pathlib.Path(__file__).parents[2] / "posembed_jax/hf/rotary_types.json").read_text())
    composites = {name for name, kind in CONFIG_MAPPING.items() if getattr(kind, "sub_configs", None)}
    known = {*rotary["types"], *composites, *ROWS, *NO_SCHEME, *WITHOUT}
    print("not read yet:", sorted(set(CONFIG_MAPPING.keys()) - known))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, sort_keys=True, indent=0, separators=(",", ":")) + "\n")
    print(f"{len(types)} types, {len(failed)} failed")


if __name__ == "__main__":
    main()
