"""Probabilities of lines and their pulse trains, a register at a time on the CPU, as Numba building blocks."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils as untyped_cgutils

from rpucluster.kernels.cpu_random import eight_blocks, intrinsic, types
from rpucluster.kernels.cpu_wide import F32, FLOATS, I16, I32, I64, INTS, SIGN_BIT, WORDS, Arrays, Lanes

cgutils: Any = untyped_cgutils
_HALF_INTS, _HALF_FLOATS = ir.VectorType(I32, 8), ir.VectorType(F32, 8)
_DOUBLES = ir.VectorType(ir.DoubleType(), 8)


def _call(builder: Any, name: str, returns: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(returns, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def list_sixteen(
    typingctx: Any, values: Any, first: Any, count: Any, gain: Any, lines: Any, chances: Any, to: Any
) -> Any:
    """Of sixteen values from ``first`` on, or ``count`` of them, list the lines that can fire, from ``to`` on.

    Writes their numbers and min(|value| gain, 1) with the sign of the value; returns how many they are.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = Arrays(context, builder, signature, args)
        numbers = Lanes(builder, ir.Constant(INTS, list(range(16))))
        present = numbers < arrays.splat(builder.trunc(args[2], I32))
        none = ir.Constant(FLOATS, [0.0] * 16)
        place = builder.bitcast(builder.gep(arrays.data(0), [args[1]]), FLOATS.as_pointer())
        loaded = _call(builder, "llvm.masked.load.v16f32.p0", FLOATS, place, ir.Constant(I32, 4), present.value, none)
        value = Lanes(builder, loaded)
        one = Lanes(builder, ir.Constant(FLOATS, [1.0] * 16))
        # of a line at 0 nothing else matters, since 0 times an infinite gain is no number
        chance = (value.size() > 0.0).choose((value.size() * arrays.splat(args[3])).at_most(one), value.size())
        kept = (chance > 0.0).value
        signed = (chance.as_ints() | (value.as_ints() & SIGN_BIT)).as_floats()
        line = numbers + arrays.splat(builder.trunc(args[1], I32))
        for array, found, name in ((4, line, "i32"), (5, signed, "f32")):
            undefined = ir.Constant(found.type, ir.Undefined)
            compress = f"llvm.experimental.vector.compress.v16{name}"
            listed = _call(builder, compress, found.type, found.value, kept, undefined)
            arrays.store(Lanes(builder, listed), array, args[6])
        return builder.zext(builder.ctpop(builder.bitcast(kept, I16)), I64)

    return types.int64(values, types.uint64, types.int64, types.float32, lines, chances, types.uint64), emit


@intrinsic
def fire_eight(
    typingctx: Any, words: Any, lines: Any, chances: Any, at: Any, block: Any, low: Any, high: Any, k0: Any, k1: Any,
    sums: Any,
) -> Any:  # fmt: skip
    """Slots 4 block to 4 block + 3 of the trains of eight listed lines, which start with block 0.

    A slot fires if its word is below the line's limit; block 0 adds the limits to uint64 ``sums`` (8,).
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = Arrays(context, builder, signature, args)
        at, block = args[3], args[4]
        line = Lanes(builder, builder.zext(arrays.load(1, at, _HALF_INTS).value, WORDS))
        signed = arrays.load(2, at, _HALF_FLOATS).value
        wide = builder.fpext(_call(builder, "llvm.fabs.v8f32", _HALF_FLOATS, signed), _DOUBLES)
        scaled = builder.fmul(wide, ir.Constant(_DOUBLES, [2.0**32] * 8))
        limit = Lanes(builder, builder.fptosi(_call(builder, "llvm.ceil.v8f64", _DOUBLES, scaled), WORDS))
        zero = Lanes(builder, ir.Constant(WORDS, [0] * 8))
        counter = [(line << 3) + arrays.splat(block, 8), arrays.splat(args[5], 8), arrays.splat(args[6], 8), zero]
        drawn = eight_blocks(builder, counter, [arrays.splat(key, 8) for key in args[7:9]])
        fired = zero
        for slot, word in enumerate(drawn):
            one = Lanes(builder, ir.Constant(WORDS, [1 << slot] * 8))
            fired = fired | ((word & 0xFFFFFFFF) < limit).choose(one, zero)
        shift = arrays.splat(builder.shl(block, ir.Constant(I64, 2)), 8)
        slots = builder.trunc(builder.shl(fired.value, shift.value), _HALF_INTS)
        slots = builder.and_(slots, ir.Constant(_HALF_INTS, [~SIGN_BIT] * 8))  # a 32nd slot of block 7 is none
        sign = builder.and_(builder.bitcast(signed, _HALF_INTS), ir.Constant(_HALF_INTS, [SIGN_BIT] * 8))
        starts = builder.icmp_unsigned("==", block, ir.Constant(I64, 0))
        before = builder.select(starts, sign, arrays.load(0, at, _HALF_INTS).value)
        arrays.store(Lanes(builder, builder.or_(before, slots)), 0, at)
        counted = builder.select(starts, limit.value, zero.value)
        none = ir.Constant(I64, 0)
        arrays.store(arrays.load(9, none, WORDS) + Lanes(builder, counted), 9, none)
        return context.get_dummy_value()

    wide = types.uint64
    return types.void(words, lines, chances, wide, wide, wide, wide, wide, wide, sums), emit
