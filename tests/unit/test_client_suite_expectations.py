"""The lists of compat/suites: what a line means, and what a run that differs from them is told."""

from pathlib import Path

import pytest

from compat.suites.expectations import Expectation, expectations, surprises


def test_a_list_tells_what_passes_and_why_the_rest_does_not(tmp_path: Path) -> None:
    path = tmp_path / "client.tests"
    path.write_text("# client 1.0\n\npass a::b\nfail c[d]  # needs three brokers\n")
    assert expectations(path) == {"a::b": Expectation("pass", ""), "c[d]": Expectation("fail", "needs three brokers")}


@pytest.mark.parametrize("line", ["fail a", "pass a  # why", "skip a  # why", "pass", "pass a\npass a", "a"])
def test_a_list_without_reasons_or_with_two_opinions_is_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "client.tests"
    path.write_text(line)
    with pytest.raises(ValueError, match=r"client\.tests"):
        expectations(path)


def test_whatever_is_not_as_the_list_says_is_told() -> None:
    expected = {
        "runs": Expectation("pass", ""),
        "breaks": Expectation("pass", ""),
        "is mended": Expectation("fail", "not served yet"),
        "is broken": Expectation("fail", "not served yet"),
        "is gone": Expectation("pass", ""),
    }
    outcomes = {"runs": "pass", "breaks": "fail", "is mended": "pass", "is broken": "fail", "is new": "pass"}
    assert surprises(expected, outcomes) == [
        "fail, not pass: breaks",
        "did not run: is gone",
        "pass, not fail: is mended, though: not served yet",
        "not in the list: pass is new",
    ]
