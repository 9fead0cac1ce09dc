"""Mappings of tega-sentinel: which row a key gives, and what is said of a wrong file."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files
from typing import Any

import pytest

from tega import strictjson
from tega.errors import Malformed
from tega.sentinel import preset
from tega.sentinel.columns import Misfit
from tega.sentinel.mapping import Mapping
from tega.sentinel.mappingfile import load

TITANIA = load(files("tega.sentinel").joinpath(preset.FILE).read_text("utf-8"), preset.FILE)


def table(columns: str, keys: str = "keys: '/t/{id}/{state:0|1}'", more: str = "") -> str:
    return (
        f"tables:\n  s.t:\n    {keys}\n    primary_key: id\n    {more}\n    columns:\n"
        f"      id: {{type: string(8), from: {{key: id}}}}\n      {columns}\n"
    )


def row(mapping: Mapping, key: str, value: Any) -> dict[str, Any]:
    scope = mapping.scope_of(key.encode())
    assert scope is not None
    text = value if isinstance(value, bytes) else strictjson.dumps(value)
    made = mapping.row(scope, key.encode(), text)
    names = [column.name for column in made.table.columns]
    return dict(zip(names, made.values, strict=True))


@pytest.mark.parametrize(
    ("key", "status", "becomes"),
    [
        ("/Device/i", 0, 0), ("/Device/i", 1, 1), ("/Device/i", None, None),
        ("/Device/i/0", 1, 1), ("/Device/i/0", None, 0), ("/Device/i/0", 0, 0),
        ("/Device/i/1", 0, 1), ("/Device/i/1", None, 1), ("/Device/i/1", 1, 1),
    ],
)  # fmt: skip
def test_a_device_of_titania(key: str, status: int | None, becomes: int | None) -> None:
    value = {"deviceName": "d", "projectSymbolFk": "p", "deviceIp": "10.0.0.1", "os": ""}
    if status is not None:
        value["connectionStatus"] = status  # type: ignore[assignment]
    assert row(TITANIA, key, value) == {
        "deviceName": "d", "projectSymbolFk": "p", "deviceIp": "10.0.0.1",
        "connectionStatus": becomes, "os": "",
    }  # fmt: skip


def test_a_pod_of_titania() -> None:
    pod = {"podName": "p", "deviceNameFk": "d", "currentVersion": "1", "latestVersion": "2"}
    assert row(TITANIA, "/Pod/p/1", {**pod, "deployedAt": "", "status": 0}) == {
        **pod, "imageName": None, "deployedAt": None, "status": 1,
    }  # fmt: skip
    at = row(TITANIA, "/Pod/p", {**pod, "imageName": "", "deployedAt": "2020-05-17T10:00:00+02:00"})
    assert (at["imageName"], at["deployedAt"]) == ("", datetime(2020, 5, 17, 8))


def test_titania_has_its_tables_and_intervals() -> None:
    device, pod = TITANIA.tables
    assert (device.title, device.primary_key, device.interval) == (
        "Device.device", ("deviceName",), 30,
    )  # fmt: skip
    assert (pod.title, pod.primary_key, pod.interval) == ("Pod.pod", ("podName",), 5)
    assert [scope.prefix for scope in TITANIA.scopes] == [b"/Device/", b"/Pod/"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("/Device/i/2", {}, r"'/Device/i/2' is like none of /Device/\{id\}, "),
        ("/Device/i/0/x", {}, "is like none of"),
        ("/Device/", {}, "is like none of"),
        ("/Device/i", b"{", "bad JSON"),
        ("/Device/i", b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        ("/Device/i", b"\xff", "bad JSON"),
        ("/Device/i", {}, "deviceName is missing: it comes from field deviceName of the value"),
        ("/Device/i", [], "deviceName is missing"),
        ("/Device/i", {"deviceName": None}, "deviceName is missing"),
        ("/Device/i", {"deviceName": 7}, "deviceName is 7, but must be a string"),
        ("/Device/i", {"deviceName": "x" * 256}, "has 256 characters, but at most 255 fit"),
        ("/Device/i", {"deviceName": "a\0"}, "NUL"),
        ("/Device/i", {"deviceName": "a", "connectionStatus": "1"}, "must be an integer"),
        ("/Device/i", {"deviceName": "a", "connectionStatus": True}, "must be an integer"),
        ("/Device/i", {"deviceName": "a", "connectionStatus": 1 << 63}, "64 bits"),
        ("/Pod/i", {"podName": "a", "deployedAt": "yesterday"}, "date and time as ISO 8601"),
        ("/Pod/i", {"podName": "a", "deployedAt": "2020-02-30"}, "date and time as ISO 8601"),
        ("/Pod/i", {"podName": "a", "deployedAt": "0001-01-01"}, "year 1000"),
    ],
)
def test_what_does_not_fit_says_why(key: str, value: Any, says: str) -> None:
    with pytest.raises(Misfit, match=says):
        row(TITANIA, key, value)


def test_a_key_that_is_not_utf_8_does_not_fit() -> None:
    scope = TITANIA.scope_of(b"/Device/\xff")
    assert scope is not None
    with pytest.raises(Misfit, match="not UTF-8"):
        TITANIA.row(scope, b"/Device/\xff", b"{}")


def test_other_keys_are_nobodys_business() -> None:
    assert TITANIA.scope_of(b"/Other/x") is None
    assert TITANIA.scope_of(b"/Device") is None


@pytest.mark.parametrize(
    ("column", "value", "becomes"),
    [
        ("n: {type: number, from: a.b}", {"a": {"b": 3}}, 3.0),
        ("n: {type: number, from: a.b}", {"a": [3]}, None),
        ("n: {type: number, from: {field: [a.b]}}", {"a.b": 3}, 3.0),
        ("n: {type: boolean, from: [a, b]}", {"a": None, "b": True}, True),
        ("n: {type: boolean, from: [a, {constant: false}]}", {}, False),
        ("n: {type: text, from: a, empty_is_null: true}", {"a": ""}, None),
        ("n: {type: text, from: a}", {"a": ""}, ""),
        ("n: {type: integer, from: {key: state}}", {}, 1),
        ("n: {type: string(9), from: {key: state, map: {'1': stopped}}}", {}, "stopped"),
        ("n: {type: string(9), from: {field: a, map: {true: 'on', 2: two}}}", {"a": True}, "on"),
        ("n: {type: string(9), from: {field: a, map: {true: 'on', 2: two}}}", {"a": 2}, "two"),
        ("n: {type: string(9), from: {field: a, map: {true: 'on'}}}", {"a": "x"}, None),
        ("n: {type: json, from: {whole: true}}", {"b": 1, "a": "\0"}, '{"a":"\\u0000","b":1}'),
        ("n: datetime", {"n": "2020-01-02 03:04:05.678901234Z"},
         datetime(2020, 1, 2, 3, 4, 5, 678901)),
        ("n: datetime(3)", {"n": "2020-01-02T03:04:05.6789-01:30"},
         datetime(2020, 1, 2, 4, 34, 5, 678000)),
        ("n: datetime", {"n": "2020-01-02"}, datetime(2020, 1, 2)),
    ],
)  # fmt: skip
def test_where_values_come_from(column: str, value: Any, becomes: Any) -> None:
    assert row(load(table(column), "m"), "/t/x/1", value) == {"id": "x", "n": becomes}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "mapping m: .*line 1"),
        ("tables: {}", "tables: it must name tables"),
        ("a: 1", "'a' is not known here; there are tables"),
        (table("n: {type: json, from: {constant: &a [*a]}}"), "an alias in it stands for itself"),
        ("tables: {t: 1}", r"tables\.t: it must hold .*primary_key"),
        ("tables: {t: {}}", r"tables\.t: primary_key is missing"),
        ("tables: {a.b.c: {}}", r"SCHEMA\.TABLE"),
        (table("n: int"), r"columns\.n: type: type 'int' is wrong; right is one of string\(N\)"),
        (table("n: string"), r"needs its most characters, 1 to 16383: string\(255\)"),
        (table("n: datetime(7)"), "0 to 6 digits"),
        (table("n: integer(4)"), "only string and datetime take a size"),
        (table("n: text\n      n: text"), "'n' stands here twice"),
        (table("'a b': text"), "letters, digits"),
        (table("n: {type: text, from: {key: nope}}"), "no pattern has a part 'nope'; there are id"),
        (table("n: {type: text, from: {field: a, key: id}}"), "one of field, key, constant"),
        (table("n: {type: text, required: 1}"), "required is true or false"),
        (table("n: {type: integer, from: {constant: x}}"), "must be an integer, as the column"),
        (table("n: {type: text, froom: a}"), "'froom' is not known here; there are type, from"),
        (table("n: text", keys="keys: '{id}'"), "begins with a placeholder: begin with a prefix"),
        (table("n: text", keys="keys: '/t/{id'"), r"a placeholder is \{name\}"),
        (table("n: text", keys="keys: '/{id}/{id}'"), "names id twice"),
        (table("n: text", keys="paths: '{id}.a'"), "begin with a root"),
        (table("n: text", keys="paths: 'a..{id}'"), "malformed path"),
        (table("n: text", keys=""), "give either keys, .* or paths"),
        (table("n: text", more="interval: 0"), "seconds over 0"),
        (table("n: text", more="delete: later"), r"right is remove, or \{mark: COLUMN\}"),
        (table("n: text", more="delete: {mark: n}"), "n is one of the columns"),
        (table("n: text").replace("primary_key: id", "primary_key: x"), "no column x; there are"),
        (table("n: text").replace("primary_key: id", "primary_key: n"), "right is string"),
        (table("n: string(800)").replace("key: id\n", "key: [id, n]\n"), "at most 768 work"),
        (table("n: text") + table("n: text", keys="paths: 'a.{id}'").replace("tables:", "")
         .replace("s.t", "s.u"), "others paths of tega: make it two files"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_where_and_what(text: str, says: str) -> None:
    with pytest.raises(Malformed, match=says) as caught:
        load(text, "m")
    assert str(caught.value).startswith("mapping m: ")


def test_prefixes_within_each_other_are_one_scope() -> None:
    text = "tables:\n" + "".join(
        f"  {name}: {{keys: '{keys}', primary_key: a, interval: {every}, "
        "columns: {a: string(9)}}\n"
        for name, keys, every in (("x", "/a/{n}", 9), ("y", "/a/b/{n}", 4), ("z", "/c/{n}", 7))
    )
    scopes = load(text, "m").scopes
    assert [(scope.prefix, scope.interval(1)) for scope in scopes] == [(b"/a/", 4), (b"/c/", 7)]
    paths = text.replace("keys", "paths").replace("/a/b/", "a.b.").replace("/a/", "a.")
    scopes = load(paths.replace("/c/", "ab."), "m").scopes
    assert [scope.prefix for scope in scopes] == [b"a", b"ab"]


def test_the_digest_is_of_rows_and_not_of_intervals() -> None:
    first, other = table("n: text", more="interval: 3"), table("n: text", more="interval: 4")
    assert load(first, "m").digest == load(other, "n").digest
    assert load(first, "m").digest != load(table("n: json"), "m").digest


def test_a_row_has_one_id_whatever_key_it_comes_from() -> None:
    mapping = TITANIA
    scope = mapping.scopes[0]
    one = mapping.row(scope, b"/Device/a/0", b'{"deviceName": "d"}')
    other = mapping.row(scope, b"/Device/b", b'{"deviceName": "d", "os": "x"}')
    third = mapping.row(scope, b"/Device/a/0", b'{"deviceName": "D"}')
    assert one.id == other.id == one.table.id_of(other.values) != third.id


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SERVICE": "Device,Node"}, "variable SERVICE: .* right is Device, Pod, or both"),
        ({"MY_ETCD_PORT": "x"}, "variable MY_ETCD_PORT"),
        ({"MY_MYSQL_PORT": "70000"}, "variable MY_MYSQL_PORT"),
        ({"POD_INTERVAL": "-1"}, "variable POD_INTERVAL: '-1' is wrong; right is seconds over 0"),
    ],
)
def test_wrong_variables_of_titania(variables: dict[str, str], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        preset.titania(variables)


def test_the_variables_of_titania() -> None:
    made = preset.titania({
        "MY_ETCD_HOST": "etcd", "MY_ETCD_PORT": "1", "MY_MYSQL_HOST": "sql", "MY_MYSQL_PORT": "2",
        "MY_MYSQL_USER": "me", "MY_MYSQL_PASSWORD": "p@ss/", "SERVICE": "pod", "POD_INTERVAL": "7",
    })  # fmt: skip
    assert made.source == "etcd://etcd:1/"
    assert made.sink.render_as_string(hide_password=False) == "mysql+pymysql://me:p%40ss%2F@sql:2"
    assert [(table.title, table.interval) for table in made.mapping.tables] == [("Pod.pod", 7)]
    plain = preset.titania({})
    assert plain.source == "etcd://127.0.0.1:2379/"
    assert plain.mapping.digest == TITANIA.digest
