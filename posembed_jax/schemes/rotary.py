"""RoPE: queries and keys are rotated by their positions, so that their product depends on the difference alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax import checks
from posembed_jax.contracts import BoundRotation, Rotation
from posembed_jax.scheme import Arrays, Initializer
from posembed_jax.schemes import phase
from posembed_jax.schemes.axes import Axes
from posembed_jax.schemes.frequencies import Frequencies, geometric
from posembed_jax.schemes.layouts import ENDS, LAYOUTS, rotate
from posembed_jax.schemes.length_scaling import LengthScaling
from posembed_jax.schemes.scaling import Scaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoPE(Rotation):
    """Rotary position embedding.

        frequencies[i] = base ** (-2 i / dim), scaled;    angle = position * frequencies
        out = rotate(x, amplitude * cos(angle), amplitude * sin(angle))

    Args:
        dim: how many channels of the head turn; even. Fewer than the head dim is partial rotary.
        layout: "half" pairs channels (i, i + dim / 2): transformers' Llama, Mistral, Qwen, Gemma, GPT-NeoX.
            "interleaved" pairs (2 i, 2 i + 1): the paper, Meta's own Llama, GPT-J, Cohere, GLM. `permute_layout`
            converts kernels from one to the other.
        base: theta.
        rotated: which dim channels of the head turn: "first" (GPT-NeoX, Phi) or "last" (DeepSeek).
        phase: "exact", angles in fixed point, right to 1e-7 at every int32 position; or "float32", the usual rounded
            angle, for bit-near parity with a model that was trained so.
        learned: the frequencies are parameters, which begin at the values above.
        fractional: also take float32 positions, such as times or coordinates; fixed frequencies are then at most pi.
        scaling: what is done to the frequencies, such as `YaRN(...)`, and the amplitude of cos and sin: 1 for most.
        length: of the sequences, for a scaling that depends on it (DynamicNTK, LongRoPE). None: bind is given it.
        axes: for positions of several numbers `[..., T, A]`, which of them turns each pair; see `Axes`.
        blocks: the dim channels are so many runs, and the layout is that of each (Gemma 4's vision: one for each axis).
        clockwise: turn by minus the angle (nanochat).

    `inverse` turns back and divides by the amplitude.

    Params: none, or `{"frequencies": [dim / 2]}` when learned.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> rotation = pe.RoPE(dim=64, layout="half").bind({})
    >>> rotation(jnp.ones((2, 5, 4, 64), jnp.bfloat16), pe.positions.arange(5)).dtype
    dtype(bfloat16)

    Source: https://arxiv.org/abs/2104.09864.
    """

    dim: int
    layout: str
    base: float = 10_000.0
    rotated: str = "first"
    phase: str = "exact"
    learned: bool = False
    fractional: bool = False
    scaling: Scaling | None = None
    length: int | None = None
    axes: Axes | None = None
    blocks: int = 1
    clockwise: bool = False

    def __post_init__(self):
        checks.integer_setting("dim", self.dim)
        if self.dim % 2:
            raise ValueError(f"dim is {self.dim}; it needs to be even: channels turn in pairs.")
        checks.one_of("layout", self.layout, LAYOUTS)
        checks.number_setting("base", self.base, above=1.0)
        checks.one_of("rotated", self.rotated, ENDS)
        checks.one_of("phase", self.phase, phase.PHASES)
        checks.flag("learned", self.learned)
        checks.flag("fractional", self.fractional)
        checks.flag("clockwise", self.clockwise)
        checks.integer_setting("blocks", self.blocks)
        if self.dim % (2 * self.blocks):
            raise ValueError(f"blocks is {self.blocks}; dim, {self.dim}, needs to be so many runs of whole pairs.")
        self._check_scaling()
        self._check_fractional()

    def _check_scaling(self) -> None:
        if self.axes is not None:
            checks.contract("axes", self.axes, Axes, "Axes(...), such as `Axes.sections((16, 24, 24))`")
            if len(self.axes.axis) not in (self.dim // 2, self.dim):
                raise ValueError(
                    f"axes is {self.axes}, which turns {len(self.axes.axis)} pairs; it needs {self.dim // 2}, or, to "
                    f"turn each channel by an angle of its own, {self.dim}."
                )
        if self.scaling is not None:
            checks.contract("scaling", self.scaling, Scaling, "a Scaling such as YaRN(...)")
            self.scaling.check(len(self._unscaled()))
        if self.length is None:
            return
        checks.integer_setting("length", self.length)
        if not isinstance(self.scaling, LengthScaling):
            raise ValueError(f"length is {self.length}, but scaling is {self.scaling}, which does not depend on it.")

    def _check_fractional(self) -> None:
        """Between whole positions fixed point does not see whole turns."""
        unknown = self.learned or (isinstance(self.scaling, LengthScaling) and self.length is None)
        if self.fractional and self.phase == "exact" and not unknown and max(self.frequencies()) > phase.TAU / 2:
            raise ValueError(
                f"fractional is True, but a frequency is {max(self.frequencies()):.4g}; with phase 'exact' it needs to "
                "be at most pi: make the unit of the positions larger."
            )

    def frequencies(self) -> Frequencies:
        """The exact frequencies, radians per position, one for each pair of channels."""
        found = self._unscaled()
        if isinstance(self.scaling, LengthScaling) and self.length is not None:
            found = self.scaling.scale_to(found, self.length)
        elif self.scaling is not None:
            found = self.scaling.scale(found, self.base)
        return found if self.axes is None else tuple(found[i] for i in self.axes.index)

    def _unscaled(self) -> Frequencies:
        count = self.dim // 2 if self.axes is None else self.axes.count
        return geometric(count, self.base, count)

    @property
    def position_axes(self) -> int | None:
        return None if self.axes is None else 1 + max(self.axes.axis)

    def amplitude(self) -> float:
        """By which cos and sin are multiplied."""
        if isinstance(self.scaling, LengthScaling) and self.length is not None:
            return self.scaling.amplitude_to(self.length)
        return 1.0 if self.scaling is None else self.scaling.amplitude()

    def inits(self) -> dict[str, Initializer]:
        if not self.learned:
            return {}
        values = np.array(self.frequencies(), np.float64)
        return {"frequencies": Initializer(values.shape, lambda key, shape, dtype: jnp.asarray(values, dtype))}

    def constants(self) -> dict[str, np.ndarray]:
        return {} if self.learned else phase.constants(self.frequencies(), self.phase)

    def bind(self, params: Arrays, *, length: int | jax.Array | None = None) -> BoundRotation:
        """The callable of this scheme with these learned arrays (`{}` when it learns nothing).

        length: of the sequences, where the scaling depends on it: an int, or int32 `[]` or `[B]` in the graph. Keys
            in a cache stay turned for the length that they were turned for: see `rerotate`.
        """
        if length is None:
            return super().bind(params)
        if self.learned or self.length is not None or not isinstance(self.scaling, LengthScaling):
            raise ValueError(
                f"length is given, but {self} has fixed frequencies: it needs a scaling that depends on the length, "
                "such as DynamicNTK(...), and no length of its own."
            )
        length = length.item() if isinstance(length, np.generic) else length
        if not hasattr(length, "shape"):
            return dataclasses.replace(self, length=length).bind(params)
        checks.rank("length", length, {0, 1}, "int32 [] or [B]")
        length = checks.integers("length", length, "int32 [] or [B]")
        arrays = self.scaling.constants_at(self._unscaled(), length, self.phase)
        if self.axes is not None:
            arrays = {name: x[..., np.array(self.axes.index)] for name, x in arrays.items()}
        return BoundRotation(self, arrays)

    def cos_sin(
        self, positions: jax.Array, params: Arrays | None = None, *, length: int | jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """float32 `[..., dim / 2]` each, for positions `[...]`, or `[..., A]` with axes: what `rotate` takes.

        `[..., dim]` where `axes` has an entry for each channel; `rotate` then needs `tables="channels"`.

        params: the learned frequencies, when there are any.
        length: as in `bind`.
        """
        axes = self.position_axes
        positions = checks.positions("positions", positions, fractional=self.fractional, ranks=range(0, 9), axes=axes)
        settled = self if length is None or hasattr(length, "shape") else dataclasses.replace(self, length=length)
        arrays = self.bind({} if params is None else params, length=length).arrays
        return settled._cos_sin(arrays, positions)

    def _cos_sin(self, arrays: Arrays, positions: jax.Array, *, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        at = positions[..., None] if self.axes is None else positions[..., np.array(self.axes.axis)]
        tables: Callable[..., tuple[jax.Array, jax.Array]]
        if "turns" in arrays:
            tables, values, ndim = phase.cos_sin, arrays["turns"], 2
        else:
            tables = phase.learned_cos_sin if self.phase == "exact" else phase.float32_cos_sin
            values, ndim = arrays["frequencies"].astype(jnp.float32), 1
        if values.ndim > ndim:  # a length, and so frequencies, for each row
            if at.ndim > 2:
                needs = f"[B, T] with the B of length, which is [{values.shape[0]}]"
                checks.shape("positions", positions, (values.shape[0], *positions.shape[1:]), needs)
            tables = jax.vmap(tables, in_axes=(0 if at.ndim > 2 else None, 0))
        cos, sin = tables(at, values)
        sin = -sin if self.clockwise else sin
        amplitude = self._amplitude(arrays, cos.ndim)
        if not isinstance(amplitude, jax.Array) and amplitude == 1.0:
            return cos, sin
        amplitude = 1.0 / amplitude if inverse else amplitude
        return amplitude * cos, amplitude * sin

    def _amplitude(self, arrays: Arrays, ndim: int) -> float | jax.Array:
        """That of the length, or, for tables of ndim axes, of the length of each row."""
        if "amplitude" not in arrays:
            return self.amplitude()
        of_lengths = arrays["amplitude"]
        return of_lengths.reshape(*of_lengths.shape, *[1] * (ndim - of_lengths.ndim))

    def at(self, arrays: Arrays, x: jax.Array, positions: jax.Array, inverse: bool) -> jax.Array:
        channels = self.axes is not None and len(self.axes.axis) == self.dim
        if inverse and channels:
            raise ValueError(
                "inverse is True, but axes has an angle for each channel: that is no rotation to turn back."
            )
        lengths = next(iter(arrays.values())).shape[: -2 if "turns" in arrays else -1]
        if lengths:
            needs = f"floating [B, T, N, D] with the B of length, which is {list(lengths)}"
            checks.shape("x", x, (*lengths, None, None, None), needs)
        # Without the barrier XLA fuses the polynomials into the rotation and evaluates them again for every head.
        cos, sin = lax.optimization_barrier(jnp.stack(self._cos_sin(arrays, positions, inverse=inverse)))
        how = "channels" if channels else "pairs"
        return rotate(
            x, cos, sin, layout=self.layout, rotated=self.rotated, inverse=inverse, blocks=self.blocks, tables=how
        )


def rerotate(
    keys: jax.Array, positions: jax.Array, *, old: Callable[..., jax.Array], new: Callable[..., jax.Array]
) -> jax.Array:
    """Keys that one rotation has turned, turned by another: `new(old(keys, positions, inverse=True), positions)`.

    For a live cache when the length outgrows a scaling. In float32 in between, and cast once.

    Args:
        keys: floating `[S, K, D]` or `[B, S, K, D]`, as `old` has left them.
        positions: int32 `[S]` or `[B, S]`, of the keys.
        old, new: bound rotations.

    Returns:
        The shape and dtype of keys.

    >>> import jax.numpy as jnp, posembed_jax as pe
    >>> rope = pe.RoPE(dim=8, layout="half", scaling=pe.DynamicNTK(factor=2.0, original_length=16))
    >>> at, short, long = pe.positions.arange(20), rope.bind({}, length=16), rope.bind({}, length=20)
    >>> pe.rerotate(short(jnp.ones((20, 1, 8)), at), at, old=short, new=long).shape
    (20, 1, 8)

    Source: https://arxiv.org/abs/2309.00071, appendix A.2 on caching.
    """
    checks.floating("keys", keys, "floating [S, K, D] or [B, S, K, D]")
    plain = old(keys.astype(checks.compute_dtype(keys.dtype)), positions, inverse=True)
    return new(plain, positions).astype(keys.dtype)
