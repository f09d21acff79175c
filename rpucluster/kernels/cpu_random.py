"""Numba building blocks of the CPU kernels: Philox words and normals with the bits of `rpucluster.rng`.

LLVM turns a loop over Philox blocks into SIMD code only if the loop body is straight arithmetic on 64-bit lanes:
the rounds are therefore emitted as instructions, words travel as uint64 whose upper halves may hold rubbish
between rounds, and each multiplication masks its operand, which makes it one 32 x 32 -> 64 bit instruction.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending

from rpucluster import rng
from rpucluster.kernels.cpu_wide import EVEN, SIGN_BIT, WORDS, Arrays, Lanes

Compiled = Callable[..., Any]
intrinsic: Callable[[Compiled], Any] = extending.intrinsic  # what it makes is called without the first argument
types: Any = numba.types


_CONSTANTS = ("rng", "elementary", "layers")
"""Modules outside of this folder whose numbers compiled code contains."""


def _newest_source() -> tuple[float, int]:
    """Time and size of the newest of the files whose code ends up in a compiled kernel."""
    folder = Path(__file__).parent
    stats = [path.stat() for path in (*folder.glob("*.py"), *(folder.parent / f"{name}.py" for name in _CONSTANTS))]
    return max(stat.st_mtime for stat in stats), sum(stat.st_size for stat in stats)


def compiled(function: Compiled, fastmath: set[str] | bool = False, counted: bool = True) -> Compiled:
    """Compile a function: without the interpreter lock, kept on disk, no floating-point liberties by default.

    Numba notices only changes of the file that a kernel stands in, but a kernel contains code of several; so the
    stored kernel carries the stamp of them all.  ``counted``: see `borrowing`.
    """
    options = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": counted}
    compile_it: Any = numba.njit
    dispatcher = compile_it(fastmath=fastmath, **options)(function)
    store = getattr(dispatcher._cache, "_cache_file", None)
    if store is not None:
        store._source_stamp = _newest_source()
    result: Compiled = dispatcher
    return result


def borrowing(function: Compiled) -> Compiled:
    """Compile a function that makes no arrays, and so need not count references to those that it is given.

    Counting is atomic: a few arrays passed on or taken out of a tuple cost as much as fifty hits.
    """
    return compiled(function, counted=False)


inlined: Callable[[Compiled], Compiled] = numba.njit(inline="always", error_model="numpy")


def philox_rounds(builder: Any, c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> list[Any]:
    """Emit the rounds of a block, or of as many as a vector has lanes; upper halves do not matter and may come out
    with anything."""

    def constant(value: int) -> Any:
        wide = isinstance(c0.type, ir.VectorType)
        return ir.Constant(c0.type, [value] * c0.type.count if wide else value)

    mask, shift = constant(0xFFFFFFFF), constant(32)
    for r in range(rng.ROUNDS):
        product0 = builder.mul(builder.and_(c0, mask), constant(rng.MULTIPLIERS[0]))
        product1 = builder.mul(builder.and_(c2, mask), constant(rng.MULTIPLIERS[1]))
        key0, key1 = (builder.add(k, constant(r * s)) for k, s in zip((k0, k1), rng.KEY_STEPS, strict=True))
        c0 = builder.xor(builder.xor(builder.lshr(product1, shift), c1), key0)
        c2 = builder.xor(builder.xor(builder.lshr(product0, shift), c3), key1)
        c1, c3 = product1, product0
    return [c0, c1, c2, c3]


@intrinsic
def philox(typingctx: Any, c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """The four words of a Philox4x32-10 block, each a clean 32-bit number in a uint64.

    Arguments are uint64 whose upper halves do not matter.
    """
    wide = types.uint64

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = ir.Constant(ir.IntType(64), 0xFFFFFFFF)
        words = [builder.and_(word, mask) for word in philox_rounds(builder, *args)]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(wide, 4)(wide, wide, wide, wide, wide, wide), emit


@intrinsic
def float_bits(typingctx: Any, value: Any) -> Any:
    """The bits of a float32 as int32."""
    return types.int32(types.float32), _bitcast(ir.IntType(32))


@intrinsic
def bits_float(typingctx: Any, value: Any) -> Any:
    """The float32 with the bits of an int32."""
    return types.float32(types.int32), _bitcast(ir.FloatType())


@intrinsic
def popcount(typingctx: Any, value: Any) -> Any:
    """How many bits of a uint32 are set."""
    return types.uint32(types.uint32), lambda context, builder, signature, args: builder.ctpop(args[0])


@intrinsic
def lowest_bit(typingctx: Any, value: Any) -> Any:
    """Index of the lowest set bit of a uint64 that is not 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), emit


@intrinsic
def round_even(typingctx: Any, value: Any) -> Any:
    """A float32 rounded to a whole number, halves to the even one."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()]), args)

    return types.float32(types.float32), emit


def _bitcast(target: Any) -> Callable[[Any, Any, Any, Any], Any]:
    return lambda context, builder, signature, args: builder.bitcast(args[0], target)


_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_UNIT = np.float32(rng.EIGHTH_TURN)
_LN2_HIGH, _LN2_LOW = np.float32(rng.LN2_HIGH), np.float32(rng.LN2_LOW)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = (np.float32(c) for c in rng.LOG)
_S0, _S1, _S2 = (np.float32(c) for c in rng.SIN)
_C0, _C1, _C2 = (np.float32(c) for c in rng.COS)
_SQRT_HALF_BITS = np.int32(rng.SQRT_HALF_BITS)
_23, _2, _8, _30 = np.int32(23), np.int32(2), np.int32(8), np.int32(30)
_MASK = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@inlined
def normal_pair(radius_word: Any, angle_word: Any) -> Any:
    """Two float32 normals from two uint64 words: the operations of ``rng``'s Box-Muller in the same order."""
    scaled = np.float32(np.int32(radius_word >> np.uint64(9))) + _HALF
    bits = float_bits(scaled)
    exponent = np.int32((bits - _SQRT_HALF_BITS) >> _23)
    f = bits_float(np.int32(bits - np.int32(exponent << _23))) - _ONE
    e = np.float32(np.int32(exponent - _23))
    f2 = f * f
    p = ((((((_L7 * f + _L6) * f + _L5) * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0
    tail = (f2 * f) * p - _HALF * f2 + e * _LN2_LOW
    log = e * _LN2_HIGH + (f + tail)
    radius = np.float32(np.sqrt(log * -_TWO))
    turn = np.int32(angle_word)
    position = np.int32(np.int32(turn << _2) >> _8)
    a = (np.float32(position) + _HALF) * _UNIT
    t = a * a
    sine = a + (a * t) * ((_S2 * t + _S1) * t + _S0)
    cosine = (_ONE - _HALF * t) + (t * t) * ((_C2 * t + _C1) * t + _C0)
    quarter = np.int32(turn >> _30) & np.int32(3)
    odd = (quarter & np.int32(1)) == 1
    x = sine if odd else cosine
    y = cosine if odd else sine
    x = -x if (quarter == 1) | (quarter == 2) else x
    y = -y if quarter >= 2 else y
    return radius * x, radius * y


def eight_normals(words: list[Lanes]) -> tuple[Lanes, Lanes]:
    """Normals 0 and 1 of eight blocks of words, then 2 and 3 of them: ``rng``'s Box-Muller in the same order."""
    w0, w1, w2, w3 = (word.as_ints() for word in words)
    radius_word, turn = w0.picked(w2, EVEN), w1.picked(w3, EVEN)
    scaled = radius_word.unsigned_shift(9).to_floats() + 0.5
    bits = scaled.as_ints()
    exponent = (bits - rng.SQRT_HALF_BITS) >> 23
    f = (bits - (exponent << 23)).as_floats() + -1.0
    e = (exponent - 23).to_floats()
    f2 = f * f
    p = f * rng.LOG[-1]
    for coefficient in rng.LOG[-2:0:-1]:
        p = (p + coefficient) * f
    p = p + rng.LOG[0]
    tail = f2 * f * p - f2 * 0.5 + e * rng.LN2_LOW
    log = e * rng.LN2_HIGH + (f + tail)
    radius = (log * -2.0).root()
    a = (((turn << 2) >> 8).to_floats() + 0.5) * rng.EIGHTH_TURN
    t = a * a
    sine = a + a * t * ((t * rng.SIN[2] + rng.SIN[1]) * t + rng.SIN[0])
    cosine = (t * -0.5 + 1.0) + t * t * ((t * rng.COS[2] + rng.COS[1]) * t + rng.COS[0])
    odd = (turn & 0x40000000) > 0
    x = odd.choose(sine, cosine).as_ints() ^ (
        (turn ^ (turn << 1)) & SIGN_BIT
    )  # negative in the second and third quarter
    y = odd.choose(cosine, sine).as_ints() ^ (turn & SIGN_BIT)
    return radius * x.as_floats(), radius * y.as_floats()


def _store_normals(arrays: Arrays, words: list[Lanes], out: int, at: Any) -> None:
    x, y = eight_normals(words)
    for half in (0, 1):
        blocks = range(4 * half, 4 * half + 4)
        arrays.store(x.picked(y, [lane for i in blocks for lane in (i, 16 + i, 8 + i, 24 + i)]), out, at, 16 * half)


def eight_blocks(builder: Any, counter: list[Lanes], key: list[Lanes]) -> list[Lanes]:
    return [Lanes(builder, w) for w in philox_rounds(builder, *(part.value for part in (*counter, *key)))]


@intrinsic
def _listed(typingctx: Any, out: Any, at: Any, places: Any, samples: Any, keys: Any, first: Any) -> Any:
    """Normals of eight listed blocks, from ``first`` on, to ``out[at]`` on: see `cpu_random.listed_normals`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = Arrays(context, builder, signature, args)
        place, sample, key = (arrays.load(array, args[5], WORDS) for array in (2, 3, 4))
        counter = [place, sample, sample.unsigned_shift(32), place.unsigned_shift(32)]
        _store_normals(arrays, eight_blocks(builder, counter, [key, key.unsigned_shift(32)]), 0, args[1])
        return context.get_dummy_value()

    return types.void(out, types.uint64, places, samples, keys, types.uint64), emit


@intrinsic
def _consecutive(
    typingctx: Any, out: Any, at: Any, block: Any, low: Any, high: Any, round: Any, k0: Any, k1: Any
) -> Any:
    """Normals of eight blocks from ``block`` on, which share the rest of their counter, to ``out[at]`` on."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = Arrays(context, builder, signature, args)
        block, low, high, round, k0, k1 = (arrays.splat(arg, 8) for arg in args[2:])
        blocks = block + Lanes(builder, ir.Constant(WORDS, list(range(8))))
        _store_normals(arrays, eight_blocks(builder, [blocks, low, high, round], [k0, k1]), 0, args[1])
        return context.get_dummy_value()

    wide = types.uint64
    return types.void(out, wide, wide, wide, wide, wide, wide, wide), emit


@borrowing
def fill_normals(out: Any, first_block: int, blocks: int, k0: Any, k1: Any, sample: int, round: int) -> None:
    """Normals of consecutive blocks of one (sample, round) into the flat float32 ``out``.

    Blocks are made eight at a time, so ``out`` needs room for a multiple of 32 numbers.
    """
    low, high, r = np.uint64(sample) & _MASK, np.uint64(sample) >> _32, np.uint64(round)
    key0, key1, start = np.uint64(k0), np.uint64(k1), np.uint64(first_block)
    for i in range(0, blocks, 8):
        _consecutive(out, np.uint64(4 * i), start + np.uint64(i), low, high, r, key0, key1)


@borrowing
def listed_normals(out: Any, places: Any, samples: Any, keys: Any, first: int, blocks: int) -> None:
    """As `fill_normals`, but for listed blocks: uint64 arrays of index and round, of sample and of the two key words.

    Of two words that share a number the first is the lower half.
    """
    start = np.uint64(first)
    for i in range(0, blocks, 8):
        _listed(out, np.uint64(4 * i), places, samples, keys, start + np.uint64(i))
