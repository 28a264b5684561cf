"""Functions of vLLM that find other objects under their global names.

vLLM's generators of streams make models of pydantic by names of their module. Instead of replacing
these names in the module, for all of its callers, ours is the same function with other globals.
"""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any


def rebound(function: Callable[..., Any], names: Mapping[str, Any]) -> Callable[..., Any]:
    """The function, in which each of `names` stands for its value.

    Raises:
        TypeError: it is no function written in Python, or does not use one of the names.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function!r} is no function of Python's")
    unused = names.keys() - set(function.__code__.co_names)
    if unused:
        raise TypeError(f"{function.__qualname__} does not use {', '.join(sorted(unused))}")
    changed = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    changed.__kwdefaults__ = function.__kwdefaults__
    return changed
