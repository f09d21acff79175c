"""Eight or sixteen float32 numbers as one value of compiled code, for loops that LLVM does not turn into good SIMD
by itself.

A vector lives in a register (or in two, where the processor's have four numbers).  ``multiply_add`` rounds once on
every processor: it is the machine's instruction where there is one.  Vectors are read and written through pointers,
which, unlike arrays, cost nothing to hand to a function; nothing checks bounds, and an array must outlive its pointer.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as untyped_llvm
from llvmlite import ir
from numba.core import cgutils
from numba.extending import models, register_model

from rpucluster.kernels.cpu_random import intrinsic, types

llvm: Any = untyped_llvm
LANES = 8
HAS_SIXTEEN: bool = llvm.get_host_cpu_features().get("avx512f", False)
"""Whether registers hold sixteen floats: else loops that need that many run short of registers."""
_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _TWICE = ir.VectorType(_FLOAT, LANES), ir.VectorType(_FLOAT, 2 * LANES)
_BASE: Any = types.Type
_MODEL: Any = models.PrimitiveModel
_register: Callable[[Any], Callable[[Any], Any]] = register_model
_declared: Callable[..., Any] = cgutils.get_or_insert_function


class _VectorType(_BASE):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="float32x8")


class _TwiceType(_BASE):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="float32x16")


_vector, _twice = _VectorType(), _TwiceType()


@_register(_VectorType)
class _VectorModel(_MODEL):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@_register(_TwiceType)
class _TwiceModel(_MODEL):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _TWICE)


def _everywhere(builder: Any, value: Any, kind: Any, lanes: int = LANES) -> Any:
    """A vector of so many times the same value."""
    vector = ir.VectorType(kind, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _first_lanes(builder: Any, count: Any) -> Any:
    """A mask of the first ``count`` lanes."""
    lanes = ir.Constant(ir.VectorType(_I64, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, _everywhere(builder, count, _I64))


def _masked(builder: Any, verb: str, returns: Any, arguments: list[Any]) -> Any:
    name = f"llvm.masked.{verb}.v{LANES}f32.p0"
    kind = ir.FunctionType(returns, [argument.type for argument in arguments])
    return builder.call(_declared(builder.module, kind, name), arguments)


_floats = types.CPointer(types.float32)


@intrinsic
def pointer(typingctx: Any, array: Any) -> Any:
    """Where a flat float32 array begins."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return _floats(array), emit


@intrinsic
def load(typingctx: Any, floats: Any, start: Any) -> Any:
    """Elements start to start + 8."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        return builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4)

    return _vector(_floats, types.int64), emit


@intrinsic
def load_first(typingctx: Any, floats: Any, start: Any, count: Any) -> Any:
    """As `load`, of ``count`` elements only, with zeros behind them."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), _VECTOR.as_pointer())
        zeros = ir.Constant(_VECTOR, [0.0] * LANES)
        return _masked(builder, "load", _VECTOR, [place, ir.Constant(_I32, 4), _first_lanes(builder, args[2]), zeros])

    return _vector(_floats, types.int64, types.int64), emit


@intrinsic
def store(typingctx: Any, floats: Any, start: Any, value: Any) -> Any:
    """Write elements start to start + 8."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        builder.store(args[2], builder.bitcast(place, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(_floats, types.int64, _vector), emit


@intrinsic
def store_first(typingctx: Any, floats: Any, start: Any, value: Any, count: Any) -> Any:
    """As `store`, of the first ``count`` elements only."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(builder.gep(args[0], [args[1]]), _VECTOR.as_pointer())
        alignment, mask = ir.Constant(_I32, 4), _first_lanes(builder, args[3])
        _masked(builder, "store", ir.VoidType(), [args[2], place, alignment, mask])
        return context.get_dummy_value()

    return types.void(_floats, types.int64, _vector, types.int64), emit


@intrinsic
def spread(typingctx: Any, floats: Any, index: Any) -> Any:
    """One element, eight times."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _everywhere(builder, builder.load(builder.gep(args[0], [args[1]])), _FLOAT)

    return _vector(_floats, types.int64), emit


@intrinsic
def zeros(typingctx: Any) -> Any:
    """Eight times 0."""
    return _vector(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0.0] * LANES)


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    vector = _TWICE if a == _twice else _VECTOR

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(vector, [vector] * 3)
        return builder.call(_declared(builder.module, kind, f"llvm.fma.v{vector.count}f32"), args)

    return a(a, a, a), emit


def _put_totals(builder: Any, vectors: Any, floats: Any, start: Any, first: Any) -> None:
    def pick(x: Any, y: Any, lanes: list[int]) -> Any:
        return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, 4), lanes))

    halves = [builder.fadd(pick(x, x, [0, 1, 2, 3]), pick(x, x, [4, 5, 6, 7])) for x in vectors]
    pairs = [builder.fadd(pick(x, y, [0, 4, 1, 5]), pick(x, y, [2, 6, 3, 7])) for x, y in (halves[:2], halves[2:])]
    sums = builder.fadd(pick(pairs[0], pairs[1], [0, 1, 4, 5]), pick(pairs[0], pairs[1], [2, 3, 6, 7]))
    place = builder.gep(floats, [start])
    place = builder.bitcast(place, ir.VectorType(_FLOAT, 4).as_pointer())
    added = builder.fadd(builder.load(place, align=4), sums)
    builder.store(builder.select(builder.trunc(first, ir.IntType(1)), sums, added), place, align=4)


@intrinsic
def put_totals(typingctx: Any, floats: Any, start: Any, first: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Sums of the lanes of four vectors: written to, or unless ``first`` added to, four elements from ``start`` on.

    Lanes 4 apart are added, then those 2 apart, then the last two; four vectors at a time save half of the shuffles.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _put_totals(builder, args[3:], *args[:3])
        return context.get_dummy_value()

    return types.void(floats, types.int64, types.boolean, a, a, a, a), emit


@intrinsic
def put_totals_twice(
    typingctx: Any, floats: Any, start: Any, other: Any, first: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:
    """As `put_totals` of the first eight lanes at ``start`` and of the last eight at ``other``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for place, lanes in ((args[1], range(LANES)), (args[2], range(LANES, 2 * LANES))):
            mask = ir.Constant(ir.VectorType(_I32, LANES), list(lanes))
            halves = [builder.shuffle_vector(vector, vector, mask) for vector in args[4:]]
            _put_totals(builder, halves, args[0], place, args[3])
        return context.get_dummy_value()

    return types.void(floats, types.int64, types.int64, types.boolean, a, a, a, a), emit


def _both(builder: Any, vector: Any) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, 2 * LANES), [*range(LANES), *range(LANES)])
    return builder.shuffle_vector(vector, vector, mask)


@intrinsic
def load_twice(typingctx: Any, floats: Any, start: Any) -> Any:
    """Elements start to start + 8, and the same again."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        return _both(builder, builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4))

    return _twice(floats, types.int64), emit


@intrinsic
def twice(typingctx: Any, vector: Any) -> Any:
    """A vector of eight, and the same again."""
    return _twice(vector), lambda context, builder, signature, args: _both(builder, args[0])


@intrinsic
def load_sixteen(typingctx: Any, floats: Any, start: Any) -> Any:
    """Elements start to start + 16."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        return builder.load(builder.bitcast(place, _TWICE.as_pointer()), align=4)

    return _twice(floats, types.int64), emit


@intrinsic
def store_sixteen(typingctx: Any, floats: Any, start: Any, value: Any) -> Any:
    """Write elements start to start + 16."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        builder.store(args[2], builder.bitcast(place, _TWICE.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int64, value), emit


@intrinsic
def spread_sixteen(typingctx: Any, floats: Any, index: Any) -> Any:
    """One element, sixteen times."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _everywhere(builder, builder.load(builder.gep(args[0], [args[1]])), _FLOAT, 2 * LANES)

    return _twice(floats, types.int64), emit


@intrinsic
def zeros_sixteen(typingctx: Any) -> Any:
    """Sixteen times 0."""
    return _twice(), lambda context, builder, signature, args: ir.Constant(_TWICE, [0.0] * 2 * LANES)
