"""Paths: dotted, as URLs, as patterns; and what cannot be one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega import paths
from tega.errors import Malformed
from tega.paths import (
    MAX_KEY,
    check_key,
    check_keys,
    check_tega_id,
    check_txid,
    dotted,
    from_url,
    parse,
    to_url,
    wire,
)

#: Keys of every day in networks, and of no day.
KEYS = [
    "ge-0/0/0", "eth0.100", "10.0.0.1", "10.0.0.0/24", "2001:db8::1", "items", "a b", " ", ".",
    "..", 'say "x"', '"', '""', "it's", "back\\slash", "\\", '\\"', "tab\t", "\n", "\0", "\x7f",
    "é", "e\u0301", "日本", "\U0001f600", "\u2028", "\u00a0", "a_b", "%2F", "?x=1&y#z", "+",
    "-1", "0", "~",
]  # fmt: skip

valid_keys = st.text(min_size=1, max_size=20).filter(lambda key: key[0] != "_")
valid_paths = st.lists(valid_keys | st.sampled_from(KEYS), min_size=1, max_size=5).map(tuple)


def refused(text: str) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("inventory", ("inventory",)),
        ("inventory.ne1.address", ("inventory", "ne1", "address")),
        ('routes."10.0.0.0/24".metric', ("routes", "10.0.0.0/24", "metric")),
        ("ge-0/0/0.unit", ("ge-0/0/0", "unit")),
        ('"a"."b"', ("a", "b")),
        ('"\\u00e9"', ("é",)),
        ('"\\ud83d\\ude00"', ("\U0001f600",)),
        ("a b.c", ("a b", "c")),
        ("back\\slash", ("back\\slash",)),
    ],
)
def test_parse_reads_dotted_paths(text: str, path: paths.Path) -> None:
    assert parse(text) == path


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("plain", "plain"),
        ("ge-0/0/0", "ge-0/0/0"),
        ("2001:db8::1", "2001:db8::1"),
        ("é", "é"),
        ("10.0.0.1", '"10.0.0.1"'),
        ("a b", '"a b"'),
        ('"', r'"\""'),
        ("a\n", r'"a\n"'),
        ("a.\\", r'"a.\\"'),
    ],
)
def test_dotted_quotes_what_needs_it(key: str, text: str) -> None:
    assert dotted(("r", key)) == "r." + text


@given(valid_paths)
def test_dotted_paths_round_trip(path: paths.Path) -> None:
    assert parse(dotted(path)) == path


@given(valid_paths)
def test_wire_paths_round_trip_and_hold_no_space(path: paths.Path) -> None:
    assert parse(wire(path)) == path
    assert not any(c.isspace() for c in wire(path))


@given(valid_paths)
def test_urls_round_trip(path: paths.Path) -> None:
    assert from_url(to_url(path)) == path
    assert to_url(path).isascii()


def test_a_url_has_one_key_a_segment() -> None:
    assert to_url(("routes", "10.0.0.0/24", "a b")) == "/routes/10.0.0.0%2F24/a%20b/"
    assert from_url("/routes/10.0.0.0%2F24/metric/") == ("routes", "10.0.0.0/24", "metric")


@pytest.mark.parametrize("url", ["/a/b", "/a/b/", "a/b"])
def test_a_trailing_slash_is_optional(url: str) -> None:
    assert from_url(url) == ("a", "b")


def test_the_url_of_all_roots_is_the_empty_path() -> None:
    assert from_url("/") == ()


@pytest.mark.parametrize(
    "url", ["//", "/a//b", "/a//", "/_x", "/a/%5Fx", "/%FF", "/%ED%A0%80", "/\ud800%20", "/\ud800"]
)
def test_malformed_urls_are_refused_and_named(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        from_url(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", '""', '"a', '"a"b', 'a"b"', 'a.b"c', '"a".', '"\\x"', '"\n"'],
)
def test_malformed_paths_are_refused_and_named(text: str) -> None:
    error = refused(text)
    assert repr(text) in str(error)
    assert error.details["path"] == text


@pytest.mark.parametrize("key", KEYS)
def test_everyday_keys_are_taken(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["_", "_x", "_version", "_commit"])
def test_reserved_keys_are_refused_by_name(key: str) -> None:
    assert repr(key) in str(refused(f"r.{key}.a"))
    assert refused(f"r.{key}.a").details["key"] == key


@pytest.mark.parametrize("key", ["k" * 255, "é" * 127 + "k", "日" * 85, "\U0001f600" * 63 + "日"])
def test_a_key_of_255_bytes_is_taken_and_of_256_refused(key: str) -> None:
    assert len(key.encode()) == MAX_KEY == 255
    check_key(key)
    with pytest.raises(Malformed, match="256 bytes, the limit is 255"):
        check_key(key + "x")


def test_a_lone_surrogate_is_no_key() -> None:
    with pytest.raises(Malformed, match="lone surrogate"):
        check_key("a\udc00")


@pytest.mark.parametrize("text", [r'"_\ud800"', r'"\ud800"', "_" * 10_000, "a" * 10_000 + "..b"])
def test_the_body_of_a_refusal_is_short_json(text: str) -> None:
    body = json.dumps(refused(text).body(), ensure_ascii=False).encode()
    assert len(body) < 2_000


def test_check_takes_keys_and_gives_a_path() -> None:
    assert paths.check(["a", "b.c"]) == ("a", "b.c")
    with pytest.raises(Malformed, match="empty path"):
        paths.check([])


@pytest.mark.parametrize(
    ("pattern", "levels"),
    [
        ("a", ("a",)),
        (r"(r)-(.*)\.(.*)", ("(r)-(.*)", "(.*)")),
        (r"eth0[.]100\.a.b", ("eth0[.]100", "a.b")),
        (r"a\.", ("a", "")),
    ],
)
def test_a_pattern_is_split_into_levels(pattern: str, levels: tuple[str, ...]) -> None:
    assert paths.split_pattern(pattern) == levels


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(Malformed, match="empty pattern"):
        paths.split_pattern("")


@pytest.mark.parametrize("tega_id", ["a", "cli-1", "ne1.tokyo", "A_b", "0", "-", "x" * 255])
def test_tega_ids(tega_id: str) -> None:
    assert check_tega_id(tega_id) == tega_id


@pytest.mark.parametrize("tega_id", ["", "_a", "a b", "a\n", "é", "a/b", 'a"', "x" * 256])
def test_malformed_tega_ids_are_refused(tega_id: str) -> None:
    with pytest.raises(Malformed, match="malformed tega id"):
        check_tega_id(tega_id)


@pytest.mark.parametrize("txid", ["t", "a b", 'é"\n', "é" * 255])
def test_transaction_ids(txid: str) -> None:
    assert check_txid(txid) == txid


@pytest.mark.parametrize("txid", ["", "\ud800", "x" * 256])
def test_malformed_transaction_ids_are_refused(txid: str) -> None:
    with pytest.raises(Malformed, match="transaction id"):
        check_txid(txid)


@given(st.lists(st.text(max_size=4) | st.sampled_from(["_a", "a\n_b", "", "x" * 255, "x" * 256])))
def test_keys_together_are_judged_as_one_by_one(keys: list[str]) -> None:
    def refusal(check: Callable[[], object]) -> str | None:
        try:
            check()
        except Malformed as error:
            return error.message
        return None

    assert refusal(lambda: check_keys(keys)) == refusal(
        lambda: [check_key(key) for key in keys]
    )


def test_a_key_that_is_no_text_is_named() -> None:
    with pytest.raises(Malformed, match=r"key 7 is int: keys are strings"):
        check_keys(["a", 7])
