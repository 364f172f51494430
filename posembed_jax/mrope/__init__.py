"""Positions of text, images and videos in one sequence (M-RoPE): int32 `[..., T, 3]` of (time, height, width).

`positions` numbers the tokens of most models, which differ in its settings (`hf.from_config(...).numbering` has them):

- Qwen2-VL, PaddleOCR-VL: `merge=2`, the spatial_merge_size of the configuration.
- Qwen2.5-VL: `tokens_per_second` of the configuration and `seconds_per_grid` of the processor.
- Qwen3-VL, Qwen3.5, GLM-4V, GLM-4.6V, GLM-OCR, Cohere Compass, Cosmos 3: `split_frames=True`.
- ERNIE 4.5 VL: `time_merge=2`.
- Qwen2.5-Omni: `after="largest"`, `sound=True`, `seconds_first=True`; Qwen3-Omni: `fractional=True` as well.
- GLM-Image: `merge=1`; `drawn_positions` are those of the images that it is to draw.

HunyuanVL's are `xdrope_positions`, MiniCPM-V 4.7's `canvas_positions`.
"""

from posembed_jax.mrope.canvas import canvas_positions as canvas_positions
from posembed_jax.mrope.drawn import drawn_positions as drawn_positions
from posembed_jax.mrope.multimodal import positions as positions
from posembed_jax.mrope.times import timestamps as timestamps
from posembed_jax.mrope.xdrope import xdrope_positions as xdrope_positions
