"""Leaves: plain values that know their place, and functions among them."""

import enum
import math
from collections import OrderedDict, namedtuple

import pytest

from tega.errors import Malformed
from tega.tree import RPC, Bool, Cont, Float, Func, Int, Str, Tuple


def cont_of(document):
    r = Cont("r")
    r.update(document)
    return r


class TestValues:
    @pytest.mark.parametrize(
        ("value", "kind"),
        [(True, Bool), (7, Int), (2**200, Int), (1.5, Float), ("x", Str), ((1,), Tuple)],
    )
    def test_leaves_are_their_plain_value(self, value, kind):
        r = cont_of({"a": value})
        leaf = r.a
        assert type(leaf) is kind
        assert leaf == value
        assert value == leaf
        assert (leaf != value) is False
        assert hash(leaf) == hash(value)
        assert (str(leaf), repr(leaf), f"{leaf}") == (str(value), repr(value), f"{value}")
        assert bool(leaf) == bool(value)
        assert leaf.serialize_() == value or kind is Tuple
        assert leaf.qname_() == ["r", "a"]
        assert leaf.root_() is r
        assert isinstance(leaf, type(value)) or kind is Bool

    def test_false_is_false(self):
        r = cont_of({"a": False})
        assert not r.a
        assert (r.a == False, str(r.a), hash(r.a)) == (True, "False", 0)  # noqa: E712
        assert r.dumps_() == '{"a":false}'
        assert r.a.serialize_() is False

    def test_null_is_none(self):
        r = cont_of({"a": None})
        assert r.a is None
        assert "a" in r
        assert r.dumps_() == '{"a":null}'

    def test_a_list_becomes_a_tuple_of_data_of_its_own(self):
        given = [1, {"_k": [True]}, (2,)]
        r = cont_of({"a": given})
        assert r.a == [*given[:2], [2]]
        assert r.a == (1, {"_k": [True]}, [2])
        assert r.a != [1]
        assert (r.a != [1, {"_k": [True]}, [2]]) is False
        assert r == {"a": [1, {"_k": [True]}, [2]]}
        given[1]["_k"].append(0)
        given.append(3)
        r.serialize_()["a"].append(4)
        r.deepcopy_().a[1]["_k"].append(5)
        assert r.serialize_() == {"a": [1, {"_k": [True]}, [2]]}

    def test_subclasses_count_as_what_they_extend(self):
        class Colour(str, enum.Enum):
            RED = "red"

        pair = namedtuple("pair", "x y")
        r = cont_of({"a": OrderedDict(b=1), "c": Colour.RED, "d": pair(1, 2)})
        r.e = enum.IntEnum("Count", "ONE").ONE
        assert r.dumps_() == '{"a":{"b":1},"c":"red","d":[1,2],"e":1}'

    def test_nodes_inside_a_list_become_data(self):
        r = cont_of({"b": True, "c": {"d": "x"}})
        r.a = [r.b, r.c]
        assert r.dumps_() == '{"a":[true,{"d":"x"}],"b":true,"c":{"d":"x"}}'
        assert type(r.a[0]) is bool

    @pytest.mark.parametrize(
        ("value", "name"),
        [(b"x", "bytes"), ({1}, "set"), (object(), "object"), (max, "builtin"), (1j, "complex")],
    )
    def test_other_types_are_refused_by_name(self, value, name):
        r = cont_of({"kept": 1})
        for bad in (value, [value], {"deep": {"er": value}}, [{"x": value}]):
            with pytest.raises(ValueError, match=name) as caught:
                r.a.b = bad
            assert str(caught.value).startswith("r.a.b")
        with pytest.raises(Malformed, match=r"^r\.x\.y\.z: "):
            r.x = {"y": {"z": value}}
        assert r == {"kept": 1}

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, -math.inf, "\ud800", 10**4300],
        ids=["nan", "inf", "-inf", "surrogate", "huge"],
    )
    def test_what_json_cannot_say_is_refused(self, value):
        r = Cont("r")
        for bad in (value, [value], {"b": value}, [{"b": [value]}]):
            with pytest.raises(Malformed):
                r.a = bad
        assert r == {}

    def test_duplicate_keys(self):
        r = Cont("r")
        for bad in ({1: 1, "1": 2}, [{1: 1, "1": 2}]):
            with pytest.raises(Malformed, match="duplicate"):
                r.a = bad

    def test_what_holds_itself_is_refused(self):
        r = Cont("r")
        loop = {"x": {}}
        loop["x"]["y"] = loop
        ring = []
        ring.append(ring)
        for bad in (loop, ring):
            with pytest.raises(Malformed, match="nested too deep"):
                r.a = bad
        assert r == {}


def area(width, height=1):
    return [width, height]


class TestFunc:
    def test_calls(self):
        assert Func("me", area)(2, height=3) == [2, 3]
        assert Func("me", area, 4, height=5)() == [4, 5]
        assert Func(owner_id="me", func=area)(1) == [1, 1]

    def test_bound_arguments_take_no_others(self):
        func = Func("me", area, 4)
        with pytest.raises(ValueError, match=r"%me\.area\(4\)"):
            func(5)
        with pytest.raises(ValueError, match="bound"):
            func(height=5)

    def test_text(self):
        assert str(Func("me", area)) == "%me.area"
        assert str(Func("me.too", area, 1, "x", a=2)) == '%me.too.area(1,"x",a=2)'
        assert str(Func("me", area, None, True, [1.5, {"k": "é"}])) == (
            '%me.area(null,true,[1.5,{"k":"é"}])'
        )
        assert repr(Func("me", area)) == "Func(%me.area)"

    def test_equality(self):
        func = Func("me", area, 1)
        assert func == area
        assert area == func
        assert hash(func) == hash(area)
        assert func != max
        assert func == Func("me", area, 1)
        assert func != Func("me", area, 2)
        assert func != Func("you", area, 1)

    def test_arguments_are_its_own(self):
        given = [1]
        func = Func("me", area, given)
        given.append(2)
        assert func() == [[1], 1]

    @pytest.mark.parametrize("given", [("_me", area), ("me", 5), ("me", area, b"x"), ("a b", area)])
    def test_refusals(self, given):
        with pytest.raises(Malformed):
            Func(*given)

    def test_in_a_tree_it_is_an_rpc(self):
        r = Cont("r")
        r.f = Func("me", area)
        r.g = Func("me", area, 7)
        assert type(r.f) is RPC
        assert (r.f.owner_id, r.f(1, height=2), r.g()) == ("me", [1, 2], [7, 1])
        assert (str(r.f), repr(r.f)) == ("%me.area", "RPC(%me.area)")
        assert r.f == area
        assert r.f == Func("me", area)
        assert Func("me", area) == r.f
        assert r.f != r.g
        assert hash(r.f) == hash(area)
        assert r.f.qname_() == ["r", "f"]
        assert r.serialize_() == {"f": "%me.area", "g": "%me.area(7)"}
        assert r.f.serialize_(True)["_value"] == "%me.area"
        r.sub = type("Sub", (Func,), {})("me", area)
        assert r.sub(4) == [4, 1]
        r.h = r.f
        assert (r.h(3), r.h.qname_(), r.f.qname_()) == ([3, 1], ["r", "h"], ["r", "f"])
        with pytest.raises(ValueError, match="bound"):
            r.g(1)
