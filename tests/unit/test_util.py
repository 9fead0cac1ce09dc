"""The helpers that users import by their old names."""

import doctest
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tega import paths, util
from tega.errors import Malformed
from tega.tree import Cont, Func, Int
from tega.util import (
    deserialize,
    dict2cont,
    edges,
    func_args_kwargs,
    instance2url,
    nested_regex_path,
    path2qname,
    path2url,
    qname2path,
    subtree,
    url2path,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = text.filter(lambda key: key and not key.startswith("_"))
qnames = st.lists(keys, min_size=1, max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
)
documents = st.dictionaries(keys, values, max_size=3)


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(util)
    assert results.failed == 0
    assert results.attempted > 5


class TestPaths:
    @given(qnames)
    def test_round_trips(self, qname):
        path = qname2path(qname)
        assert path2qname(path) == qname
        assert url2path(path2url(path)) == path

    def test_everyday_keys(self):
        assert path2qname('r."eth0.100".ge-0/0/0') == ["r", "eth0.100", "ge-0/0/0"]
        assert path2url('r."eth0.100".ge-0/0/0') == "/r/eth0.100/ge-0%2F0%2F0/"
        assert url2path("/r/2001:db8::1") == "r.2001:db8::1"
        assert url2path("/") == ""

    def test_instance2url(self):
        r = Cont("r")
        r["10.0.0.0/24"].metric = 1
        assert instance2url(r) == "/r/"
        assert instance2url(r["10.0.0.0/24"].metric) == "/r/10.0.0.0%2F24/metric/"

    @pytest.mark.parametrize("bad", ["", "a..b", "a._b", 'a."b'])
    def test_what_is_no_path(self, bad):
        for read in (path2qname, path2url, func_args_kwargs, lambda path: subtree(path, 1)):
            with pytest.raises(Malformed):
                read(bad)


class TestDocuments:
    @given(documents)
    def test_dict2cont(self, document):
        cont = dict2cont(document)
        assert type(cont) is Cont
        assert cont == document
        assert cont.serialize_() == document
        assert cont.qname_() == []

    @given(qnames, values)
    def test_subtree(self, qname, value):
        node = subtree(qname2path(qname), value)
        if value is None:
            assert node is None
        else:
            assert node == value
            assert node.qname_() == qname
            whole = value
            for key in reversed(qname[1:]):
                whole = {key: whole}
            assert node.root_() == whole

    def test_a_root_may_be_a_leaf(self):
        leaf = subtree("r", 7)
        assert (type(leaf), leaf._parent, leaf.qname_()) == (Int, None, ["r"])
        assert subtree("r", {})._parent is None

    def test_subtree_refuses_what_cannot_be_stored(self):
        for path in ("r", "r.a.b"):
            for value in (b"", {"x": {1}}, float("nan")):
                with pytest.raises(Malformed):
                    subtree(path, value)


class TestDeserialize:
    @given(documents, st.data())
    def test_round_trip(self, document, data):
        r = Cont("r")
        r.update(document)
        for node in r.walk_():
            if node is not None:
                node._version = data.draw(st.integers(0, 9))
                node._ephemeral = data.draw(st.booleans())
        for node in r.walk_():
            if node is not None:
                path = qname2path(node.qname_())
                form = json.loads(node.dumps_(internal=True))
                for again in (deserialize(form), deserialize(form, path)):
                    assert again == node
                    assert type(again) is type(node)
                    assert again.serialize_(internal=True) == form
                assert deserialize(form, path).qname_() == node.qname_()

    def test_without_a_path_the_parent_is_known_by_name(self):
        r = Cont("r")
        r.a.b.c = 1
        again = deserialize(r.a.b.serialize_(internal=True))
        assert again.qname_() == ["a", "b"]
        assert again.c.qname_() == ["a", "b", "c"]
        assert again.root_() == {}

    def test_null(self):
        form = {"_value": None, "_version": 1, "_oid": "r", "_parent": None, "_ephemeral": False}
        assert deserialize(form) is None

    def test_a_function_of_another_process_stays_a_string(self):
        r = Cont("r")
        r.f = Func("me", max)
        again = deserialize(r.serialize_(internal=True))
        assert again.serialize_() == {"f": "%me.max"}
        assert isinstance(again.f, str)

    @pytest.mark.parametrize(
        "bad",
        [
            {"a": 1},
            {},
            [],
            None,
            {"_version": 0, "a": 1},
            {"_version": 0, "_oid": "r", "_deleted": True},
            {"_version": 0, "_value": 1, "a": {"_value": 1, "_version": 0}},
            {"_version": 0, "_value": {"x": 1}},
            {"_version": 0, "": {"_value": 1, "_version": 0}},
            {"_version": 0, "_value": float("nan")},
        ],
    )
    def test_anything_else_is_refused(self, bad):
        with pytest.raises(Malformed):
            deserialize(bad)


class TestEdges:
    def test_both_ways_with_versions(self):
        r = Cont("r", _version=2)
        r.update({"b": 1, "a": {"10.0.0.0/24": None}})
        r.a._version, r.b._version = 1, 2
        assert edges(r) == [
            ["r(2)", "r.a(1)"],
            ["r.a(1)", "r(2)"],
            ["r(2)", "r.b(2)"],
            ["r.b(2)", "r(2)"],
            ["r.a(1)", 'r.a."10.0.0.0/24"(1)'],
            ['r.a."10.0.0.0/24"(1)', "r.a(1)"],
        ]
        assert edges(r.a)[0] == ["r.a(1)", 'r.a."10.0.0.0/24"(1)']

    def test_a_leaf_has_none(self):
        assert edges(subtree("r", 1)) == edges(None) == edges(Cont("r")) == []


class TestNestedRegexPath:
    def test_levels(self):
        assert nested_regex_path(r"a\.b\.c") == r"a(\.b(\.c)?)?"
        assert nested_regex_path("a") == "a"
        with pytest.raises(Malformed, match="empty pattern"):
            nested_regex_path("")

    @given(st.lists(st.from_regex(r"[a-z]{1,3}", fullmatch=True), min_size=1, max_size=4))
    def test_it_matches_the_path_and_all_above(self, levels):
        nested = re.compile(nested_regex_path(r"\.".join(levels)))
        for count in range(1, len(levels) + 1):
            assert nested.fullmatch(".".join(levels[:count]))
        assert not nested.fullmatch(".".join(levels) + ".x")


class TestFuncArgsKwargs:
    @pytest.mark.parametrize(
        ("call", "expected"),
        [
            ("r.f(1, 'x', id=3)", ("r.f", [1, "x"], {"id": 3})),
            ("r.f", ("r.f", None, None)),
            (" r.f ( ) ", ("r.f", [], {})),
            ("r.f(1,)", ("r.f", [1], {})),
            ('r.f("a)(b", x="(")', ("r.f", ["a)(b"], {"x": "("})),
            ("r.ge-0/0/0.f(-1, -2.5)", ("r.ge-0/0/0.f", [-1, -2.5], {})),
            ('r."f(x)".g(1)', ('r."f(x)".g', [1], {})),
            (r'r."a\"(".g(1)', (r'r."a\"(".g', [1], {})),
            ('r."f(x)"', ('r."f(x)"', None, None)),
            ("r.f([1, (2,)], {'a': {}, 1: 2})", ("r.f", [[1, [2]], {"a": {}, "1": 2}], {})),
            ("r.f(true, false, null)", ("r.f", [True, False, None], {})),
            ("r.f(True, False, None)", ("r.f", [True, False, None], {})),
            ("r.f(a=[null])", ("r.f", [], {"a": [None]})),
            ("r.f('é\\u00e9')", ("r.f", ["éé"], {})),
            ("r.f(1,\n 2)", ("r.f", [1, 2], {})),
        ],
    )
    def test_calls(self, call, expected):
        assert func_args_kwargs(call) == expected

    @pytest.mark.parametrize(
        "call",
        [
            "",
            "(1)",
            "r.(1)",
            "r._f(1)",
            "r.f(1",
            "r.f(1) x",
            'r."f(1)',
            "r.f(x)",
            "r.f(1)(2)",
            "r.f(1) + (2)",
            "r.f(1), (2)",
            "r.f(1 # 2)",
            "r.f(a=1, a=2)",
            "r.f({'a': 1, 'a': 2})",
            "r.f(**{'a': 1})",
            "r.f({**{}})",
            "r.f(*[1])",
            "r.f(b'x')",
            "r.f({1})",
            "r.f(...)",
            "r.f(1j)",
            "r.f(1e999)",
            "r.f({1.5: 1})",
            "r.f(f'{1}')",
            "r.f(1+1)",
            "r.f([x for x in 'a'])",
            "r.f(lambda: 1)",
            "r.f(y := 1)",
            "r.f(1 if 1 else 2)",
            "r.f(\0)",
            "r.f('\\ud800')",
            pytest.param("r.f(" + "9" * 5000 + ")", id="digits"),
            pytest.param("r.f(" + "[" * 5000 + "]" * 5000 + ")", id="deep"),
            pytest.param("r.f(" + "1+" * 50_000 + "1)", id="sum"),
            pytest.param('"(' * 50_000, id="quotes"),
        ],
    )
    def test_what_is_refused(self, call):
        with pytest.raises(Malformed):
            func_args_kwargs(call)

    def test_nothing_is_evaluated(self, tmp_path):
        file = tmp_path / "made"
        with pytest.raises(Malformed, match="not a literal"):
            func_args_kwargs(f"r.f(open({str(file)!r}, 'w'))")
        assert not file.exists()

    @given(st.lists(values, max_size=3), st.dictionaries(st.sampled_from("abc"), values))
    def test_it_reads_what_func_writes(self, args, kwargs):
        written = str(Func("me", max, *args, **kwargs))
        expected = (args, kwargs) if args or kwargs else (None, None)
        assert func_args_kwargs(written) == (paths.dotted(["%me", "max"]), *expected)
