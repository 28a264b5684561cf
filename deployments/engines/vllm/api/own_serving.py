"""vLLM's objects that serve an API, as objects of our classes."""

import copy
from typing import Any, TypeVar, cast

_S = TypeVar("_S")


def own(kind: type[_S], serving: Any) -> _S:  # noqa: ANN401 - an instance of a base of `kind`
    """An object of our class that shares everything with one of vLLM's."""
    made: Any = copy.copy(serving)
    made.__class__ = kind
    return cast("_S", made)
