"""Hits applied to the weights sixteen at a time on the CPU, as Numba building blocks."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils as untyped_cgutils

from rpucluster.kernels.cpu_cells import sixteen_cells
from rpucluster.kernels.cpu_random import intrinsic, types
from rpucluster.kernels.cpu_trains import COLUMN, COUNT, COUNT_AT
from rpucluster.kernels.cpu_wide import EVEN, F32, FLOATS, I16, I32, INTS, ODD, SIGN_BIT, WORDS, Arrays, Lanes
from rpucluster.kernels.update_rule import AHEAD, BEHIND, STD

cgutils: Any = untyped_cgutils


class _Weights:
    """The weights of a call's hits."""

    def __init__(self, arrays: Arrays, builder: Any, base: Any, columns: Lanes, count: Any) -> None:
        self._builder, self.module = builder, builder.module
        start = builder.gep(arrays.data(0), [base])
        pointers = arrays.splat(start)
        self._places = builder.gep(pointers.value, [columns.value], source_etype=F32)
        numbers = Lanes(builder, ir.Constant(INTS, list(range(16))))
        self.present = numbers < arrays.splat(builder.trunc(count, I32))

    def load(self) -> Lanes:
        mask = self.present.value
        arguments = [self._places, ir.Constant(I32, 4), mask, ir.Constant(FLOATS, [0.0] * 16)]
        return Lanes(self._builder, self._call("gather", FLOATS, arguments))

    def store(self, value: Lanes, where: Any) -> None:
        self._call("scatter", ir.VoidType(), [value.value, self._places, ir.Constant(I32, 4), where])

    def _call(self, verb: str, returns: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(returns, [argument.type for argument in arguments])
        name = f"llvm.masked.{verb}.v16f32.v16p0"
        return self._builder.call(cgutils.get_or_insert_function(self.module, kind, name), arguments)


def _apply(crowded: bool) -> Any:
    @intrinsic
    def apply(
        typingctx: Any, weights: Any, base: Any, tags: Any, lanes: Any, at: Any, z: Any, z_at: Any, count: Any,
        floats: Any,
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = Arrays(context, builder, signature, args)
            tag = arrays.load(2, args[4], INTS)
            cells = _Weights(arrays, builder, args[1], tag & int(COLUMN), args[7])
            old = cells.load()
            up, down, low, high = sixteen_cells(arrays, 3, args[4], 8)
            lowers = tag < 0
            step = lowers.choose(down, up)
            std, noise = arrays.number(8, STD), arrays.load(5, args[6], FLOATS)
            if crowded:
                count = tag.unsigned_shift(int(COUNT_AT)) & int(COUNT)
                pulses = count.to_floats()
                amount = step * (pulses + std * pulses.root() * noise)
            else:
                amount = step * (std * noise + 1.0)
            change = amount.as_ints() ^ (tag & SIGN_BIT)
            new = (old + change.as_floats()).at_least(low).at_most(high)
            left = ir.Constant(I32, 0)
            where = cells.present.value
            if crowded:
                ahead, behind, whole = arrays.number(8, AHEAD), arrays.number(8, BEHIND), pulses * step
                highest = old + whole * lowers.choose(behind, ahead)
                lowest = old - whole * lowers.choose(ahead, behind)
                near = builder.or_((highest > high).value, (lowest < low).value)
                near = builder.and_(builder.and_(near, (count > 1).value), where)
                where = builder.and_(where, builder.not_(near))
                left = builder.zext(builder.bitcast(near, I16), I32)
            cells.store(new, where)
            return left

        signature = types.uint32(weights, types.uint64, tags, lanes, types.uint64, z, types.uint64, types.int64, floats)
        return signature, emit

    return apply


apply_single = _apply(False)
"""Apply sixteen hits of one pulse each, or the first ``count`` of them: normals from ``z[z_at]`` on, the rest from
``at`` on."""
apply_crowded = _apply(True)
"""As `apply_single` for any pulses; returns a bit for each hit that is near a bound and is to be replayed instead."""


@intrinsic
def apply_counts(
    typingctx: Any, weights: Any, base: Any, tags: Any, lanes: Any, at: Any, z: Any, z_at: Any, count: Any,
    floats: Any, pulses: Any,
) -> Any:  # fmt: skip
    """As `apply_crowded` for cells with pulses up and down, the lower and the upper halves of ``pulses[at]`` on, which
    share one draw."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = Arrays(context, builder, signature, args)
        cells = _Weights(arrays, builder, args[1], arrays.load(2, args[4], INTS) & int(COLUMN), args[7])
        old = cells.load()
        step_up, step_down, low, high = sixteen_cells(arrays, 3, args[4], 8)
        words = [arrays.load(9, args[4], WORDS, 8 * half).as_ints() for half in (0, 1)]
        n_up, n_down = words[0].picked(words[1], EVEN), words[0].picked(words[1], ODD)
        up, down = n_up.to_floats() * step_up, n_down.to_floats() * step_down
        noise = arrays.number(8, STD) * (up * step_up + down * step_down).root()
        amount = (up - down) + noise * arrays.load(5, args[6], FLOATS)
        new = (old + amount).at_least(low).at_most(high)
        ahead, behind = arrays.number(8, AHEAD), arrays.number(8, BEHIND)
        highest, lowest = old + (up * ahead + down * behind), old - (down * ahead + up * behind)
        near = builder.or_((highest > high).value, (lowest < low).value)
        near = builder.and_(builder.and_(near, (n_up + n_down > 1).value), cells.present.value)
        cells.store(new, builder.and_(cells.present.value, builder.not_(near)))
        return builder.zext(builder.bitcast(near, I16), I32)

    signature = types.uint32(
        weights, types.uint64, tags, lanes, types.uint64, z, types.uint64, types.int64, floats, pulses
    )
    return signature, emit
