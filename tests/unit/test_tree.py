"""Containers and leaves: what people write their documents with."""

import copy
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega.errors import LeafInTheWay, Malformed, NotFound
from tega.tree import Cont, Func

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = text.filter(lambda key: key and not key.startswith("_"))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
scalars = scalars.filter(lambda value: not isinstance(value, float) or math.isfinite(value))
opaque = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
)
leaves = scalars | st.lists(opaque, max_size=3)
documents = st.dictionaries(
    keys,
    st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=4)),
    max_size=4,
)


def cont_of(document):
    r = Cont("r")
    r.update(document)
    return r


def places(node):
    """Everything that a node and all below it say of themselves, apart from the content."""
    nodes = node.walk_() if isinstance(node, Cont) else [node]
    return [
        n and (n.qname_(), n._version, n._ephemeral, n.is_ephemeral_(), type(n)) for n in nodes
    ]


def sample():
    """A document with a leaf of every kind, each node with a version of its own."""
    r = Cont("r")
    r.update({"b": True, "i": 7, "f": 1.5, "s": "x", "l": [1, {"k": [2]}], "none": None})
    r.c.d.e = 1
    r.empty = {}
    r.rpc = Func("owner", max)
    for version, node in enumerate(r.walk_()):
        if node is not None:
            node._version = version
    r.c.d.ephemeral_()
    r.i.ephemeral_()
    return r


class TestAccess:
    def test_attribute_and_item_are_the_same(self):
        r = Cont("r")
        r.a.b.c = 1
        r["a"]["b"]["d"] = 2
        assert r["a"]["b"]["c"] == 1
        assert r.a.b.d == 2
        assert r.a is r["a"]
        assert r == {"a": {"b": {"c": 1, "d": 2}}}

    def test_integer_keys_are_strings(self):
        r = Cont("r")
        r.a[0] = 0
        r.a[-1].x = 1
        assert r.a["0"] == 0
        assert 0 in r.a
        assert r.a == {0: 0, -1: {"x": 1}}
        assert r.a.serialize_() == {"0": 0, "-1": {"x": 1}}
        assert r.a[-1].x.qname_() == ["r", "a", "-1", "x"]
        del r.a[0]
        assert list(r.a) == ["-1"]

    @pytest.mark.parametrize("name", ["items", "get", "keys", "update", "pop", "copy_", "qname_"])
    def test_a_child_may_be_named_like_a_method(self, name):
        c = Cont("c")
        method = getattr(c, name)
        setattr(c, name, 1)
        assert c[name] == 1
        assert getattr(c, name) == method
        delattr(c, name)
        assert name not in c

    def test_deleting(self):
        r = cont_of({"a": 1, "b": 2, "c": 3})
        del r.a
        del r["b"]
        assert r.pop("c") == 3
        assert r == {}
        with pytest.raises(AttributeError, match="r has no 'a'"):
            del r.a
        with pytest.raises(NotFound, match="r has no 'b'"):
            del r["b"]
        with pytest.raises(KeyError):
            r.pop("c")
        assert r.pop("c", 5) == 5

    def test_mapping_methods_make_nothing(self):
        r = cont_of({"a": None})
        assert r.get("x") is None
        assert r.get("x", 4) == 4
        assert r.get("a", 4) is None
        assert "x" not in r
        assert [] not in [r]
        assert list(r.items()) == [("a", None)]
        assert r.setdefault("a", 1) is None
        assert r.setdefault("z", 1).qname_() == ["r", "z"]
        r.clear()
        assert len(r) == 0

    @pytest.mark.parametrize("name", ["_x", "__array__", "_repr_html_", "__len_hint__"])
    def test_names_with_an_underscore_are_no_children(self, name):
        r = Cont("r")
        with pytest.raises(AttributeError, match=name):
            getattr(r, name)
        with pytest.raises(AttributeError, match=name):
            setattr(r, name, 1)
        with pytest.raises(Malformed, match="reserved key"):
            r[name] = 1
        with pytest.raises(Malformed, match="reserved key"):
            r.a = {name: 1}
        assert name not in r
        assert r == {}

    def test_attributes(self):
        r = cont_of({"a": 1})
        assert (r._oid, r._parent, r._version, r._ephemeral, r._frozen) == (
            "r",
            None,
            0,
            False,
            False,
        )
        assert r.a.__dict__["_oid"] == "a"
        assert r.a.__dict__["_parent"] is r
        assert r.__dict__["_version"] == 0
        r._version = r.a._version = 5
        assert (r._version, r.a.__dict__["_version"]) == (5, 5)
        assert r == {"a": 1}

    def test_constructor_places(self):
        parent = Cont("p")
        child = Cont("c", parent, 3)
        child.x = 1
        assert (child.x.qname_(), child._version) == (["p", "c", "x"], 3)
        assert parent == {}
        assert Cont(_oid=1)._oid == "1"
        assert Cont().a.b.qname_() == ["a", "b"]
        with pytest.raises(Malformed, match="reserved"):
            Cont("_c")

    @pytest.mark.parametrize(
        ("key", "why"), [("", "empty"), ("k" * 256, "too long"), (1.5, "float"), (True, "bool")]
    )
    def test_bad_keys(self, key, why):
        r = Cont("r")
        with pytest.raises(Malformed, match=why):
            r[key] = 1
        assert r == {}


class TestPending:
    def test_reading_makes_nothing_that_counts(self):
        r = Cont("r")
        child = r.a.b.c
        assert child.qname_() == ["r", "a", "b", "c"]
        assert r.a is r.a
        assert "a" not in r
        assert not r
        assert list(r) == []
        assert list(r.walk_()) == [r]
        assert r == {}
        assert r == Cont("other")
        assert r.serialize_() == {}
        assert pickle.loads(pickle.dumps(r)) == copy.deepcopy(r) == {}

    def test_it_is_there_when_something_is_put_into_it(self):
        r = Cont("r")
        child = r.a.b
        r.a.x.y  # noqa: B018
        child.c = None
        assert r == {"a": {"b": {"c": None}}}
        assert r.a.b is child

    def test_an_explicit_empty_container_is_there(self):
        r = Cont("r")
        r.a = {}
        r.b.c = Cont()
        assert r == {"a": {}, "b": {"c": {}}}
        assert r != {"a": {}}
        assert r.serialize_() == {"a": {}, "b": {"c": {}}}
        assert r.a.is_empty_()
        assert not r.is_empty_()

    def test_a_failed_put_leaves_nothing(self):
        r = Cont("r")
        with pytest.raises(ValueError, match="set"):
            r.a.b = {1}
        assert r == {}

    def test_one_that_was_replaced_does_not_come_back(self):
        r = Cont("r")
        stale = r.a
        r.a = {"x": 1}
        stale.y = 2
        assert r == {"a": {"x": 1}}


class TestAssigning:
    def test_a_loose_container_moves_in(self):
        r, c = Cont("r"), Cont("c")
        c.x = 1
        r.a.b = c
        c.y = 2
        assert r == {"a": {"b": {"x": 1, "y": 2}}}
        assert c.y.qname_() == ["r", "a", "b", "y"]
        r.a.b = c
        assert r.a.b is c

    def test_a_container_of_another_place_is_copied(self):
        r = cont_of({"a": {"x": {"y": 1}}})
        r.b = r.a
        r.b.x.y = 2
        assert r == {"a": {"x": {"y": 1}}, "b": {"x": {"y": 2}}}
        assert r.b.x.y.qname_() == ["r", "b", "x", "y"]
        r.a.self = r
        assert r.a.self.a.x.y.qname_() == ["r", "a", "self", "a", "x", "y"]
        frozen = cont_of({"x": 1}).freeze_()
        r.c = frozen
        r.c.x = 2
        assert frozen == {"x": 1}

    def test_a_leaf_is_not_silently_replaced_by_a_container(self):
        r = cont_of({"a": 1, "s": "x"})
        with pytest.raises(AttributeError, match=r"r\.a is of type Int"):
            r.a.b = 1
        with pytest.raises(AttributeError):
            r.s.b.c = 1
        with pytest.raises(TypeError):
            r.a["b"] = 1
        assert r == {"a": 1, "s": "x"}

    def test_in_place_arithmetic(self):
        r = cont_of({"a": 1})
        r.a += 1
        assert (r.a, r.a.qname_()) == (2, ["r", "a"])

    @given(documents)
    def test_round_trip_with_dict(self, document):
        r = cont_of(document)
        assert r == document
        assert document == r
        assert r.serialize_() == document
        assert json.loads(r.dumps_()) == document
        assert repr(r) == f"Cont({r.serialize_()!r})"
        assert (r != document) is False


class TestCopies:
    @pytest.mark.parametrize(
        "way",
        [
            copy.copy,
            copy.deepcopy,
            lambda node: node.copy_(),
            lambda node: node.copy_(freeze=True),
            lambda node: node.deepcopy_(),
            lambda node: pickle.loads(pickle.dumps(node)),
        ],
    )
    def test_every_node_keeps_content_and_attributes(self, way):
        for node in sample().walk_():
            if node is not None:
                other = way(node)
                assert other is not node
                assert other == node
                assert places(other) == places(node)
                assert other.serialize_(True) == node.serialize_(True)

    @given(documents)
    def test_round_trips(self, document):
        r = cont_of(document)
        for other in (copy.deepcopy(r), pickle.loads(pickle.dumps(r)), r.copy_()):
            assert other == r
            assert places(other) == places(r)
            assert other.serialize_(True) == r.serialize_(True)

    def test_a_deep_copy_is_apart(self):
        r = cont_of({"a": {"b": 1}})
        other = r.a.deepcopy_()
        other.b = 2
        other.delete_()
        assert r == {"a": {"b": 1}}
        assert other.b.qname_() == ["r", "a", "b"]
        other.b.delete_()
        assert (r, other) == ({"a": {"b": 1}}, {})

    def test_a_copy_shares_children_until_it_stands_somewhere(self):
        r = cont_of({"a": {"b": 1}})
        other = r.copy_()
        assert other.a is r.a
        other.x = 1
        assert r == {"a": {"b": 1}}
        home = Cont("home")
        home.o = other
        assert home.o.a.b.qname_() == ["home", "o", "a", "b"]
        home.o.a.b = 2
        assert r.a.b == 1
        assert r.a.b.qname_() == ["r", "a", "b"]

    def test_freezing_a_copy_leaves_the_original(self):
        r = cont_of({"a": {"b": 1}})
        for frozen in (r.copy_(freeze=True), r.copy_().freeze_()):
            with pytest.raises(AttributeError):
                frozen.a.b = 2
        r.a.b = 3
        assert frozen == {"a": {"b": 1}}

    def test_a_pickle_carries_the_names_above_and_not_the_siblings(self):
        r = cont_of({"a": {"b": 1, "secret": "x"}})
        other = pickle.loads(pickle.dumps(r.a.b))
        assert other.qname_() == ["r", "a", "b"]
        assert other.root_() == {}
        assert b"secret" not in pickle.dumps(r.a.b)


class TestSerialize:
    def test_internal_form(self):
        r = Cont("r", _version=2)
        r.b = 3
        r.b._version = 1
        r.c.n = None
        r.c._version = 2
        rest = {"_ephemeral": False}
        assert r.serialize_(internal=True) == {
            "b": {"_value": 3, "_version": 1, "_oid": "b", "_parent": "r", **rest},
            "c": {
                "n": {"_value": None, "_version": 2, "_oid": "n", "_parent": "c", **rest},
                "_version": 2,
                "_oid": "c",
                "_parent": "r",
                **rest,
            },
            "_version": 2,
            "_oid": "r",
            "_parent": None,
            **rest,
        }
        assert json.loads(r.b.dumps_(internal=True)) == r.b.serialize_(True)
        r.l = [1]
        assert r.l.serialize_(True)["_value"] == [1]

    def test_dumps_sorts(self):
        assert cont_of({"b": 1, "a": {"z": 1, "y": "é"}}).dumps_() == '{"a":{"y":"é","z":1},"b":1}'
        assert cont_of({"a": "x"}).a.dumps_() == '"x"'

    def test_ephemeral(self):
        r = cont_of({"a": 1, "b": {"c": 2}, "d": 3})
        assert r.a.ephemeral_() is r.a
        r.b.ephemeral_()
        assert (r.is_ephemeral_(), r.a.is_ephemeral_(), r.d.is_ephemeral_()) == (False, True, False)
        assert r.b.c.is_ephemeral_()
        assert r.serialize_() == {"a": 1, "b": {"c": 2}, "d": 3}
        assert r.serialize_(serialize_ephemeral=False) == {"d": 3}
        assert r.a.serialize_(serialize_ephemeral=False) is None
        assert r.b.c.serialize_(serialize_ephemeral=False) is None
        assert r.d.serialize_(serialize_ephemeral=False) == 3
        assert r.a.serialize_(True)["_ephemeral"] is True

    def test_depth_and_width(self):
        r = Cont("r")
        deep = r
        for _ in range(62):
            deep = deep["k"]
        deep.x = 1
        assert len(deep.x.qname_()) == 64
        assert pickle.loads(pickle.dumps(r)) == copy.deepcopy(r) == json.loads(r.dumps_())
        assert r.freeze_() == r.serialize_()
        wide = cont_of({f"k{i}": i for i in range(10_000)})
        assert len(wide) == 10_000


class TestPlace:
    def test_delete_prunes(self):
        r = cont_of({"a": {"b": {"c": 1}, "d": 2}, "e": {"f": 3}})
        holder = r.a.b
        r.a.b.c.delete_()
        assert r == {"a": {"d": 2}, "e": {"f": 3}}
        r.e.delete_()
        r.a.d.delete_()
        assert r == {}
        holder.c = 4
        assert r == {"a": {"b": {"c": 4}}}

    def test_deleting_what_nobody_holds_does_nothing(self):
        r = cont_of({"a": 1})
        leaf = r.a
        r.delete_()
        leaf.copy_().delete_()
        r.b.c.delete_()
        assert r == {"a": 1}
        r.a = 2
        leaf.delete_()
        assert r == {"a": 2}

    def test_change_moves(self):
        r = cont_of({"a": {"b": {"c": 1}}, "l": 2})
        s = Cont("s")
        b, leaf = r.a.b, r.l
        b.change_(s.x)
        leaf.change_(s)
        assert b.c.qname_() == ["s", "x", "b", "c"]
        assert leaf.qname_() == ["s", "l"]
        assert s == {"x": {"b": {"c": 1}}, "l": 2}
        assert r == {"a": {}}
        b.change_(None)
        assert b.c.qname_() == ["b", "c"]
        assert s == {"x": {}, "l": 2}

    def test_change_refuses_a_loop_and_a_node_without_name(self):
        r = cont_of({"a": {"b": {}}})
        for parent in (r.a, r.a.b):
            with pytest.raises(Malformed, match="cannot move below"):
                r.a.change_(parent)
        with pytest.raises(Malformed, match="without a name cannot move below r"):
            Cont().change_(r)
        assert r == {"a": {"b": {}}}

    def test_change_takes_a_pending_container_along(self):
        r, s = Cont("r"), Cont("s")
        pending = r.a
        pending.change_(s)
        pending.x = 1
        assert (r, s) == ({}, {"a": {"x": 1}})
        r.a.y = 2
        assert (r, s) == ({"a": {"y": 2}}, {"a": {"x": 1}})

    def test_subtree(self):
        r = cont_of({"a": {"10.0.0.0/24": {"m": 1}}})
        assert r.subtree_('a."10.0.0.0/24".m') == 1
        r.subtree_("x.y").z = 2
        assert r.x.y.z == 2
        with pytest.raises(LeafInTheWay, match=r"^r\.x\.y\.z is a leaf"):
            r.subtree_("x.y.z.w")

    def test_merge(self):
        r = cont_of({"a": {"b": 1, "c": 2}, "d": 3, "e": {"f": 4}, "n": 0})
        other = cont_of({"a": {"b": 5}, "d": {"x": 6}, "e": 7, "n": None, "new": {"y": {}}})
        r.merge_(other)
        expected = {"a": {"b": 5, "c": 2}, "d": {"x": 6}, "e": 7, "n": None, "new": {"y": {}}}
        assert r == expected
        assert r.new.y.qname_() == ["r", "new", "y"]
        other.new.y.z = 1
        assert r == expected
        with pytest.raises(Malformed):
            r.merge_({"a": {"b": 8}, "z": b""})
        assert r == expected

    def test_walk(self):
        r = cont_of({"b": {"y": 1, "x": None}, "a": 2})
        assert list(r.walk_()) == [r, 2, r.b, None, 1]
        names = [node and node.qname_() for node in r.b.walk_()]
        assert names == [["r", "b"], None, ["r", "b", "y"]]


class TestFrozen:
    def test_nothing_changes(self):
        r = cont_of({"a": {"b": {"c": 1}}, "d": 2})
        pending = r.p.q
        assert r.freeze_() is r
        assert (r.a.b._frozen, r.a.b.c, r["d"], r._version, r.a._oid) == (True, 1, 2, 0, "a")
        for change in (
            lambda: setattr(r, "d", 3),
            lambda: r.a.b.update(c=3),
            lambda: r.a.pop("b"),
            lambda: delattr(r, "d"),
            lambda: setattr(r.a, "_version", 3),
            lambda: setattr(r.d, "_version", 3),
            lambda: setattr(pending, "x", 3),
            lambda: r.merge_({"d": 3}),
            r.a.b.c.delete_,
            r.a.delete_,
            r.d.ephemeral_,
            r.a.ephemeral_,
            lambda: r.a.change_(Cont("s")),
            lambda: r.d.change_(None),
            lambda: Cont("x").change_(r),
            lambda: r.missing,
            lambda: r.a["missing"],
        ):
            with pytest.raises(AttributeError):
                change()
        assert r == {"a": {"b": {"c": 1}}, "d": 2}
        assert not hasattr(r, "missing")
        assert r.get("missing") is None

    def test_copies_are_not_frozen(self):
        r = cont_of({"a": {"b": 1}}).freeze_()
        for other in (r.deepcopy_(), copy.deepcopy(r), pickle.loads(pickle.dumps(r))):
            other.a.b = 2
            assert other == {"a": {"b": 2}}
        shallow = r.copy_()
        shallow.c = 3
        assert shallow == {"a": {"b": 1}, "c": 3}
        r.a.b.copy_().ephemeral_()
        assert r == {"a": {"b": 1}}

    def test_a_frozen_part_of_a_tree(self):
        r = cont_of({"a": {"b": 1}, "c": 2})
        r.a.freeze_()
        r.c = 3
        with pytest.raises(AttributeError, match=r"r\.a is frozen"):
            r.a.b = 2
        r.a = {"b": 3}
        assert r == {"a": {"b": 3}, "c": 3}
