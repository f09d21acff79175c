"""Compiled functions that compiled callers reach by address, so that each is optimised once.

Numba puts everything that a function calls into its own code and optimises it there again, level by level, which for
the kernels would take minutes.  A function that is *apart* is compiled for one signature when it is loaded, and its
address put where callers find it.  What a job does not use is never compiled.
"""

import ctypes
import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils as untyped_cgutils
from numba.core import typing as untyped_typing
from numba.core.typing import templates as untyped_templates

from rpucluster.kernels.cpu_random import Compiled, types

cgutils: Any = untyped_cgutils
typing: Any = untyped_typing
templates: Any = untyped_templates


class Apart:
    """A function apart, called alike from Python and from compiled code; from the latter only once it is loaded.

    ``needs`` are functions apart that it calls, which are loaded with it.
    """

    def __init__(self, dispatcher: Any, signature: Any, needs: tuple["Apart", ...]) -> None:
        self._dispatcher, self._signature, self._needs = dispatcher, signature, needs
        function = dispatcher.py_func
        self._address = ctypes.c_void_p()
        # stored code of callers finds the address by this name, whatever was imported before
        symbol = f"{function.__module__}.{function.__name__}"
        binding.add_symbol(symbol, ctypes.addressof(self._address))
        template = templates.make_intrinsic_template(self, _definition(symbol, function, signature), function.__name__)
        templates.infer(template)
        templates.infer_global(self, types.Function(template))

    def __call__(self, *arguments: Any) -> Any:
        self.load()
        return self._dispatcher(*arguments)

    def load(self) -> None:
        """Compile it and what it needs, or find them on disk, unless that is done."""
        if self._address.value:
            return
        for needed in self._needs:
            needed.load()
        self._dispatcher.compile(self._signature)
        done = self._dispatcher.overloads[self._signature.args]
        self._address.value = done.library.get_pointer_to_function(done.fndesc.llvm_func_name)


def apart(
    compile_it: Callable[[Compiled], Compiled], returns: Any, *arguments: Any, needs: tuple[Apart, ...] = ()
) -> Callable[[Compiled], Apart]:
    """Make a function of these types, compiled by ``compile_it``, one that callers reach by its address."""
    return lambda function: Apart(compile_it(function), typing.signature(returns, *arguments), needs)


def _definition(symbol: str, function: Compiled, signature: Any) -> Callable[..., Any]:
    """What Numba asks for the type and the code of a call of the function whose address has this name."""

    def emit(context: Any, builder: Any, called: Any, args: Any) -> Any:
        address = ir.IntType(8).as_pointer()
        try:
            place = builder.module.get_global(symbol)
        except KeyError:
            place = ir.GlobalVariable(builder.module, address, symbol)
        found = builder.load(place)
        with cgutils.if_unlikely(builder, cgutils.is_null(builder, found)):
            context.call_conv.return_user_exc(builder, RuntimeError, (f"{symbol} is not loaded",))
        returns, kinds = signature.return_type, signature.args
        kind = context.call_conv.get_function_type(returns, kinds)
        function = builder.bitcast(found, kind.as_pointer())
        status, result = context.call_conv.call_function(builder, function, returns, kinds, args)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    def defined(typingctx: Any, *kinds: Any) -> Any:
        return signature, emit

    parameters = inspect.signature(function).parameters.values()
    context = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signed: Any = defined
    signed.__signature__ = inspect.Signature([context, *parameters])  # Numba reads the arguments off it
    return defined
