"""Make golden cases of tables that are added to tokens and patches, and of biases of windows.

    python tests/golden/make_added.py DIR [MODEL_TYPE ...]

The class that has the table, as `position_types.json` names it, runs on tokens or on a black picture of another size,
with random parameters; where the class is a whole model, it runs, and what its table gave is kept. Committed are those
of one model type for each body of code.
"""

import argparse
import inspect
import json
import logging
import pathlib
import warnings

import numpy as np
from make_positions import config_of, modeling
from position_rows import CODE_OF, ROWS

from posembed_jax.hf.expressions import evaluate

HERE = pathlib.Path(__file__).parent
SMALL = {
    "vocab_size": 12,
    "hidden_size": 8,
    "embedding_size": 8,
    "input_embedding_size": 8,
    "num_hidden_layers": 1,
    "num_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "n_positions": 16,
    "n_embd": 8,
    "n_head": 2,
    "n_layer": 1,
    "n_inner": 8,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
    "max_encoder_position_embeddings": 16,
    "max_decoder_position_embeddings": 16,
    "dim": 8,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 1,
    "hidden_dim": 8,
    "projection_dim": 8,
    "window_size": 4,
    "attention_types": [[["global"], 1]],
    "image_size": 16,
    "patch_size": 4,
    "shape_vocab_size": 5,
    "shape_embed_dim": 6,
    "pronunciation_vocab_size": 4,
    "pronunciation_embed_dim": 6,
    "dim_bbox": 1,
}
IDS = [[5, 3, 7, 2, 9, 4, 8, 6], [3, 4, 5, 6, 7, 1, 1, 1], [1, 1, 3, 4, 5, 6, 7, 8]]


def small(config_class):
    """The default configuration with the sizes above, for those keys that it has."""
    default = vars(config_class())
    aliases = config_class.attribute_map
    given = {key: value for key, value in SMALL.items() if key in default and key not in aliases}
    for key in ("image_size", "patch_size"):
        if isinstance(default.get(key), list | tuple):
            given[key] = [SMALL[key]] * 2
    if isinstance(default.get("pad_token_id"), int):
        given["pad_token_id"] = min(default["pad_token_id"], 1)
    for key in ("bos_token_id", "eos_token_id"):
        if isinstance(default.get(key), int):
            given[key] = 2
    return config_class(**given), given


def randomised(module):
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    return module.eval()


def arrays_of(model_type, row, config, owner):
    """(mechanism, variant, arrays) of what the class with the table gives."""
    import torch

    class_ids = torch.tensor(IDS)
    pad = getattr(config, "pad_token_id", None)
    ids = class_ids if pad == 1 else torch.where(class_ids == 1, 2, class_ids)
    takes = inspect.signature(owner.forward).parameters
    if "pixel_values" in takes:
        module = randomised(owner(config))
        pixels = torch.zeros(1, 3, 32, 24) if "resize" in row.get("about", {}) else torch.zeros(1, 3, 16, 16)
        switch = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        found = module(pixels, **switch)
        found = found[0] if isinstance(found, tuple) else found
        found = {"in.pixel_values": pixels, "out.out": found}
        return "abs_interp2d", "table", found | kept(module)
    if issubclass(owner, torch.nn.Embedding):
        module = randomised(owner(10, 8))
        first = torch.Size([2, 4]) if "input_ids_shape" in takes else torch.zeros(2, 4, dtype=torch.long)
        return "abs_learned", "offset", {"out.out": module(first), "out.out_past3": module(first, 3)} | kept(module)
    if "Embeddings" in owner.__name__:
        module = randomised(owner(config))
        found = module(input_ids=ids)
        found = found[0] if isinstance(found, tuple) else found
        return "abs_learned", "sum", {"in.input_ids": ids, "out.out": found} | kept(module)
    return "abs_learned", "rows", rows_of_model(row, config, owner, ids)


def rows_of_model(row, config, owner, ids):
    """What the table of a whole model gave, in a run of it."""

    model = randomised(owner(config))
    name = next(
        name for name, _ in model.named_parameters() if name == row["tensor"] or name.endswith("." + row["tensor"])
    )
    table, seen = model.get_submodule(name.rpartition(".")[0]), []
    table.register_forward_hook(lambda module, arguments, output: seen.append(output))
    real = ids[:1] if row.get("about", {}).get("position_ids") != "padding" else ids
    model(input_ids=real)
    return {"out.out": seen[0].reshape(seen[0].shape[-2:]), "par.weight": table.weight}


def window_arrays(row, config, modules, code):
    """The bias of a window of 3 x 3 of four channels in each of three heads; of BEiT, of a picture of 4 x 4."""
    import torch

    owner = owner_of(row, modules, code)
    if row["kind"] == "beit":
        config.num_attention_heads, config.image_size, config.patch_size = 3, 32, 8
        told = "window_size" in inspect.signature(owner.__init__).parameters
        module = randomised(owner(config, (4, 4)) if told else owner(config))
        found = {"out.bias": module((4, 4)), "out.bias_3x5": module((3, 5))}
        return found | {"par.table": module.relative_position_bias_table}
    if "Attention" not in code:
        module = randomised(owner(3, (3, 3)))
        table = {"par.table": module.relative_position_bias_table}
        return {"out.bias": module(), "out.index": module.relative_position_index} | table
    config.attention_probs_dropout_prob, x = 0.0, torch.randn(1, 9, 12, generator=torch.Generator().manual_seed(0))
    module = randomised(owner(config, 12, 3, (3, 3) if row["kind"] == "swin_v2" else 3))
    beside = {"out.index": module.relative_position_index}
    if row["kind"] == "swin":
        named = {name: x for name, x in kept(module).items() if "index" not in name}
        return {"in.x": x, "out.attn_out": module(x)[0]} | beside | named
    table = module.continuous_position_bias_mlp(module.relative_coords_table).view(-1, 3)
    bias = 16 * torch.sigmoid(table[module.relative_position_index.view(-1)].view(9, 9, -1).permute(2, 0, 1))
    beside |= {"out.mlp_table": table, "out.coords": module.relative_coords_table, "out.bias": bias}
    return beside | {name: x for name, x in kept(module).items() if "continuous" in name}


def sinusoid_table(thing, config, width):
    """A table of sinusoids from 0 on, from a function of its sizes, a class of them, or one of a configuration."""
    import torch

    names = list(inspect.signature(thing if inspect.isfunction(thing) else thing.__init__).parameters)
    if "out" in names:
        table = torch.nn.Parameter(torch.empty(20, width), requires_grad=False)
        thing(20, width, table)
        return table
    if inspect.isfunction(thing):
        return thing(20, width).reshape(20, width)
    if "config" in names:
        module = thing(config)
        return module.weights if hasattr(module, "weights") else module(seq_length=20)[0]
    module = thing(20, width)
    return module.weights if hasattr(module, "weights") else module.positional_embedding


def kept(module):
    beside = ("position_ids", "token_type_ids")
    return {f"par.{name}": x for name, x in module.state_dict().items() if not name.endswith(beside)}


def save(folder, name, model_type, ran, arrays, config, given):
    import torch
    import transformers

    numbers = {key: x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for key, x in arrays.items()}
    np.savez_compressed(folder / f"{name}.npz", **numbers)
    meta = {
        "name": name,
        "model_type": model_type,
        "transformers_version": transformers.__version__,
        "torch_version": torch.__version__,
        "ran": ran,
        "config_input": given,
        "config_saved": json.loads(config.to_json_string(use_diff=False)),
    }
    (folder / f"{name}.json").write_text(json.dumps(meta, separators=(",", ":")) + "\n")


def owner_of(row, modules, code):
    return next(getattr(module, code) for module in modules if hasattr(module, code))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("types", nargs="*")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    facts = json.loads((HERE.parents[1] / "posembed_jax/hf/position_types.json").read_text())["types"]
    arguments.folder.mkdir(exist_ok=True)
    for model_type in arguments.types or ROWS:
        modules = modeling(config_of(CODE_OF.get(model_type, model_type)))
        for row, fact in zip(ROWS[model_type], facts[model_type]["places"], strict=True):
            if row["kind"] not in ("learned", "swin", "swin_v2", "beit", "sinusoidal"):
                continue
            if row["kind"] != "sinusoidal" and "code" in row:
                continue
            try:
                if row["kind"] == "sinusoidal":
                    config, given = small(config_of(model_type))
                    given |= {key: True for key in vars(config) if key.startswith("sinusoidal_")}
                    config = config_of(model_type)(**given)
                    width = evaluate(row["features"], vars(config))
                    arrays = {"out.table": sinusoid_table(owner_of(row, modules, row["code"]), config, width)}
                    save(
                        arguments.folder, f"sin_1d__{model_type}__table", model_type, row["code"], arrays, config, given
                    )
                    continue
                if row["kind"] != "learned":
                    config = config_of(model_type)()
                    arrays = window_arrays(row, config, modules, fact["code"])
                    name = f"bias_window__{model_type}__small"
                    save(arguments.folder, name, model_type, fact["code"], arrays, config, {})
                    continue
                config, given = small(config_of(model_type))
                owner = owner_of(row, modules, fact["code"])
                mechanism, variant, arrays = arrays_of(model_type, row, config, owner)
                assert sum(np.prod(x.shape) for x in arrays.values()) < 12_000, "too large"
                name = f"{mechanism}__{model_type}__{variant}"
                save(arguments.folder, name, model_type, f"{owner.__name__}(config)", arrays, config, given)
            except Exception as error:
                print(f"{model_type} {row['place']}: {type(error).__name__} {str(error)[:120]}")


if __name__ == "__main__":
    main()
