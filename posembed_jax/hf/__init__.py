"""transformers' configurations and checkpoints <-> position schemes and their arrays."""

from posembed_jax.hf.checkpoint import Checkpoint as Checkpoint
from posembed_jax.hf.checkpoint import load as load
from posembed_jax.hf.config import from_config as from_config
from posembed_jax.hf.config import to_config as to_config
from posembed_jax.hf.found import Positions as Positions
from posembed_jax.hf.multimodal import multimodal as multimodal
from posembed_jax.hf.pictures import patch_positions as patch_positions
from posembed_jax.hf.pictures import patch_table as patch_table
from posembed_jax.hf.rope_parameters import rope_parameters as rope_parameters
from posembed_jax.hf.rope_parameters import scaling as scaling
from posembed_jax.hf.weights import Stored as Stored
from posembed_jax.hf.weights import read as read
