"""YAML in, strictly: what others take in silence, tega refuses or leaves as it is written.

Refused are keys that stand twice, of which the last would count, and tags, which ask for other
things than plain values. ``yes``, ``12:30`` and dates are texts, as whoever writes them means them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

from tega.errors import Malformed

_TAG: Final = "tag:yaml.org,2002:"

#: What a scalar without quotes is where it is not text: how it looks, and how that can begin.
_SCALARS: Final = {
    "null": (r"~|null|Null|NULL|", ("", "~", "n", "N")),
    "bool": (r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    "int": (r"0|-?[1-9][0-9]*", tuple("-0123456789")),
    "float": (r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", tuple("-0123456789")),
}


def _resolvers(*kinds: str) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """What tells these kinds of scalars, by their first character."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for kind in kinds:
        pattern, beginnings = _SCALARS[kind]
        for first in beginnings:
            found.setdefault(first, []).append((_TAG + kind, re.compile(rf"(?:{pattern})\Z")))
    return found


def _constructors(*kinds: str) -> dict[Any, Any]:
    """What makes values of tags: of others it raises whatever it likes."""
    made = yaml.SafeLoader.yaml_constructors
    return {None: made[None]} | {_TAG + kind: made[_TAG + kind] for kind in ("str", "seq", *kinds)}


class _Texts(yaml.SafeLoader):
    """Every scalar as text, but for null."""

    yaml_implicit_resolvers = _resolvers("null")
    yaml_constructors = _constructors("map", "null")

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(name, deep=True)
            if isinstance(key, Hashable):  # Others are refused below.
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands here twice", name.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


class _Values(_Texts):
    """Scalars as JSON has them."""

    yaml_implicit_resolvers = _resolvers("null", "bool", "int", "float")
    yaml_constructors = _constructors("map", "null", "bool", "int", "float")


def loads(text: str, only_texts: bool = False) -> Any:
    """Read one YAML document.

    :param only_texts: every scalar is text, whatever it looks like, but for null
    :returns: dict, list, str, int, float, bool or None
    :raises Malformed: saying what is wrong, and where
    """
    try:
        # Subclasses of SafeLoader: they make nothing but plain values.
        return yaml.load(text, Loader=_Texts if only_texts else _Values)  # noqa: S506
    except yaml.YAMLError as error:
        raise Malformed(" ".join(str(error).split())) from None
    except RecursionError:
        raise Malformed("nested too deep") from None
