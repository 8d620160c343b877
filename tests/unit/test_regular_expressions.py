"""Patterns of clients: what RE2/J 1.8 makes of the same, and that none takes more than it may."""

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from kpy import regular_expressions
from kpy.regular_expressions import InvalidRegularExpressionError, RegularExpression

MATCHES = (
    (r"a.*", "abc", True),
    (r"b", "abc", False),
    (r"A", "a", False),
    (r"(?i)A", "a", True),
    (r"(?i)k", "\u212a", True),
    (r"(?i:A)b", "ab", True),
    (r"a|ab", "ab", True),
    (r"^a$", "a", True),
    (r"\Aa", "a", True),
    (r"a\z", "a", True),
    (r"(?m)a$", "a", True),
    (r"a.b", "a\nb", False),
    (r"(?s)a.b", "a\nb", True),
    (r".", "😀", True),
    (r"\x{1F600}", "😀", True),
    (r"\pL+", "äöü", True),
    (r"\p{Greek}+", "αβγ", True),
    (r"\p{^Greek}", "a", True),
    (r"\d+", "१२", False),
    (r"\w+", "ä", False),
    (r"\bfoo\b", "foo", True),
    (r"[[:alpha:]]+", "ab", True),
    (r"[a-z&&[b]]", "b", False),
    (r"[\d-z]", "-", True),
    (r"[]a]", "]", True),
    (r"\Qa.b\E", "a.b", True),
    (r"\Qab", "ab", True),
    (r"\_", "_", True),
    (r"\07", "a", False),
    (r"x{", "x{", True),
    (r"x{,2}", "x{,2}", True),
    (r"a{2}{3}", "aaaaaa", None),
    (r"(?:a{2}){3}", "aaaaaa", True),
    (r"a{1000}", "a", False),
    (r"(?P<n>a)", "a", True),
    (r"(?<n>a)", "a", True),
    (r"()", "", True),
    (r"(a)\1", "aa", None),
    (r"(?=a)a", "a", None),
    (r"(?!b)a", "a", None),
    (r"(?<=a)b", "b", None),
    (r"(?>a)", "a", None),
    (r"a++", "aa", None),
    (r"a{2,1}", "a", None),
    (r"a{1001}", "a", None),
    (r"*", "a", None),
    (r"[a", "a", None),
    (r"[z-a]", "a", None),
    (r"(", "a", None),
    (r")", ")", None),
    (r"a\Z", "a", None),
    (r"\y", "y", None),
    (r"\p{Nope}", "a", None),
    (r"[[:nope:]]", "a", None),
    (r"(?z)a", "a", None),
    ("\\", "a", None),
)
"""Pattern, text, and what RE2/J says: None where it refuses the pattern."""


@pytest.mark.parametrize(("pattern", "text", "expected"), MATCHES, ids=[repr(row[0]) for row in MATCHES])
def test_patterns_mean_what_they_mean_to_apache_kafka(pattern: str, text: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(InvalidRegularExpressionError):
            RegularExpression(pattern)
    else:
        assert RegularExpression(pattern).matches(text) is expected


def test_a_list_of_names_as_long_as_a_string_can_be_is_no_pattern_too_large() -> None:
    names = [hashlib.sha256(bytes([number % 256, number // 256])).hexdigest() for number in range(504)]
    pattern = "|".join(names)
    assert 32_700 < len(pattern) <= 32_767
    assert RegularExpression(pattern).matches(names[-1])


def test_a_pattern_that_grows_when_it_is_compiled_is_refused() -> None:
    with pytest.raises(InvalidRegularExpressionError, match="too large"):
        RegularExpression(r"\pL{1000}")


def test_what_takes_for_ever_by_going_back_is_decided_at_once() -> None:
    assert not RegularExpression("(a*)*b").matches("a" * 30_000)


def test_a_module_of_the_same_name_is_not_taken_for_re2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert regular_expressions.are_available()
    (tmp_path / "re2.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "re2", raising=False)
    importlib.invalidate_caches()
    assert not regular_expressions.are_available()
