"""Eight float32 numbers as one value of compiled code, for loops that LLVM does not turn into good SIMD by itself.

A vector lives in a register (or in two, where the processor's have four numbers).  ``multiply_add`` rounds once on
every processor: it is the machine's instruction where there is one.  Reading and writing checks no bounds.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import models, register_model

from rpucluster.kernels.cpu_random import intrinsic, types

LANES = 8
_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_BASE: Any = types.Type
_MODEL: Any = models.PrimitiveModel
_register: Callable[[Any], Callable[[Any], Any]] = register_model
_declared: Callable[..., Any] = cgutils.get_or_insert_function


class _VectorType(_BASE):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="float32x8")


_vector = _VectorType()


@_register(_VectorType)
class _VectorModel(_MODEL):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


def _everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of LANES times the same value."""
    vector = ir.VectorType(kind, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _first_lanes(builder: Any, count: Any) -> Any:
    """A mask of the first ``count`` lanes."""
    lanes = ir.Constant(ir.VectorType(_I64, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, _everywhere(builder, count, _I64))


def _masked(builder: Any, verb: str, returns: Any, arguments: list[Any]) -> Any:
    name = f"llvm.masked.{verb}.v{LANES}f32.p0"
    kind = ir.FunctionType(returns, [argument.type for argument in arguments])
    return builder.call(_declared(builder.module, kind, name), arguments)


@intrinsic
def load(typingctx: Any, array: Any, start: Any) -> Any:
    """Elements start to start + 8 of a flat float32 array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args)
        return builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4)

    return _vector(array, types.int64), emit


@intrinsic
def load_first(typingctx: Any, array: Any, start: Any, count: Any) -> Any:
    """As `load`, of ``count`` elements only, with zeros behind them."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(_place(context, builder, signature.args[0], *args[:2]), _VECTOR.as_pointer())
        zeros = ir.Constant(_VECTOR, [0.0] * LANES)
        return _masked(builder, "load", _VECTOR, [place, ir.Constant(_I32, 4), _first_lanes(builder, args[2]), zeros])

    return _vector(array, types.int64, types.int64), emit


@intrinsic
def store(typingctx: Any, array: Any, start: Any, value: Any) -> Any:
    """Write elements start to start + 8 of a flat float32 array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], builder.bitcast(place, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, _vector), emit


@intrinsic
def store_first(typingctx: Any, array: Any, start: Any, value: Any, count: Any) -> Any:
    """As `store`, of the first ``count`` elements only."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(_place(context, builder, signature.args[0], *args[:2]), _VECTOR.as_pointer())
        alignment, mask = ir.Constant(_I32, 4), _first_lanes(builder, args[3])
        _masked(builder, "store", ir.VoidType(), [args[2], place, alignment, mask])
        return context.get_dummy_value()

    return types.void(array, types.int64, _vector, types.int64), emit


@intrinsic
def spread(typingctx: Any, array: Any, index: Any) -> Any:
    """One element of a flat float32 array, eight times."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _everywhere(builder, builder.load(_place(context, builder, signature.args[0], *args)), _FLOAT)

    return _vector(array, types.int64), emit


@intrinsic
def zeros(typingctx: Any) -> Any:
    """Eight times 0."""
    return _vector(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0.0] * LANES)


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        return builder.call(_declared(builder.module, kind, f"llvm.fma.v{LANES}f32"), args)

    return _vector(_vector, _vector, _vector), emit


@intrinsic
def total(typingctx: Any, value: Any) -> Any:
    """Sum of the lanes as float32: halves are added until one number is left."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, lanes = args[0], LANES
        while lanes > 1:
            half = lanes // 2
            kind = ir.VectorType(_I32, half)
            low, high = (ir.Constant(kind, list(range(s, s + half))) for s in (0, half))
            value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
            lanes = half
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return types.float32(_vector), emit
