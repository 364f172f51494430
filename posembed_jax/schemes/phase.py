"""cos and sin of position x frequency, to 1e-7 at every int32 position, in 32-bit arithmetic.

A float32 angle loses its fraction as the position grows: at position 10^6 the usual `cos(position * frequency)`
is wrong by 0.06. Here the angle is counted in turns. A frequency is a 64-bit fixed-point number of turns per
position, made on the host and kept as two 32-bit words; the product with an int32 position, modulo one turn,
is a few wrapping integer multiplications; and cos and sin of the remaining fraction are short polynomials.

    phase = (position * words) mod 2^64 >> 32        in units of 2^-32 turn
    cos(2 pi phase / 2^32), sin(2 pi phase / 2^32)
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from posembed_jax.schemes.frequencies import CONTEXT, Frequencies

TAU = Decimal("6.283185307179586476925286766559005768394338798750211641949889")

# Chebyshev interpolants on |r| <= 1/8 turn, u = r^2:  sin(2 pi r) = r * SIN(u),  cos(2 pi r) = 1 + u * COS(u).
SIN = (6.283185287812946, -41.34166257054795, 81.59254287130155, -75.40161270274746)
COS = (-19.739208789987508, 64.93936905141977, -85.44882008965106, 59.424105981756476)


PHASES = ("exact", "float32")


def constants(frequencies: Frequencies, kind: str) -> dict[str, np.ndarray]:
    """What a scheme with fixed frequencies binds: `{"turns": ...}` when "exact", else `{"frequencies": ...}`."""
    if kind == "exact":
        return {"turns": turns(frequencies)}
    return {"frequencies": np.array(frequencies, np.float64).astype(np.float32)}


def of_constants(positions: jax.Array, arrays: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """cos and sin `[..., n]` of positions `[..., 1 or n]`, from what `constants` made."""
    if "turns" in arrays:
        return cos_sin(positions, arrays["turns"])
    return float32_cos_sin(positions, arrays["frequencies"])


def turns(frequencies: Frequencies) -> np.ndarray:
    """Frequencies as fixed point: uint32 `[2, n]`, high and low words of `2^64 f / (2 pi)` mod 2^64."""
    with localcontext(CONTEXT):
        words = [round(f / TAU * 2**64) % 2**64 for f in frequencies]
    return np.array([[w >> 32 for w in words], [w & 0xFFFFFFFF for w in words]], np.uint32)


def cos_sin(positions: jax.Array, words: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """`cos(positions * f)` and `sin(positions * f)`, float32 `[..., n]`, |error| < 1e-7 at every position.

    positions: int32 `[..., 1]`, or `[..., n]`, one for each frequency; or float32 for fractional positions: then every
            |f| must be at most pi, and positions outside int32 give NaN.
    words: uint32 `[2, n]` from `turns`.
    """
    if jnp.issubdtype(positions.dtype, jnp.floating):
        return _fractional_cos_sin(positions, words)
    return _cos_sin_of_phase(travelled(positions, words))


@jax.custom_jvp
def learned_cos_sin(positions: jax.Array, frequencies: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`cos` and `sin` of `positions * frequencies` for float32 frequencies `[n]` that may be traced or learned.

    Exact for the float32 frequencies given: the product is never rounded, and neither is the gradient's position.
    positions are as in `cos_sin`, with no limit to the frequencies; one that is not finite gives NaN.
    """
    words = turns_of_float32(frequencies)
    if jnp.issubdtype(positions.dtype, jnp.floating):
        # The words are of -1/2 ... 1/2 turn; whole turns count between whole positions.
        whole = jnp.round(frequencies * np.float32(1 / TAU) - _signed(words[0]).astype(jnp.float32) * 2.0**-32)
        found = _of_fractions(positions, words, whole.astype(jnp.int32))
    else:
        found = cos_sin(positions, words)
    return _known(found, frequencies)


@learned_cos_sin.defjvp
def _learned_cos_sin_jvp(primals, tangents):
    positions, frequencies = primals
    positions_dot, frequencies_dot = tangents
    cos, sin = learned_cos_sin(positions, frequencies)
    angle_dot = positions.astype(jnp.float32) * _per_frequency(frequencies_dot, cos)
    if jnp.issubdtype(positions.dtype, jnp.floating):
        angle_dot = angle_dot + positions_dot * _per_frequency(frequencies, cos)
    return (cos, sin), (-sin * angle_dot, cos * angle_dot)


@jax.custom_jvp
def summed_cos_sin(positions: jax.Array, frequencies: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`cos` and `sin` of `sum_a positions[..., a] * frequencies[a]`, float32 `[..., n]`, as `learned_cos_sin`.

    positions: int32 `[..., A]`. frequencies: float32 `[A, n]`, for which the sum is exact: nothing in it is rounded.
    """
    words = turns_of_float32(frequencies)
    axes = range(frequencies.shape[0])
    found = _cos_sin_of_phase(sum((travelled(positions[..., a, None], words[:, a]) for a in axes), jnp.int32(0)))
    return _known(found, jnp.sum(frequencies, axis=0))


def _known(found: tuple[jax.Array, jax.Array], frequencies: jax.Array) -> tuple[jax.Array, jax.Array]:
    """NaN where a frequency is no finite number: fixed point has none such."""
    cos, sin = found
    finite = _per_frequency(jnp.isfinite(frequencies), cos)
    return jnp.where(finite, cos, jnp.nan), jnp.where(finite, sin, jnp.nan)


@summed_cos_sin.defjvp
def _summed_cos_sin_jvp(primals, tangents):
    cos, sin = summed_cos_sin(*primals)
    angle_dot = jnp.einsum("...a,an->...n", primals[0].astype(jnp.float32), tangents[1], precision="highest")
    return (cos, sin), (-sin * angle_dot, cos * angle_dot)


def float32_cos_sin(positions: jax.Array, frequencies: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The usual rounded angle, for parity with models trained with it: `cos(float32(position) * frequency)`."""
    p = positions.astype(jnp.float32)
    angles = p * _per_frequency(frequencies, p)
    return jnp.cos(angles), jnp.sin(angles)


def turns_of_float32(frequencies: jax.Array) -> jax.Array:
    """`turns` of traced float32 frequencies `[n]`: uint32 `[2, n]`, every bit right (Payne and Hanek's reduction).

    A float32 is `m 2^e` with a 24-bit integer m, so its turns are m times the binary digits of 1 / (2 pi) that
    stand from digit e on. m times 96 of those digits gives the 64 that are kept.
    """
    bits = lax.bitcast_convert_type(frequencies, jnp.uint32)
    exponent = _signed((bits >> 23) & 0xFF)
    mantissa = jnp.where(exponent > 0, (bits & 0x7FFFFF) | 0x800000, 0)
    start = jnp.maximum(exponent - 150 + 32 * _LEADING_ZERO_WORDS, 0)
    shift = lax.bitcast_convert_type(start & 31, jnp.uint32)
    digits = jnp.asarray(_TURN_DIGITS)

    def word(k: int) -> jax.Array:
        first, second = digits[(start >> 5) + k], digits[(start >> 5) + k + 1]
        return jnp.where(shift == 0, first, (first << shift) | (second >> ((32 - shift) & 31)))

    low = mantissa * word(1)
    carried = low + _high_word(mantissa, word(2))
    high = mantissa * word(0) + _high_word(mantissa, word(1)) + (carried < low).astype(jnp.uint32)
    negative = (bits >> 31) != 0
    negated = ~high + (carried == 0).astype(jnp.uint32), ~carried + 1
    return jnp.stack([jnp.where(negative, negated[0], high), jnp.where(negative, negated[1], carried)])


_LEADING_ZERO_WORDS = 4  # frequencies below 2^-104 are zero
_TURN_DIGITS = np.array(
    [0] * _LEADING_ZERO_WORDS
    # 1 / (2 pi) in base 2^32
    + [0x28BE60DB, 0x9391054A, 0x7F09D5F4, 0x7D4D3770, 0x36D8A566, 0x4F10E410, 0x7F9458EA, 0xF7AEF158, 0x6DC91B8E],
    np.uint32,
)


def travelled(positions: jax.Array, words: jax.Array | np.ndarray) -> jax.Array:
    """Turns travelled, modulo one, in units of 2^-32 turn: int32 `[..., n]`, at most 2 units low."""
    p = positions.astype(jnp.int32)
    high, low = _per_frequency(_signed(words[0]), p), _per_frequency(words[1], p)
    return p * high + _signed_high_word(p, low)


def _per_frequency(values: jax.Array | np.ndarray, x: jax.Array) -> jax.Array:
    """`[n]` with as many axes as x has, to broadcast along the last."""
    return jnp.asarray(values).reshape(*[1] * (x.ndim - 1), -1)


def _signed(words: jax.Array | np.ndarray) -> jax.Array:
    return lax.bitcast_convert_type(jnp.asarray(words), jnp.int32)


@jax.custom_jvp
def _fractional_cos_sin(positions: jax.Array, words: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    return _of_fractions(positions, words, jnp.zeros(words.shape[-1], jnp.int32))


def _of_fractions(
    positions: jax.Array, words: jax.Array | np.ndarray, whole_turns: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """whole_turns: int32 `[n]`, of each frequency, beside the part of a turn that words have."""
    whole = jnp.floor(positions)
    parts = jnp.minimum((positions - whole) * 2.0**24, 2.0**24 - 1)  # -1e-9 is -1 + 1.0 in float32, and 1.0 would wrap
    fraction = parts.astype(jnp.uint32) << 8  # in units of 2^-32 position
    high = _per_frequency(_signed(words[0]), fraction)
    turned = _signed_high_word(high, fraction) + _per_frequency(whole_turns, fraction) * _signed(fraction)
    cos, sin = _cos_sin_of_phase(travelled(whole, words) + turned)
    inside = jnp.abs(positions) < 2.0**31
    return jnp.where(inside, cos, jnp.nan), jnp.where(inside, sin, jnp.nan)


@_fractional_cos_sin.defjvp
def _fractional_cos_sin_jvp(primals, tangents):
    positions, words = primals
    cos, sin = _fractional_cos_sin(positions, words)
    frequencies = _signed(words[0]).astype(jnp.float32) * np.float32(TAU / 2**32)
    angle_dot = tangents[0] * _per_frequency(frequencies, cos)
    return (cos, sin), (-sin * angle_dot, cos * angle_dot)


def _signed_high_word(a: jax.Array, b: jax.Array) -> jax.Array:
    """`floor(a * b / 2^32)` for int32 a and uint32 b, at most 2 low: the product of the low halves is dropped."""
    # Not `a & 0xFFFF`: of constants taken by index, XLA on CPU (jax 0.10.2 and 0.12.0.1) folds that to other numbers.
    a_high = a >> 16
    a_low = lax.bitcast_convert_type(a - (a_high << 16), jnp.uint32)
    b_high, b_low = b >> 16, _signed(b & 0xFFFF)
    return a_high * _signed(b_high) + ((a_high * b_low) >> 16) + _signed((a_low * b_high) >> 16)


def _high_word(a: jax.Array, b: jax.Array) -> jax.Array:
    """`floor(a * b / 2^32)` for uint32 a and b, exactly."""
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    crossed, other = a_low * b_high, a_high * b_low
    carry = ((a_low * b_low >> 16) + (crossed & 0xFFFF) + (other & 0xFFFF)) >> 16
    return a_high * b_high + (crossed >> 16) + (other >> 16) + carry


def _cos_sin_of_phase(phase: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin of `phase` units of 2^-32 turn (int32): fold to an eighth of a turn in integers, then polynomials."""
    shifted = phase + (1 << 29)  # bits 30 and 31 now number the quadrant, the others the place within it
    r = ((shifted & 0x3FFFFFFF) - (1 << 29)).astype(jnp.float32) * np.float32(2.0**-32)
    u = r * r
    s, c = jnp.float32(SIN[3]), jnp.float32(COS[3])
    s = (s * u + np.float32(SIN[2])) * u + np.float32(SIN[1])
    # SIN[0] in two parts: r * SIN[0] is most of the result, and its rounding most of the error.
    s = (s * u + np.float32(SIN[0] - float(np.float32(SIN[0])))) * r + r * np.float32(SIN[0])
    for k in (2, 1, 0):
        c = c * u + np.float32(COS[k])
    c = c * u + np.float32(1)
    odd = (shifted & (1 << 30)) != 0
    sign = np.int32(-(2**31))
    return _flip(jnp.where(odd, s, c), (shifted + (1 << 30)) & sign), _flip(jnp.where(odd, c, s), shifted & sign)


def _flip(x: jax.Array, sign: jax.Array) -> jax.Array:
    """`x` with its sign bit flipped where `sign` has it set: cheaper than two selects."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32) ^ sign, jnp.float32)
