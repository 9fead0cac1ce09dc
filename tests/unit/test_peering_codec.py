"""What servers tell each other: what cannot be read is refused, by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tega.errors import BY_CODE, Malformed
from tega.peering import codec


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b'{"lead":{"a":5}}', b'{"lead":{"_x":"l"}}', b'{"lead":{"":"l"}}',
        b'{"lead":{"a":"_bad"}}', b'{"follow":{"_x":null}}', b'{"follow":{"a":[1,2]}}',
        b'{"sessions":[5]}', b'{"sessions":["_no id"]}', b'{"channels":[1]}',
        b'{"channels":[["a"]]}', b'{"channels":[["a",5]]}', b'{"functions":[["a"]]}',
    ],
)  # fmt: skip
def test_an_offer_that_cannot_be_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        codec.read_offer(body)


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (codec.read_taken, b"{}"),
        (codec.read_taken, b'{"above":["_x y"]}'),
        (codec.read_applied, b'{"a":{"x":"1"}}'),
        (codec.read_applied, b'{"a":1}'),
        (codec.read_functions, b'{"functions":[["a.b","_"]]}'),
        (codec.read_ids, b'{"tega_ids":"a"}'),
        (codec.read_chunk, b'{"root":"a","lead":["_bad id","",0]}'),
        (codec.read_overlay, b'{"root":"a"}'),
        (codec.read_commit, b'{"seq":1,"seq":2}'),
    ],
)
def test_what_cannot_be_read_is_malformed(read: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(Malformed):
        read(body)


def test_errors_of_another_server_name_it_where_they_are_about_it() -> None:
    body = b'{"code":"read_only","message":"the disk is full","disk":1}'
    error = codec.error_in(body, "global")
    assert type(error) is BY_CODE["read_only"]
    assert str(error) == "global says: the disk is full"
    assert error.details == {"disk": 1}
    collision = codec.error_in(b'{"code":"collision","message":"collision at a"}', "global")
    assert str(collision) == "collision at a"
