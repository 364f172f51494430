"""Makes golden cases of biases of the distance and of boxes, and of rotated values, in the format of `cases`.

    python tests/golden/make_distances.py DIR
    python -m pytest tests/golden --cases DIR

Needs transformers 5.23 and torch.
"""

import types

import torch
from make_content import config, of, parameters, random, save
from makers import asked

PICTURES = ("par.pos_embed", "par.cls_token", "par.patch_embed.proj.bias")
IDS = torch.tensor([[5, 3, 7, 2, 1, 1], [1, 1, 3, 4, 5, 6], [3, 4, 1, 1, 5, 6]])  # padding is 1


def alibi(folder):
    mask = torch.tensor([[1] * 150 + [0] * 10, [0] * 40 + [1] * 120, [1, 1, 0, 0, 1, 1, 1, 0, 1, 1] * 16])
    arrays = {"in.attention_mask": mask}
    for heads in (1, 4, 12):
        arrays[f"out.h{heads}"] = of("falcon").build_alibi_tensor(mask, heads, torch.bfloat16).float()
    settings = config("falcon", alibi=True, num_attention_heads=8)
    save(folder, "bias_alibi", "falcon", "bfloat16", settings, "build_alibi_tensor(mask, h, bfloat16)", arrays)


def t5(folder):
    small = {"d_model": 8, "num_heads": 2, "relative_attention_num_buckets": 10, "relative_attention_max_distance": 40}
    for model_type, name, variant, more in (
        ("umt5", "UMT5Attention", "encoder", {"is_decoder": False}),
        ("umt5", "UMT5Attention", "decoder", {"is_decoder": True}),
        ("longt5", "LongT5Attention", "decoder", {"is_decoder": True}),
    ):
        settings = config(model_type, **small, **more)
        made = random(getattr(of(model_type), name)(settings, has_relative_attention_bias=True, layer_idx=0))
        arrays = {"par.relative_attention_bias": made.relative_attention_bias.weight}
        for queries, keys, past in ((7, 7, 0), (1, 9, 8), (3, 70, 50)):
            bias = made.compute_bias(queries, keys, past_seen_tokens=past)
            arrays[f"out.bias_q{queries}_k{keys}_past{past}"] = bias
        save(folder, "bias_t5", model_type, variant, settings, f"{name}.compute_bias", arrays)
    for variant, name, kind in (
        ("local", "LongT5LocalAttention", "local"),
        ("global", "LongT5TransientGlobalAttention", "transient-global"),
    ):
        settings = config("longt5", **small, encoder_attention_type=kind, local_radius=24, global_block_size=3)
        made = random(getattr(of("longt5"), name)(settings, has_relative_attention_bias=True))
        arrays = {"par.relative_attention_bias": made.relative_attention_bias.weight}
        arrays["out.bias_q25_k75_past25"] = made.compute_bias(25)[0]  # of a block and those beside it
        if variant == "global":
            mask = torch.tensor([[1] * 20, [1] * 13 + [0] * 7])
            _, blocks = of("longt5")._make_global_fixed_block_ids(mask, settings.global_block_size)
            arrays |= {"in.attention_mask": mask, "out.side": made.compute_side_bias(mask, blocks)}
            arrays["par.global_relative_attention_bias"] = made.global_relative_attention_bias.weight
        save(folder, "bias_t5", "longt5", variant, settings, f"{name}.compute_bias", arrays)

    settings = config("mpnet", hidden_size=8, num_attention_heads=2, num_hidden_layers=0)
    made = random(of("mpnet").MPNetEncoder(settings))
    arrays = {"out.bias": made.compute_position_bias(torch.zeros(1, 140, 8))}  # to the last bucket, which starts at 113
    arrays["par.relative_attention_bias"] = made.relative_attention_bias.weight
    save(folder, "bias_t5", "mpnet", "encoder", settings, "MPNetEncoder.compute_position_bias", arrays)


def segments(folder):
    """CPM-Ant: T5's within a segment, a row for each pair of segments between them."""
    sizes = {"position_bias_num_buckets": 10, "position_bias_max_distance": 20, "segment_types": 3}
    settings = config("cpmant", num_attention_heads=2, **sizes)
    made = random(of("cpmant").CpmAntSegmentPositionEmbedding(settings))
    segment = torch.tensor([[0] * 4 + [2] * 26, [2] * 10 + [1] * 12 + [2] * 8])
    at = torch.arange(30)[None].expand(2, 30)
    arrays = {"in.segments": segment, "out.bias": made(at, at, segment, segment)}
    save(folder, "bias_t5", "cpmant", "segments", settings, "CpmAntSegmentPositionEmbedding", arrays | parameters(made))


def states(folder):
    """ProphetNet's main stream."""
    prophetnet, at = of("prophetnet"), torch.tensor([[1, 2, 3, 4, 30, 60]])
    sizes = {"num_buckets": 8, "relative_max_distance": 30, "num_decoder_attention_heads": 2, "hidden_size": 8}
    settings = config("prophetnet", **sizes, ngram=2)
    made = random(prophetnet.ProphetNetNgramSelfAttention(settings))
    rows, _ = prophetnet.compute_all_stream_relative_buckets(8, 30, at)
    arrays = {"in.position_ids": at, "in.states": torch.randn(1, 6, 8)}
    found = made.get_main_relative_pos_embeddings(arrays["in.states"], torch.zeros(1, 2, 6, 6), at, rows)
    arrays["out.main_bias"] = found
    arrays |= {f"par.relative_pos_embeddings.{name}": p for name, p in made.relative_pos_embeddings.named_parameters()}
    ran = "ProphetNetNgramSelfAttention.get_main_relative_pos_embeddings"
    save(folder, "bias_t5", "prophetnet", "states", settings, ran, arrays)


def clipped(folder):
    for variant, symmetric, length in (("two_sided", False, 13), ("symmetric", True, 5)):
        settings = config("phi4_multimodal_audio", num_attention_heads=3, bias_max_distance=5, bias_symmetric=symmetric)
        made = random(of("phi4_multimodal").Phi4MultimodalAudioRelativeAttentionBias(settings))
        arrays = {"out.bias": made(torch.zeros(1, length, 8)), "par.table": made.bias_values.weight}
        ran = "Phi4MultimodalAudioRelativeAttentionBias(config)(x)"
        save(folder, "bias_clip", "phi4_multimodal_audio", variant, settings, ran, arrays)


def boxes(folder):
    """Tables of the edges and sizes of boxes, and biases of the distances of edges."""
    bbox = torch.tensor([[[0, 1, 4, 9], [2, 3, 19, 5], [7, 7, 7, 8], [0, 0, 0, 0], [3, 6, 5, 19], [1, 0, 2, 18]]] * 3)
    tables = {"vocab_size": 12, "max_position_embeddings": 16, "max_2d_position_embeddings": 20}
    small = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 8} | tables
    bins = {"rel_pos_bins": 8, "max_rel_pos": 20, "rel_2d_pos_bins": 12, "max_rel_2d_pos": 30}
    both = {"has_relative_attention_bias": True, "has_spatial_attention_bias": True}
    small |= {"coordinate_size": 1, "shape_size": 4} | bins | both
    for model_type in ("layoutlmv2", "layoutxlm"):
        settings = config(model_type, **small)
        made = random(of("layoutlmv2").LayoutLMv2Embeddings(settings))
        model, calculate = (
            types.SimpleNamespace(embeddings=made),
            of("layoutlmv2").LayoutLMv2Model._calc_text_embeddings,
        )
        arrays = {"in.input_ids": IDS, "in.bbox": bbox, "out.out": calculate(model, IDS, bbox, None, None)}
        ran = "LayoutLMv2Model._calc_text_embeddings"
        save(folder, "abs_learned_2d", model_type, "boxes", settings, ran, arrays | parameters(made))

    settings = config("layoutlmv3", **small, pad_token_id=1, input_size=16, patch_size=4, visual_embed=True)
    made = random(of("layoutlmv3").LayoutLMv3TextEmbeddings(settings))
    turned = bbox.clone()
    turned[:, 4] = torch.tensor([5, 19, 3, 6])  # a box whose sizes are below 0
    arrays = {"in.input_ids": IDS, "in.bbox": turned, "out.out": made(IDS, turned), **parameters(made)}
    save(folder, "abs_learned_2d", "layoutlmv3", "boxes", settings, "LayoutLMv3TextEmbeddings(config)", arrays)

    encoder = random(of("layoutlmv3").LayoutLMv3Encoder(settings))
    at, far = torch.tensor([[2, 3, 4, 1, 1, 40]] * 3), 3 * bbox
    tokens, edges = encoder._cal_1d_pos_emb(at), encoder._cal_2d_pos_emb(far)
    arrays = {"in.position_ids": at, "in.bbox": far, "out.b1d": tokens, "out.b2d": edges}
    arrays |= {name: table for name, table in parameters(encoder).items() if "rel_pos" in name}
    layer, x = encoder.layer[0].attention.self, torch.randn(3, 6, 12)
    arrays |= {"in.x": x, "out.attn_out": layer(x, rel_pos=tokens, rel_2d_pos=edges)[0], **parameters(layer)}
    ran = "LayoutLMv3Encoder._cal_1d/2d_pos_emb, LayoutLMv3SelfAttention"
    save(folder, "bias_t5", "layoutlmv3", "1d_2d", settings, ran, arrays)

    model, seen = random(of("layoutlmv3").LayoutLMv3Model(settings)), []
    model.norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    arrays = {"in.pixel_values": torch.zeros(1, 3, 16, 16)}
    model.forward_image(arrays["in.pixel_values"])
    arrays |= {name: x for name, x in parameters(model).items() if name in PICTURES} | {"out.out": seen[0]}
    save(folder, "abs_learned", "layoutlmv3", "patches", settings, "LayoutLMv3Model.forward_image(x), its norm", arrays)

    settings = config("udop", d_model=8, num_heads=2, max_2d_position_embeddings=30)
    part = bbox / 19
    made = random(of("udop").UdopCellEmbeddings(settings.max_2d_position_embeddings, settings.d_model))
    arrays = {"in.bbox": part, "out.out": made(part), **parameters(made)}
    save(folder, "abs_learned_2d", "udop", "boxes", settings, "UdopCellEmbeddings(30, 8)(bbox)", arrays)
    arrays = {"in.bbox": part}
    for name, bias in zip(("tokens", "horizontal", "vertical"), of("udop").create_relative_bias(settings), strict=True):
        arrays[f"out.{name}"] = random(bias)(attention_mask=torch.ones(3, 6), bbox=part)
        arrays[f"par.{name}"] = bias.relative_attention_bias.weight
    save(folder, "bias_t5", "udop", "boxes", settings, "create_relative_bias(config)", arrays)


def rotations(folder):
    """Of values as well; and ESM's, instead of its table."""
    q, k, v = torch.randn(3, 1, 2, 7, 40)
    settings = config("clvp_encoder", hidden_size=80, num_attention_heads=2, projection_dim=80)
    clvp = of("clvp")
    angles, at = clvp.ClvpRotaryPositionalEmbedding(settings)(torch.zeros(2, 7, 80))[0], torch.arange(7)[None]
    turned = clvp.apply_rotary_pos_emb(*(x[..., : angles.shape[-1]] for x in (q, k, v)), angles.cos(), angles.sin(), at)
    arrays = {"in.position_ids": at, "out.cos": angles.cos()[None], "out.sin": angles.sin()[None]}
    for name, x, y in zip("qkv", (q, k, v), turned, strict=True):
        arrays |= {f"in.{name}": x, f"out.{name}_rot": torch.cat([y, x[..., y.shape[-1] :]], dim=-1)}
    ran = "ClvpRotaryPositionalEmbedding(config)(x), apply_rotary_pos_emb of its channels"
    save(folder, "rope_default", "clvp_encoder", "values", settings, ran, arrays)

    roformer = of("roformer")
    for variant, turns_values in (("values", True), ("default", False)):
        settings = config("roformer", hidden_size=32, num_attention_heads=2, rotary_value=turns_values)
        table = roformer.RoFormerSinusoidalPositionalEmbedding(16, 16)
        table.weight = torch.nn.Parameter(table.create_weight(), requires_grad=False)
        read, x = table(torch.Size([1, 7]), 3)[None], dict(zip("qkv", torch.randn(3, 1, 2, 7, 16), strict=True))
        given = [x[name] for name in ("qkv" if turns_values else "qk")]
        turned = roformer.RoFormerSelfAttention.apply_rotary_position_embeddings(read[None], *given)
        arrays = {f"in.{name}": array for name, array in x.items()}
        arrays |= {f"out.{name}_rot": y for name, y in zip("qkv", turned, strict=False)}
        arrays |= {"in.position_ids": 3 + at, "out.sin": read[..., :8], "out.cos": read[..., 8:]}
        ran = "RoFormerSelfAttention.apply_rotary_position_embeddings"
        save(folder, "rope_interleaved", "roformer", variant, settings, ran, arrays)

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "rope_theta": 5000.0, "pad_token_id": 1}
    settings = config("esm", **sizes, position_embedding_type="rotary", vocab_size=12, mask_token_id=11)
    made, q, k = of("esm").EsmRotaryEmbedding(settings), *torch.randn(2, 1, 2, 7, 16)
    cos, sin = made(q, 3 + at)
    turned = of("esm").apply_rotary_pos_emb(q, k, cos, sin)
    arrays = {"in.position_ids": 3 + at, "out.cos": cos, "out.sin": sin, "in.q": q, "in.k": k}
    arrays |= {"out.q_rot": turned[0], "out.k_rot": turned[1]}
    ran = "EsmRotaryEmbedding(config)(x, position_ids), apply_rotary_pos_emb"
    save(folder, "rope_default", "esm", "rotary", settings, ran, arrays)


def main():
    folder = asked(__doc__).folder
    torch.manual_seed(0)
    for make in (alibi, t5, segments, states, clipped, boxes, rotations):
        make(folder)


if __name__ == "__main__":
    main()
