"""Expressions on vectors of 64 bytes, from which Numba building blocks emit their instructions.

LLVM takes vectors of half that length by itself, and mixes words and floats badly.  Each lane is computed on its own
with one rounding per written operation, so that results are those of a loop.  Where registers are shorter, LLVM splits
the vectors.  Nothing checks bounds.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils as untyped_cgutils

cgutils: Any = untyped_cgutils
I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
WORDS, INTS, FLOATS = ir.VectorType(I64, 8), ir.VectorType(I32, 16), ir.VectorType(F32, 16)
EVEN = list(range(0, 32, 2))
"""Lanes of two vectors of ints that are the lower halves of words."""
ODD = [lane + 1 for lane in EVEN]
SIGN_BIT = -(1 << 31)


class Lanes:
    """A vector as a value of an expression; numbers beside it stand for a vector of them."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value, self.type = builder, value, value.type

    def __add__(self, other: Any) -> "Lanes":
        return self._with("add", other)

    def __sub__(self, other: Any) -> "Lanes":
        return self._with("sub", other)

    def __mul__(self, other: Any) -> "Lanes":
        return self._with("mul", other)

    def __and__(self, other: Any) -> "Lanes":
        return Lanes(self.builder, self.builder.and_(self.value, self._same(other)))

    def __or__(self, other: Any) -> "Lanes":
        return Lanes(self.builder, self.builder.or_(self.value, self._same(other)))

    def __xor__(self, other: Any) -> "Lanes":
        return Lanes(self.builder, self.builder.xor(self.value, self._same(other)))

    def __lshift__(self, bits: int) -> "Lanes":
        return Lanes(self.builder, self.builder.shl(self.value, self._same(bits)))

    def __rshift__(self, bits: int) -> "Lanes":
        """Keeps the sign."""
        return Lanes(self.builder, self.builder.ashr(self.value, self._same(bits)))

    def unsigned_shift(self, bits: int) -> "Lanes":
        return Lanes(self.builder, self.builder.lshr(self.value, self._same(bits)))

    def __gt__(self, other: Any) -> "Lanes":
        return self._compare(">", other)

    def __lt__(self, other: Any) -> "Lanes":
        return self._compare("<", other)

    def choose(self, yes: "Lanes", no: "Lanes") -> "Lanes":
        """Where this holds ``yes``, elsewhere ``no``."""
        return Lanes(self.builder, self.builder.select(self.value, yes.value, no.value))

    def at_least(self, bound: "Lanes") -> "Lanes":
        return (bound > self).choose(bound, self)

    def at_most(self, bound: "Lanes") -> "Lanes":
        return (bound < self).choose(bound, self)

    def as_floats(self) -> "Lanes":
        """The bits as float32."""
        return Lanes(self.builder, self.builder.bitcast(self.value, FLOATS))

    def as_ints(self) -> "Lanes":
        """The bits as 32-bit integers."""
        return Lanes(self.builder, self.builder.bitcast(self.value, INTS))

    def as_words(self) -> "Lanes":
        """Pairs of 32-bit integers as 64-bit words, the first lower."""
        return Lanes(self.builder, self.builder.bitcast(self.value, WORDS))

    def to_floats(self) -> "Lanes":
        """The integers as float32 numbers."""
        return Lanes(self.builder, self.builder.sitofp(self.value, FLOATS))

    def rounded(self) -> "Lanes":
        """To 32-bit integers, halves to the even one."""
        return Lanes(self.builder, self.builder.fptosi(self._called("rint").value, INTS))

    def root(self) -> "Lanes":
        return self._called("sqrt")

    def size(self) -> "Lanes":
        return self._called("fabs")

    def picked(self, other: "Lanes", lanes: list[int]) -> "Lanes":
        """Lanes of this and, counted on, of another vector."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
        return Lanes(self.builder, self.builder.shuffle_vector(self.value, other.value, mask))

    def _called(self, name: str) -> "Lanes":
        kind = ir.FunctionType(FLOATS, [FLOATS])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v16f32")
        return Lanes(self.builder, self.builder.call(function, [self.value]))

    def _with(self, verb: str, other: Any) -> "Lanes":
        prefix = "f" if self.type == FLOATS else ""
        return Lanes(self.builder, getattr(self.builder, prefix + verb)(self.value, self._same(other)))

    def _compare(self, sign: str, other: Any) -> "Lanes":
        compare = self.builder.fcmp_ordered if self.type == FLOATS else self.builder.icmp_signed
        return Lanes(self.builder, compare(sign, self.value, self._same(other)))

    def _same(self, other: Any) -> Any:
        if isinstance(other, Lanes):
            return other.value
        return ir.Constant(self.type, [other] * self.type.count)


class Arrays:
    """Reads and writes 64 bytes of the flat arrays that a call is given, and numbers everywhere."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self._context, self._builder, self._types, self._args = context, builder, signature.args, args

    def data(self, array: int) -> Any:
        return self._context.make_array(self._types[array])(self._context, self._builder, self._args[array]).data

    def load(self, array: int, at: Any, kind: Any, further: int = 0) -> Lanes:
        loaded = self._builder.load(self._place(array, at, kind, further))
        loaded.align = kind.element.width // 8 if isinstance(kind.element, ir.IntType) else 4
        return Lanes(self._builder, loaded)

    def store(self, value: Lanes, array: int, at: Any, further: int = 0) -> None:
        place = self._place(array, at, value.type, further)
        self._builder.store(value.value, place).align = 4

    def store_first(self, value: Lanes, array: int, at: Any, count: Any) -> None:
        """Write only the first ``count`` lanes."""
        lanes, place = value.type.count, self._place(array, at, value.type, 0)
        numbers = Lanes(self._builder, ir.Constant(ir.VectorType(I64, lanes), list(range(lanes))))
        mask = (numbers < self.splat(count, lanes)).value
        arguments = [value.value, place, ir.Constant(I32, 4), mask]
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        name = f"llvm.masked.store.v{lanes}i{value.type.element.width}.p0"
        self._builder.call(cgutils.get_or_insert_function(self._builder.module, kind, name), arguments)

    def number(self, array: int, at: int) -> Lanes:
        """One element, everywhere."""
        return self.splat(self._builder.load(self._builder.gep(self.data(array), [ir.Constant(I64, at)])))

    def splat(self, value: Any, lanes: int = 16) -> Lanes:
        undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
        one = self._builder.insert_element(undefined, value, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return Lanes(self._builder, self._builder.shuffle_vector(one, undefined, zeros))

    def _place(self, array: int, at: Any, kind: Any, further: int) -> Any:
        index = self._builder.add(at, ir.Constant(I64, further))
        return self._builder.bitcast(self._builder.gep(self.data(array), [index]), kind.as_pointer())
