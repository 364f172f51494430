"""Makes golden cases of biases that are functions of content with transformers' own classes, in the format of `cases`.

    python tests/golden/make_content.py DIR
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23 and torch.
"""

import importlib
import json
import types

import numpy as np
import torch
from makers import asked


def of(model):
    return importlib.import_module(f"transformers.models.{model}.modeling_{model}")


def config(model_type, **settings):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**settings)


def random(module):
    """The module with parameters of some tenths, so that nothing is left at 0 or 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape))
    return module.eval()


def parameters(module):
    return {f"par.{name}": parameter for name, parameter in module.named_parameters()}


def save(folder, mechanism, model_type, variant, settings, ran, arrays):
    """settings: a configuration, a dict of what matters in it, or None."""
    name = f"{mechanism}__{model_type}__{variant}"
    saved = settings.to_dict() if hasattr(settings, "to_dict") else settings
    meta = {"mechanism": mechanism, "model_type": model_type, "variant": variant, "note": "", "ran": ran}
    meta |= {"config_input": None, "config_saved": saved}
    (folder / f"{name}.json").write_text(json.dumps(meta, sort_keys=True, default=str) + "\n")
    arrays = {key: x.detach().numpy() if torch.is_tensor(x) else x for key, x in arrays.items()}
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def layer(folder, mechanism, model_type, variant, settings, module, x, *arguments, **keywords):
    """A layer of attention: what it makes of x."""
    out = random(module)(x, *arguments, **keywords)
    out = out[0] if isinstance(out, tuple) else out
    ran = f"{type(module).__name__}(config)(x)"
    arrays = {"in.x": x, "out.attn_out": out, **parameters(module)}
    save(folder, mechanism, model_type, variant, settings, ran, arrays)


def shaw(folder, x):
    short = {
        "left_max_position_embeddings": 3,
        "right_max_position_embeddings": 2,
        "position_embeddings_type": "relative_key",
    }
    settings = config("wav2vec2-bert", hidden_size=12, num_attention_heads=3, **short)
    layer(
        folder,
        "rel_shaw",
        "wav2vec2-bert",
        "layer",
        settings,
        of("wav2vec2_bert").Wav2Vec2BertSelfAttention(settings),
        x,
    )
    settings = config("seamless_m4t_v2", hidden_size=12, speech_encoder_attention_heads=2, **short)
    module = of("seamless_m4t_v2").SeamlessM4Tv2ConformerSelfAttention(settings)
    layer(folder, "rel_shaw", "seamless_m4t_v2", "layer", settings, module, x)
    settings = config("vits", hidden_size=12, num_attention_heads=3, window_size=2)
    layer(folder, "rel_shaw", "vits", "keys_and_values", settings, of("vits").VitsAttention(settings), x)

    settings = config("granite_speech_encoder", hidden_dim=12, num_heads=2, dim_head=4, max_pos_emb=6, context_size=4)
    blocks = torch.arange(4)
    rows = torch.clamp(blocks[:, None] - blocks[None], -4, 4) + settings.max_pos_emb
    module = of("granite_speech").GraniteSpeechConformerAttention(settings)
    layer(folder, "rel_shaw", "granite_speech_encoder", "blocks", settings, module, x, rows)

    settings = config(
        "granite_speech5_encoder",
        hidden_size=12,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=4,
        max_position_embeddings=6,
        context_size=4,
    )
    settings._attn_implementation = "eager"
    module = of("granite_speech5").GraniteSpeech5EncoderAttention(settings, 0)
    rows = torch.clamp(blocks[:, None] - blocks[None], -4, 4) + settings.max_position_embeddings
    layer(folder, "rel_shaw", "granite_speech5_encoder", "blocks", settings, module, x, rows)


def chunks(folder, x):
    """Gemma's audio encoders: chunks of 3 frames, which see 3 frames before them, and the padding of the second row."""
    real = torch.ones(2, 9, dtype=torch.bool)
    real[1, 7:] = False
    sizes = {"hidden_size": 12, "conf_num_attention_heads": 3, "conf_attention_chunk_size": 3}
    settings = config("gemma3n_audio", **sizes, conf_attention_context_left=4, conf_attention_context_right=1)
    module = random(of("gemma3n").Gemma3nAudioAttention(settings))
    distance = torch.arange(9)[:, None] - torch.arange(9)
    seen = (distance >= -settings.conf_attention_context_right) & (distance < settings.conf_attention_context_left)
    arrays = {"in.x": x, "in.mask": seen & real[:, None, None], "in.soft_cap": module.softcap}
    arrays |= {"out.attn_out": module(x, ~real).reshape(2, 9, 12), **parameters(module)}
    save(folder, "rel_xl", "gemma3n_audio", "chunks", settings, "Gemma3nAudioAttention(config)(x, mask)", arrays)

    gemma4, sizes = of("gemma4"), {"hidden_size": 12, "num_attention_heads": 3, "attention_chunk_size": 3}
    settings = config("gemma4_audio", **sizes, attention_context_left=4, attention_context_right=0)
    module = random(gemma4.Gemma4AudioAttention(settings, 0))
    table = gemma4.Gemma4AudioRelPositionalEncoding(settings)(x)
    inside = gemma4.sliding_window_mask_function((settings.attention_context_left - 1, 0))
    seen = inside(0, 0, torch.arange(9)[:, None], torch.arange(9)[None]) & real[:, None, None]
    additive = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    blocked = gemma4.Gemma4AudioModel._convert_4d_mask_to_blocked_5d(types.SimpleNamespace(config=settings), additive)
    arrays = {"in.x": x, "in.mask": seen, "in.soft_cap": module.softcap, "in.key_scale": np.float32(module.k_scale)}
    arrays |= {"out.attn_out": module(x, table, blocked)[0], "out.pos_emb": table, **parameters(module)}
    save(folder, "rel_xl", "gemma4_audio", "chunks", settings, "Gemma4AudioAttention(config)(x, table, mask)", arrays)


def transformer_xl(folder, x):
    conformers = {
        "wav2vec2-conformer": ("wav2vec2_conformer", "Wav2Vec2Conformer", "num_attention_heads"),
        "wav2vec2-bert": ("wav2vec2_bert", "Wav2Vec2Bert", "num_attention_heads"),
        "seamless_m4t": ("seamless_m4t", "SeamlessM4TConformer", "speech_encoder_attention_heads"),
    }
    for model_type, (name, classes, heads) in conformers.items():
        settings = config(model_type, hidden_size=12, position_embeddings_type="relative", **{heads: 3})
        table = getattr(of(name), f"{classes}RelPositionalEmbedding")(settings)(x)
        module = getattr(of(name), f"{classes}SelfAttention")(settings)
        keywords = {"relative_position_embeddings": table}
        layer(folder, "rel_xl", model_type, "layer", settings, module, x, **keywords)

    settings = config("fastspeech2_conformer", hidden_size=12)
    own = {"num_attention_heads": 2, "attention_dropout_rate": 0.0, "positional_dropout_rate": 0.0}
    fastspeech = of("fastspeech2_conformer")
    _, table = fastspeech.FastSpeech2ConformerRelPositionalEncoding(settings, own).eval()(x)
    module = fastspeech.FastSpeech2ConformerAttention(settings, own)
    layer(folder, "rel_xl", "fastspeech2_conformer", "layer", settings, module, x, pos_emb=table)

    for model_type, name, classes in (
        ("parakeet_encoder", "parakeet", "ParakeetEncoder"),
        ("nemotron_asr_streaming_encoder", "nemotron_asr_streaming", "NemotronAsrStreamingEncoder"),
    ):
        settings = config(model_type, hidden_size=12, num_attention_heads=3, num_key_value_heads=3)
        settings._attn_implementation = "eager"
        table = getattr(of(name), f"{classes}RelPositionalEncoding")(settings)(x)
        module = getattr(of(name), f"{classes}Attention")(settings, 0)
        layer(folder, "rel_xl", model_type, "layer", settings, module, x, position_embeddings=table)

    xlnet = of("xlnet")
    for variant, clamp, keys in (("memory", -1, 9), ("clamp3", 3, 5)):
        settings = config("xlnet", d_model=12, n_head=3, d_inner=8, n_layer=1, clamp_len=clamp, dropout=0.0)
        model, module, queries = xlnet.XLNetModel(settings), random(xlnet.XLNetRelativeAttention(settings)), 5
        table = model.relative_positional_encoding(queries, keys, bsz=1)
        q, k, v = (torch.randn(length, 1, 3, 4) for length in (queries, keys, keys))
        r = torch.einsum("ibh,hnd->ibnd", table, module.r)
        arrays = {"in.q": q, "in.k": k, "in.v": v, "in.pos_emb": table, "in.k_head_r": r, **parameters(module)}
        arrays["out.out"] = module.rel_attn_core(q, k, v, r)
        save(folder, "rel_xl", "xlnet", variant, settings, "XLNetRelativeAttention.rel_attn_core", arrays)


def funnel(folder, x):
    """A layer of the first block, one from it into the second, whose queries are pooled, and one of the second."""
    funnel = of("funnel")
    for variant, kind, apart in (("shift", "relative_shift", True), ("factorized", "factorized", False)):
        sizes = {"d_model": 12, "n_head": 3, "d_head": 4, "block_sizes": [1, 1], "attention_type": kind}
        settings = config("funnel", **sizes, separate_cls=apart)
        structure, layers = funnel.FunnelAttentionStructure(settings), []
        structure.eval()
        for block in (0, 1):
            layers.append(funnel.FunnelRelMultiheadAttention(settings, block))
        layers[1].load_state_dict(random(layers[0]).state_dict())
        given = structure.init_attention_inputs(x)
        arrays = {"in.x0": x, **parameters(layers[0])}
        arrays["out.weights_q0_k0"] = layers[0](x, x, x, given, True)[1]
        pooled, given = structure.pre_attention_pooling(x, given)
        arrays |= {"in.x1": pooled, "out.weights_q1_k0": layers[1].eval()(pooled, x, x, given, True)[1]}
        given = structure.post_attention_pooling(given)
        arrays["out.weights_q1_k1"] = layers[1](pooled, pooled, pooled, given, True)[1]
        ran = "FunnelAttentionStructure and FunnelRelMultiheadAttention, the weights"
        save(folder, "rel_xl", "funnel", variant, settings, ran, arrays)


def deberta(folder):
    small = {"hidden_size": 12, "num_attention_heads": 3, "relative_attention": True, "hidden_dropout_prob": 0.0}
    variants = {
        ("deberta-v2", "deberta_v2", "own_tables"): {
            "max_relative_positions": 9,
            "position_buckets": 6,
            "share_att_key": False,
        },
        ("deberta-v2", "deberta_v2", "p2c"): {
            "max_relative_positions": -1,
            "max_position_embeddings": 5,
            "pos_att_type": ["p2c"],
        },
        ("sew-d", "sew_d", "share"): {"max_relative_positions": 16, "position_buckets": 8, "share_att_key": True},
        ("deberta", "deberta", "base"): {"max_relative_positions": -1, "max_position_embeddings": 9},
        ("deberta", "deberta", "few_rows"): {"max_relative_positions": 4, "pos_att_type": ["c2p"]},
    }
    for (model_type, name, variant), settings in variants.items():
        settings = config(model_type, **{"pos_att_type": ["c2p", "p2c"], **small, **settings})
        module = random(of(name).DisentangledSelfAttention(settings))
        queries, keys = torch.randn(3, 7, 4), torch.randn(3, 7, 4)
        furthest = settings.max_relative_positions
        rows = settings.max_position_embeddings if furthest < 1 else furthest
        if getattr(settings, "position_buckets", -1) > 0:
            rows = settings.position_buckets
        table, factor = torch.randn(2 * rows, 12), 1 + len(settings.pos_att_type)
        if model_type == "deberta":  # its query is scaled before
            at = torch.arange(7)
            scaled = queries[None] / np.sqrt(4 * factor)
            out = module.disentangled_att_bias(scaled, keys[None], at[:, None] - at[None], table, factor)
        else:
            out = module.disentangled_attention_bias(queries, keys, None, table, factor)
        arrays = {"in.q": queries, "in.k": keys, "in.rel_embeddings": table, "out.bias": out, **parameters(module)}
        save(
            folder, "rel_deberta", model_type, variant, settings, "DisentangledSelfAttention's bias of position", arrays
        )


def bros(folder, x):
    """One corner of the four that boxes have, x and y."""
    settings, bbox = config("bros", hidden_size=32, num_attention_heads=4, dim_bbox=2), torch.rand(2, 9, 2)
    vectors = random(of("bros").BrosBboxEmbeddings(settings))
    found, x = vectors(bbox * settings.bbox_scale), torch.cat([x] * 3, dim=-1)[..., :32]
    module = random(of("bros").BrosSelfAttention(settings))
    arrays = {"in.x": x, "in.bbox": bbox, "out.vectors": found, "out.attn_out": module(x, found)[0]}
    ran = "BrosBboxEmbeddings(config)(bbox), BrosSelfAttention(config)"
    save(folder, "sin_coords", "bros", "boxes", settings, ran, arrays | parameters(module) | parameters(vectors))


def others(folder, x):
    q, tables = torch.randn(3, 15, 4), [torch.randn(2 * n - 1, 4) for n in (3, 5)]
    arrays = {"in.q": q, "par.rel_pos_h": tables[0], "par.rel_pos_w": tables[1]}
    zeros = torch.zeros(3, 15, 15)
    made = of("vitdet").add_decomposed_relative_positions(zeros, q, *tables, (3, 5), (3, 5))
    arrays["out.native"] = made.reshape(3, 3, 5, 3, 5)
    save(folder, "bias_decomposed", "vitdet", "oblong", None, "add_decomposed_relative_positions", arrays)

    module = random(of("inkling2").Inkling2RelativeLogits(3, 4))
    states, at, keys = torch.randn(2, 6, 2, 3), torch.tensor([0, 3, 4, 9, 2, 7]), torch.arange(10)
    arrays = {"in.relative_states": states, "in.qp": at, "in.kp": keys, "out.bias": module(states, at, keys)}
    save(
        folder,
        "bias_learned_logits",
        "inkling2_text",
        "extent4",
        None,
        type(module).__name__,
        arrays | parameters(module),
    )

    module = random(of("wavlm").WavLMAttention(12, 2, num_buckets=16, max_distance=20))
    arrays = {"in.x": x, "out.bias": module.compute_bias(9, 9), "out.attn_out": module(x)[0], **parameters(module)}
    ran = "WavLMAttention(12, 2, num_buckets=16, max_distance=20)(x)"
    save(folder, "bias_t5", "wavlm", "gated_16", None, ran, arrays)


def main():
    folder = asked(__doc__).folder
    torch.manual_seed(0)
    x = torch.randn(2, 9, 12)
    shaw(folder, x)
    transformer_xl(folder, x)
    chunks(folder, x)
    funnel(folder, x)
    bros(folder, x)
    deberta(folder)
    others(folder, x)


if __name__ == "__main__":
    main()
