"""Numba building blocks that LLVM does not find by itself: 64 bytes of an array at a time, prefetches, and additions to
what threads share.

A vector of 64 bytes is one register with AVX-512; on other processors LLVM splits the same operations.  All work on
flat arrays of one kind of integer, and write 64 bytes however much of it is wanted, so arrays need room at their end.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils as untyped_cgutils

from rpucluster.kernels.cpu_random import intrinsic, types

cgutils: Any = untyped_cgutils
_I32 = ir.IntType(32)


class _Vector:
    """Emits operations on 64 bytes of the arrays of a call."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.item = ir.IntType(signature.args[0].dtype.bitwidth)
        self.lanes = 512 // self.item.width
        self.type = ir.VectorType(self.item, self.lanes)
        self.undefined = ir.Constant(self.type, ir.Undefined)
        self._context, self._builder, self._types, self._args = context, builder, signature.args, args

    def constant(self, *values: int) -> Any:
        return ir.Constant(self.type, list(values) if len(values) > 1 else list(values) * self.lanes)

    def splat(self, value: Any) -> Any:
        one = self._builder.insert_element(self.undefined, value, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self._builder.shuffle_vector(one, self.undefined, zeros)

    def load(self, array: int, index: Any) -> Any:
        loaded = self._builder.load(self._address(array, index))
        loaded.align = self.item.width // 8
        return loaded

    def store(self, value: Any, array: int, index: Any) -> None:
        self._builder.store(value, self._address(array, index)).align = self.item.width // 8

    def _address(self, array: int, index: Any) -> Any:
        data = self._context.make_array(self._types[array])(self._context, self._builder, self._args[array]).data
        return self._builder.bitcast(self._builder.gep(data, [index]), self.type.as_pointer())


@intrinsic
def keep(typingctx: Any, out: Any, at: Any, values: Any, tests: Any, i: Any, bits: Any) -> Any:
    """Write to ``out[at]`` on those of 64 bytes of ``values[i]`` on whose ``tests`` have some of ``bits``; how many."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, at, _, _, i, bits = args
        vector = _Vector(context, builder, signature, args)
        lanes, tested = vector.lanes, builder.and_(vector.load(3, i), vector.splat(bits))
        kept = builder.icmp_unsigned("!=", tested, vector.constant(0))
        kind = ir.FunctionType(vector.type, [vector.type, kept.type, vector.type])
        name = f"llvm.experimental.vector.compress.v{lanes}i{vector.item.width}"
        compress = cgutils.get_or_insert_function(builder.module, kind, name)
        vector.store(builder.call(compress, [vector.load(2, i), kept, vector.undefined]), 0, at)
        return builder.zext(builder.ctpop(builder.bitcast(kept, ir.IntType(lanes))), ir.IntType(64))

    return types.int64(out, types.uint64, values, tests, types.uint64, out.dtype), emit


@intrinsic
def list_places(typingctx: Any, out: Any, at: Any, tests: Any, i: Any, bits: Any) -> Any:
    """As `keep`, but writes their indices, and ``tests`` may be of any shape, in C order."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, at, _, i, bits = args
        vector = _Vector(context, builder, signature, args)
        lanes, tested = vector.lanes, builder.and_(vector.load(2, i), vector.splat(bits))
        kept = builder.icmp_unsigned("!=", tested, vector.constant(0))
        kind = ir.FunctionType(vector.type, [vector.type, kept.type, vector.type])
        name = f"llvm.experimental.vector.compress.v{lanes}i{vector.item.width}"
        compress = cgutils.get_or_insert_function(builder.module, kind, name)
        places = builder.add(vector.splat(builder.trunc(i, vector.item)), vector.constant(*range(lanes)))
        vector.store(builder.call(compress, [places, kept, vector.undefined]), 0, at)
        return builder.zext(builder.ctpop(builder.bitcast(kept, ir.IntType(lanes))), ir.IntType(64))

    return types.int64(out, types.uint64, tests, types.uint64, out.dtype), emit


@intrinsic
def copy_flipped(typingctx: Any, out: Any, at: Any, values: Any, i: Any, bits: Any) -> Any:
    """Write to ``out[at]`` on 64 bytes of ``values[i]`` on with ``bits`` flipped."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, at, _, i, bits = args
        vector = _Vector(context, builder, signature, args)
        vector.store(builder.xor(vector.load(2, i), vector.splat(bits)), 0, at)
        return context.get_dummy_value()

    return types.void(out, types.uint64, values, types.uint64, out.dtype), emit


@intrinsic
def fill(typingctx: Any, out: Any, at: Any, value: Any, step: Any) -> Any:
    """Write to ``out[at]`` on 64 bytes of value, value + step, value + 2 step, ..."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, at, value, step = args
        vector = _Vector(context, builder, signature, args)
        ramp = builder.mul(vector.splat(step), vector.constant(*range(vector.lanes)))
        vector.store(builder.add(vector.splat(value), ramp), 0, at)
        return context.get_dummy_value()

    return types.void(out, types.uint64, out.dtype, out.dtype), emit


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an element of a flat array that will soon be changed."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        for_write, keep, data_cache = ir.Constant(i32, 1), ir.Constant(i32, 3), ir.Constant(i32, 1)
        builder.call(call, [address, for_write, keep, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.uint64), emit


@intrinsic
def add_shared(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to an element of an int64 array, by its place in C order, that threads share; returns what it was."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.uint64, types.int64), emit
