"""Values as text: what is read, what is refused and where, and that what is printed reads back."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tega.cli.yamltext import MAX_NESTING, dumps, loads, printable
from tega.errors import Malformed

TRICKY = (
    *("no", "on", "yes", "010", "0x1F", "0o17", "1_000", "1e5", "1.", ".5", "+1", "-0", "1E400"),
    *(".inf", "-.inf", ".nan", "NaN", "Infinity", "12:34:56", "12:34:56:12:34:56", "2026-11-21"),
    *("=", "<<", "~", "null", "true", "False", "", " ", "  x", "x  ", "- x", "-", "--", "---"),
    *("--- a", "...", "... a", "%TAG", "a: b", "a:", ":a", "::1", "a:b", "a : b", ":", "?", "? a"),
    *("?a", "#", "# a", "a #b", "a#b", "&a", "*a", "!a", "!!str a", "|", ">", "@a", "`a`"),
    *("'", '"', "''", "it's", 'a"b', "[", "]", "{", "}", ",", "a,b", "[a", "{a: 1}", "a]", "a}"),
    *("\\", "\\n", "a\\", "\n", "a\nb", "a\n", "\na", "\r\n", "\t", "a\tb", "\t#", "\0", "\x07"),
    *("\x1b[2J", "\x7f", "\x85", "\xa0", "\xad", "\x9b0m", "\u200b", "\u2028", "\u2029", "\u202e"),
    *("\ufeff", "\ufffd", "\ufffe", "\U0001f600", "\U0001f468\u200d\U0001f469", "\U000e0001"),
    *("é", "日本", "10.0.0.0/24", "ge-0/0/0", "eth0.100", "2001:db8::1", "x" * 3000, "\x01" * 255),
    *("%a.b(1,'x')", "https://x/?a=b#c", "9" * 40, "9" * 5000, "-1", "a  b", "null ", "~a"),
)

texts = st.text() | st.sampled_from(TRICKY) | st.text(string.punctuation + " \n\ta1")
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal, types and the sign of zero too."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@given(values)
@example([1e300, 1e-07, 1.0, -0.0, 5e-324, 1.7976931348623157e308, 10**40, -(10**40)])
@example({"a": {}, "b": [], "c": {"d": {}}, "": {"": []}})
@example([{"k" * 2000: {"\x01" * 300: 1}}])
@example({"k" * 2000: {"a": 1}, "\x01" * 300: {"b": {}}})
def test_what_is_printed_reads_back(value: Any) -> None:
    text = dumps(value)
    assert same(loads(text), value)
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_text_reads_back_wherever_it_stands(text: str) -> None:
    for value in (text, [text], {text: text}, {"a": {text: text}}, {"a": [{text: [text]}]}):
        assert same(loads(dumps(value)), value)


@given(values)
def test_json_is_read_as_json(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        assert same(loads(text), value)


@given(values.filter(lambda value: isinstance(value, (dict, list))))
def test_json_read_as_yaml_is_the_same(value: Any) -> None:
    # A comment makes it YAML and no JSON, so that the other reader gets it. YAML allows keys up to
    # 1024 characters.
    text = json.dumps(value)
    assume(len(text) <= 1024)
    assert same(loads("# comment\n" + text), value)


@given(st.text() | st.text("{}[]:,-?!&*|>'\"%@ \n\\ua1#"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = loads(text)
    except Malformed:
        return
    assert same(loads(dumps(value)), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-0", 0),
        ("-1.5e+3", -1500.0),
        ("1e5", 100000.0),
        ("9" * 40, int("9" * 40)),
        ("true", True),
        ("null", None),
        ("~", None),
        ("True", "True"),
        ("no", "no"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("NaN", "NaN"),
        ("12:34:56:12:34:56", "12:34:56:12:34:56"),
        ("2026-11-21", "2026-11-21"),
        ("=", "="),
        ("two words", "two words"),
        ("'1'", "1"),
        ('"a\\tb\\x1b\\ud83d\\ude00\\U0001f600"', "a\tb\x1b\U0001f600\U0001f600"),
        ("a: 1\nb:\n  c: [x, y]\n", {"a": 1, "b": {"c": ["x", "y"]}}),
        ("- 1\n- a: b\n", [1, {"a": "b"}]),
        ("1: a\ntrue: b\n~: c\n<<: d", {"1": "a", "true": "b", "~": "c", "<<": "d"}),
        ('{"a":1,"b":[2],"c":{"d":"e"},}', {"a": 1, "b": [2], "c": {"d": "e"}}),
        ("{a: ::1, b: http://x/?q=1, ?c: ?d}", {"a": "::1", "b": "http://x/?q=1", "?c": "?d"}),
        ("[1:2:3:4:5:6:7:8, a]", ["1:2:3:4:5:6:7:8", "a"]),
        ("a: ::1", {"a": "::1"}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("a: >-\n  x\n  y\n", {"a": "x y"}),
        ("# comment\n--- # another\na: b # third\n...\n", {"a": "b"}),
        ('{\n\t"a": 1\n}', {"a": 1}),
        ("? a\n: b", {"a": "b"}),
        ("a:\r\n  b: 1\r\n", {"a": {"b": 1}}),
    ],
)
def test_reading(text: str, value: Any) -> None:
    assert same(loads(text), value)


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("a: 1\nb: 2\na: 3", 3, 1, "duplicate key 'a'"),
        ("{a: 1, 'a': 2}", 1, 8, "duplicate key 'a'"),
        ('{"a": 1, "a": 2}', 1, 10, "duplicate key 'a'"),
        ("a: !!str 1", 1, 4, "tag"),
        ("a: ! 1", 1, 4, "tag"),
        ("a: &x 1", 1, 4, "anchor '&x'"),
        ("a: 1\nb: *x", 2, 4, "alias '*x'"),
        ("a: 1\n---\nb: 2", 2, 1, "second document"),
        ("1\n--- 2", 2, 1, "second document"),
        ("---", 1, 4, "a value is missing"),
        ("a:", 1, 3, "a value after 'a' is missing"),
        ("a: 1\nb:\nc: 2", 2, 3, "a value after 'b' is missing"),
        ("- 1\n-", 2, 2, "a value is missing"),
        ("{a:1}", 1, 5, "a blank must follow the colon"),
        ("{: 1}", 1, 2, "found ':'"),
        ("? [a]\n: b", 1, 3, "a key that is a list or a container"),
        ("{{a: 1}: b}", 1, 2, "a key that is a list or a container"),
        ("[1, 1e400]", 1, 5, "too large"),
        ("[1, " + "9" * 5000 + "]", 1, 5, "too long"),
        ('a: "\\ud800"', 1, 4, "surrogate"),
        ('"\\Uffffffff"', 1, 4, "no Unicode character"),
        ('"\\U00110000"', 1, 4, "no Unicode character"),
        ('"\\q"', 1, 3, "unknown escape"),
        ("a: 1\nb: \x1b", 2, 4, "U+001B"),
        ("a \u2028", 1, 3, "U+2028"),
        ("a\nb\udcff", 2, 2, "the byte 0xFF, which is not UTF-8"),
        ("a: b: c", 1, 5, "not allowed here"),
        ("{a: 1", 1, 6, "expected"),
        ("'a", 1, 3, "end of stream"),
        ("@a", 1, 1, "must be quoted"),
        ("[" * 5000, 1, MAX_NESTING + 1, "nested deeper"),
        ("- " * 5000 + "a", 1, 2 * MAX_NESTING + 1, "nested deeper"),
    ],
)
def test_refusals_say_where(text: str, line: int, column: int, problem: str) -> None:
    with pytest.raises(Malformed) as caught:
        loads(text)
    assert caught.value.message.startswith(f"bad value at line {line}, column {column}: ")
    assert problem in caught.value.message


@pytest.mark.parametrize("text", ["", " ", "\n\n", "# only a comment"])
def test_no_value_is_an_error(text: str) -> None:
    with pytest.raises(Malformed, match="no value"):
        loads(text)


def test_deep_json_is_refused_like_deep_yaml() -> None:
    assert loads("[" * MAX_NESTING + "]" * MAX_NESTING) is not None
    for depth in (MAX_NESTING + 1, 100_000):
        with pytest.raises(Malformed, match="nested deeper"):
            loads("[" * depth + "]" * depth)


def test_what_is_too_deep_to_print_is_refused() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = {"a": value}
    with pytest.raises(Malformed, match="too deep"):
        dumps(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (None, "null"),
        (True, "true"),
        ("two words", "two words"),
        ("null", "'null'"),
        ("1", "'1'"),
        ("", "''"),
        ("it's", "it's"),
        ("'t", "'''t'"),
        ("a\nb\x1b[2J", '"a\\nb\\u001b[2J"'),
        ("12:34:56:12:34:56", "12:34:56:12:34:56"),
        ("::1", "'::1'"),
        ({}, "{}"),
        ([], "[]"),
        ([1, {"a": [None]}], "[1, {a: [null]}]"),
        ((1, 2), "[1, 2]"),
        ({"b": {"c": 1}, "x": 2}, "b: {c: 1}\nx: 2"),
        ({"a": [1, 2], "b": "x, y"}, "{a: [1, 2], b: 'x, y'}"),
        ({"a": {}, "b": "x, y"}, "a: {}\nb: x, y"),
        ({"a": {"b": {"c": {}}}, "1": []}, "a:\n  b:\n    c: {}\n'1': []"),
        ({"10.0.0.0/24": {"mtu": 1.0}}, "10.0.0.0/24: {mtu: 1.0}"),
        (["x" * 300, "y"], "[" + "x" * 300 + ", y]"),
    ],
)
def test_shape(value: Any, text: str) -> None:
    assert dumps(value) == text


def test_pyyaml_itself_is_left_alone() -> None:
    loads("{a: ::1, b: no}")
    assert yaml.safe_load("a: no\nb: 2026-11-21")["a"] is False


def test_printable() -> None:
    assert printable("a\nb é \U0001f600") == "a\nb é \U0001f600"
    assert printable("\x1b[2J\x9b\u202e\r") == "\\u001b[2J\\u009b\\u202e\\r"
