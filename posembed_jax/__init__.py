"""Token and position embeddings for JAX: exact, in memory that the positions need, with Flax faces.

`posembed_jax.linen` and `posembed_jax.nnx` are imported on their own; nothing here imports Flax.
"""

from posembed_jax import masks as masks
from posembed_jax import mrope as mrope
from posembed_jax import positions as positions
from posembed_jax import vision as vision
from posembed_jax.attention import KVCache as KVCache
from posembed_jax.attention import attend as attend
from posembed_jax.attention import bias_to_channels as bias_to_channels
from posembed_jax.contracts import Additive as Additive
from posembed_jax.contracts import Bias as Bias
from posembed_jax.contracts import ContentBias as ContentBias
from posembed_jax.contracts import DistanceBias as DistanceBias
from posembed_jax.contracts import Rotation as Rotation
from posembed_jax.contracts import ValueBias as ValueBias
from posembed_jax.resize import resize_bias_table as resize_bias_table
from posembed_jax.resize import resize_matrix as resize_matrix
from posembed_jax.resize import resize_table as resize_table
from posembed_jax.resize import resize_to_shapes as resize_to_shapes
from posembed_jax.resize import sample_table as sample_table
from posembed_jax.scheme import Bound as Bound
from posembed_jax.scheme import Initializer as Initializer
from posembed_jax.scheme import Scheme as Scheme
from posembed_jax.scheme import init as init
from posembed_jax.scheme import normal as normal
from posembed_jax.schemes.absolute import LearnedPositions as LearnedPositions
from posembed_jax.schemes.absolute import Sinusoidal as Sinusoidal
from posembed_jax.schemes.axes import Axes as Axes
from posembed_jax.schemes.axis_bias import AxisBias as AxisBias
from posembed_jax.schemes.boxes import BoxRelationBias as BoxRelationBias
from posembed_jax.schemes.boxes import BoxRPB as BoxRPB
from posembed_jax.schemes.distance import ALiBi as ALiBi
from posembed_jax.schemes.distance import ClippedBias as ClippedBias
from posembed_jax.schemes.distance import T5Bias as T5Bias
from posembed_jax.schemes.distance import alibi_slopes as alibi_slopes
from posembed_jax.schemes.fourier_rotary import FoPE as FoPE
from posembed_jax.schemes.functional import FIRE as FIRE
from posembed_jax.schemes.functional import KERPLE as KERPLE
from posembed_jax.schemes.functional import Sandwich as Sandwich
from posembed_jax.schemes.layouts import permute_layout as permute_layout
from posembed_jax.schemes.mixed import RoPEMixed as RoPEMixed
from posembed_jax.schemes.rotary import RoPE as RoPE
from posembed_jax.schemes.rotary import rerotate as rerotate
from posembed_jax.schemes.rotary import rotate as rotate
from posembed_jax.schemes.scaling import NTK as NTK
from posembed_jax.schemes.scaling import DynamicNTK as DynamicNTK
from posembed_jax.schemes.scaling import Linear as Linear
from posembed_jax.schemes.scaling import Llama3 as Llama3
from posembed_jax.schemes.scaling import LongRoPE as LongRoPE
from posembed_jax.schemes.scaling import Proportional as Proportional
from posembed_jax.schemes.scaling import Scaling as Scaling
from posembed_jax.schemes.scaling import YaRN as YaRN
from posembed_jax.schemes.scaling import longrope_factor as longrope_factor
from posembed_jax.schemes.scaling import yarn_mscale as yarn_mscale
from posembed_jax.schemes.shaw import ShawBias as ShawBias
from posembed_jax.schemes.shaw import ShawValues as ShawValues
from posembed_jax.schemes.temperature import LogTemperature as LogTemperature
from posembed_jax.schemes.temperature import SteppedTemperature as SteppedTemperature
from posembed_jax.schemes.temperature import yarn_softmax_scale as yarn_softmax_scale
from posembed_jax.schemes.windows import BEiTBias as BEiTBias
from posembed_jax.schemes.windows import LeViTBias as LeViTBias
from posembed_jax.schemes.windows import SwinBias as SwinBias
from posembed_jax.schemes.windows import SwinV2Bias as SwinV2Bias
from posembed_jax.schemes.xpos import XPos as XPos
from posembed_jax.tokens import embed as embed
from posembed_jax.tokens import logits as logits

__version__ = "0.1.0"
