"""transformers' configurations <-> position schemes."""

from posembed_jax.hf.rope_parameters import rope_parameters as rope_parameters
from posembed_jax.hf.rope_parameters import scaling as scaling
