"""Strict JSON: what is refused, and what survives exactly."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import immutables
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.errors import Malformed
from tega.strictjson import dumps, loads

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refused(text: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        loads(text)
    return str(caught.value)


@given(documents)
def test_documents_round_trip_exactly(value: Any) -> None:
    # As text, for Python takes 1, 1.0 and True for equal.
    assert json.dumps(loads(dumps(value)), sort_keys=True) == json.dumps(value, sort_keys=True)


@given(documents)
def test_text_of_others_is_read(value: Any) -> None:
    text = json.dumps(value, indent=1)
    assert json.dumps(loads(text.encode())) == json.dumps(value)
    assert json.dumps(loads(json.dumps(value, ensure_ascii=False).encode())) == json.dumps(value)


@pytest.mark.parametrize(
    "number",
    [2**63, 2**64, -(2**63) - 1, -(2**64), 10**40, 10**4200, -(10**4200)],
    ids=lambda number: f"{number.bit_length()} bits",
)
def test_integers_keep_every_digit(number: int) -> None:
    assert loads(dumps(number)) == number
    assert type(loads(dumps(number))) is int


@pytest.mark.parametrize("text", [b"%b", b"-%b", b'{"a":[%b]}'])
def test_an_integer_of_5000_digits_is_refused(text: bytes) -> None:
    assert "digits" in refused(text % (b"1" * 5_000))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, b"1.0"), (-0.0, b"-0.0"), (5e-324, b"5e-324"), (1.7976931348623157e308, None)],
)
def test_floats_stay_floats(value: float, text: bytes | None) -> None:
    assert repr(loads(dumps(value))) == repr(value)
    assert text is None or dumps(value) == text


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"[-Infinity]", b"1e400", b'{"a":-1e400}'])
def test_non_finite_numbers_are_refused(text: bytes) -> None:
    assert refused(text).startswith("bad JSON")


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"b":2,"a":1}',
        b'{"x":{"a":1,"a":2}}',
        b'[[{"x":[{"a":1,"a":2}]}]]',
        rb'{"a":1,"\u0061":2}',
        b'{"a":{"b":1},"a":{"b":1}}',
        b'{"a":"::","a":":::"}',
        b'{"mac":"00:11:22:33:44:55","x":{"a":":","a":1}}',
        b'{"a" :1,"a"\n:2}',
        rb'{"a" :1,"b":{"x":"\":"},"a":2}',
    ],
)
def test_duplicate_keys_are_refused_by_name(text: bytes) -> None:
    assert "duplicate key 'a'" in refused(text)


pairs: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([1, "", ":", '":', '" :', "a", {}]),
    lambda inner: st.lists(inner, max_size=3)
    | st.lists(st.tuples(st.sampled_from(["a", "b", ":", '":']), inner), max_size=3).map(tuple),
    max_leaves=8,
)


def written(value: Any, colon: str) -> tuple[str, bool]:
    """The text of a value in which a tuple of pairs is an object; whether it has duplicate keys."""
    if not isinstance(value, list | tuple):
        return json.dumps(value), False
    if isinstance(value, list):
        items = [written(item, colon) for item in value]
        return f"[{','.join(text for text, _ in items)}]", any(bad for _, bad in items)
    members = [(json.dumps(key), *written(item, colon)) for key, item in value]
    text = ",".join(key + colon + item for key, item, _ in members)
    unique = len({key for key, _, _ in members}) == len(members)
    return f"{{{text}}}", not unique or any(bad for _, _, bad in members)


@given(pairs, st.sampled_from([":", " :", ": ", "\n:"]))
def test_duplicate_keys_are_refused_and_nothing_else(value: Any, colon: str) -> None:
    text, bad = written(value, colon)
    if bad:
        assert "duplicate key" in refused(text.encode())
    else:
        assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"::","b":"a:1"}',
        b'{"a":":","b":{"a":":"}}',
        b'[{"a":1},{"a":":"}]',
        b'{"2001:db8::1":"00:11:22","2001:db8::2":"00:11:22"}',
        b'{"a":"\\"a\\":1,\\"a\\":2"}',
        rb'{"\u003a":":"}',
    ],
)
def test_colons_in_strings_make_no_duplicate(text: bytes) -> None:
    assert loads(text) == json.loads(text)


@pytest.mark.parametrize(
    "text", [rb'"\ud800"', rb'"\udc00 "', rb'["\ud800x"]', rb'{"\ud800":1}', rb'"\udc00\ud800"']
)
def test_lone_surrogates_are_refused(text: bytes) -> None:
    assert refused(text).startswith("bad JSON")


def test_a_surrogate_pair_is_one_character() -> None:
    assert loads(rb'"\ud83d\ude00"') == "\U0001f600"


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8_are_refused(text: bytes) -> None:
    assert "not UTF-8" in refused(b'"%b"' % text)
    assert "not UTF-8" in refused(b'{"%b":1}' % text)


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"{", b"[1,]", b'{"a"}', b"{a:1}", b"'a'", b"1 2", b"01", b"+1", b".5", b"tru",
     b'"\n"', b"\xef\xbb\xbf1", '{"a":1}'.encode("utf-16"), b"// 1\n1"],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: bytes) -> None:
    assert refused(text).startswith("bad JSON")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('{":":', "}")])
def test_any_nesting_is_read_or_refused(opening: str, closing: str) -> None:
    def text(depth: int) -> bytes:
        return f"{opening * depth}1{closing * depth}".encode()

    assert json.dumps(loads(text(100)), separators=(",", ":")).encode() == text(100)
    assert "too deep" in refused(text(100_000))
    # In between, where parsers reach their limits one after the other, neither is a bug.
    for depth in range(300, 1_500, 100):
        with suppress(Malformed):
            loads(text(depth))


def test_keys_come_out_sorted_at_every_level() -> None:
    value = {"b": 1, "a": [{"d": 1, "c": {"f": 1, "e": 1}}], "é": 1, "B": 1}
    value |= {"\U0001f600": 1, "\uffff": 1}
    assert dumps(value) == json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()


def test_frozen_values_are_json_too() -> None:
    assert dumps((1, immutables.Map(b=(2,), a=immutables.Map()))) == b'[1,{"a":{},"b":[2]}]'


def test_what_is_no_json_is_not_written() -> None:
    with pytest.raises(TypeError, match="object is not JSON"):
        dumps([object()])
