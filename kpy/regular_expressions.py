"""Regular expressions that clients send, in RE2's syntax: matching takes time linear in the text, whatever they are.

Apache Kafka matches with RE2/J. Python's own `re` goes back over the text and can be made to do so for ever, so it is
no substitute. This is RE2 itself, from google-re2, of which there are wheels for glibc and macOS, but not for musl, and
to build it takes a compiler: so it is an extra of kpy's (`regex`), and who needs it asks first whether it is there.

It agrees with RE2/J 1.8 in all that tests/unit/test_regular_expressions.py tries, and is known to differ in this: only
RE2 takes `\\C` (one byte) and two groups of one name; only RE2/J takes a backslash before a letter beyond ASCII, and
counts that multiply to more than 1000. Source: KIP-848, KIP-1152.
"""

import importlib
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

MAX_PATTERN_MEMORY_BYTES = 1024 * 1024
"""What a compiled pattern may take. It is enough for a list of names as long as a string on the wire can be."""


class InvalidRegularExpressionError(ValueError):
    """The syntax is not RE2's, or the pattern is too large when compiled."""


def are_available() -> bool:
    """Whether google-re2 is installed, found without importing it: other packages have a module of its name, too."""
    package = find_spec("re2")
    locations = package and package.submodule_search_locations
    return locations is not None and PathFinder.find_spec("re2._re2", locations) is not None


class RegularExpression:
    """A compiled pattern. Raises InvalidRegularExpressionError for one that cannot be."""

    __slots__ = ("_compiled",)

    def __init__(self, pattern: str) -> None:
        re2: Any = importlib.import_module("re2")
        options = re2.Options()
        options.max_mem = MAX_PATTERN_MEMORY_BYTES
        options.never_capture = True
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(pattern, options=options)
        except re2.error as error:
            raise InvalidRegularExpressionError(f"{pattern!r}: {error}") from None
        # The module keeps the last 128, which together may take more than anyone meant to give to clients.
        re2.purge()

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` matches. Other threads run meanwhile."""
        return self._compiled.fullmatch(text) is not None
