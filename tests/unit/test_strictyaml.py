"""YAML as tega reads it: plain values, and nothing in silence."""

from __future__ import annotations

from typing import Any

import pytest

from tega import strictyaml
from tega.errors import Malformed


@pytest.mark.parametrize(
    ("text", "value", "as_text"),
    [
        ("a: 1", {"a": 1}, {"a": "1"}),
        ("[true, False, null, ~, ]", [True, False, None, None], ["true", "False", None, None]),
        ("[0, -12, 1.5, -1e-3]", [0, -12, 1.5, -0.001], ["0", "-12", "1.5", "-1e-3"]),
        # What YAML 1.1 makes a truth, a number or a date of.
        ("{on: yes, n: off}", {"on": "yes", "n": "off"}, {"on": "yes", "n": "off"}),
        ("[12:30, 010, 0x1f, 1_000, +1]", ["12:30", "010", "0x1f", "1_000", "+1"], None),
        ("[2020-05-17, .inf, .nan, <<]", ["2020-05-17", ".inf", ".nan", "<<"], None),
        ("'1'", "1", "1"),
        ("", None, None),
        ("[&a [1], *a]", [[1], [1]], [["1"], ["1"]]),
    ],
)
def test_values(text: str, value: Any, as_text: Any) -> None:
    assert strictyaml.loads(text) == value
    assert strictyaml.loads(text, only_texts=True) == (value if as_text is None else as_text)


@pytest.mark.parametrize("only_texts", [False, True])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' stands here twice .*line 3"),
        ("x: [{a: 1, 'a': 2}]", "the key 'a' stands here twice"),
        ("[a]: 1", "unhashable"),
        ("{? {b: 1} : 1}", "unhashable"),
        ("!!python/name:os.system x", "could not determine a constructor"),
        ("!!timestamp 2020-05-17", "could not determine a constructor"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 1\n---\nb: 1", "expected a single document"),
        ("\0", "special characters are not allowed"),
        ("[" * 5000, "nested too deep"),
    ],
)
def test_what_is_refused(text: str, says: str, only_texts: bool) -> None:
    with pytest.raises(Malformed, match=says):
        strictyaml.loads(text, only_texts)
