"""What somebody sees of a state: all answers that show what is stored are made here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from tega import strictjson
from tega.access import readable
from tega.access.rules import READ, Place
from tega.access.who import Who
from tega.errors import NoSuchVersion, NotFound
from tega.paths import Path, dotted
from tega.store import encode, match
from tega.store.history import Root, State
from tega.store.node import ABSENT, Content, Found, MaybeContent
from tega.web.turns import Work


class Seen:
    """What stands at a path, for whoever may see some of it.

    :ivar place: what the rules say there; None: all of it is seen
    """

    __slots__ = ("_found", "_path", "_place")

    def __init__(self, found: Found, path: Path, place: Place | None) -> None:
        self._found = found
        self._path = path
        self._place = place

    @property
    def version(self) -> int:
        """The version of the node."""
        return self._found.version

    def body(self, internal: bool) -> Iterator[bytes]:
        """Its JSON text, in pieces of bounded work."""
        content, path = self._found.content, self._path
        if not internal:
            return _plain(content, self._place)
        parent = path[-2] if len(path) > 1 else None
        return _internal(
            content, self._found.version, path[-1], parent, self._place, self._found.ephemeral
        )


def find(state: State, who: Who, path: Path, version: int | None) -> Work[Seen]:
    """What stands at a path.

    :raises NotFound: where nothing does that may be read, or that version is not there
    :raises Forbidden, Unauthorized: where nothing may be read, whatever stands there
    """
    if who.rights is None:
        return Seen(state.find(path, version), path, None)
    who.check_sight(path, READ)
    place = who.rights.at(path)
    try:
        found = state.find(path, version)
    except NotFound as error:
        # Which versions there are would tell that there is something.
        if who.reads(path[:1] if isinstance(error, NoSuchVersion) else path):
            raise
        raise _nothing(path) from None
    if not (yield from readable.look(found.content, place)):
        raise _nothing(path)
    return Seen(found, path, place)


def _nothing(path: Path) -> NotFound:
    return NotFound(f"nothing at {dotted(path)}", path=dotted(path))


def knows(state: State, who: Who, name: str) -> Work[bool]:
    """Whether somebody may know that there is a root: some version of it has something to read."""
    if who.rights is None:
        return True
    root, place = state.roots.get(name), who.rights.at((name,))
    if root is None or place.may(READ):
        return place.may(READ)
    for version in range(root.first, root.version + 1):
        if (yield from readable.look(root.at(version), place)):
            return True
    return False


def known(state: State, who: Who, names: Iterable[str]) -> Work[list[str]]:
    """Those of some roots that somebody may know of."""
    found = []
    for name in names:
        yield b""
        if (yield from knows(state, who, name)):
            found.append(name)
    return found


def followed(state: State, who: Who, names: Collection[str] | None) -> list[str]:
    """The roots that other servers lead, of some or (None) of all, as far as somebody sees them."""
    found = [name for name in state.following if names is None or name in names]
    return sorted(name for name in found if who.sees((name,)))


def roots(state: State, who: Who) -> Work[list[Root]]:
    """The roots in which something may be read."""
    found = state.live_roots()
    if who.rights is None:
        return found
    seen = []
    for one in found:
        yield b""
        if (yield from readable.look(one.content, who.rights.at((one.name,)))):
            seen.append(one)
    return seen


def all_roots(state: State, who: Who, internal: bool) -> Iterator[bytes]:
    """The whole database as one JSON object."""
    opening = b"{"
    for root in (yield from roots(state, who)):
        place = _place(who, (root.name,))
        yield opening + strictjson.dumps(root.name) + b":"
        if internal:
            yield from _internal(root.content, root.version, root.name, None, place)
        else:
            yield from _plain(root.content, place)
        opening = b","
    yield b"{}" if opening == b"{" else b"}"


def matching(
    state: State, who: Who, pattern: tuple[Any, ...], internal: bool
) -> Iterator[bytes]:
    """Every match of a regex path: an object by path, with captured groups and subtree."""
    opening = b"{"
    for one in match.matches(state, pattern):
        if one is None:
            yield b""
            continue
        place = _place(who, one.path)
        if place is not None and not (yield from readable.look(one.content, place)):
            yield b""
            continue
        yield opening + strictjson.dumps(dotted(one.path)) + b':{"groups":'
        yield strictjson.dumps(one.groups) + b',"instance":'
        if internal:
            parent = one.path[-2] if len(one.path) > 1 else None
            yield from _internal(
                one.content, one.version, one.path[-1], parent, place, one.ephemeral
            )
        else:
            yield from _plain(one.content, place)
        yield b"}"
        opening = b","
    yield b"{}" if opening == b"{" else b"}"


def candidate(found: list[tuple[str, int, MaybeContent]], who: Who) -> Iterator[bytes]:
    """The roots that a transaction touches, as its commit would leave them."""
    opening = b"["
    for name, version, content in found:
        place = _place(who, (name,))
        if content is ABSENT:
            text = iter((strictjson.dumps({"_deleted": True, "_oid": name}),))
        elif place is not None and not (yield from readable.look(content, place)):
            continue
        else:
            text = _internal(content, version, name, None, place)
        yield opening
        yield from text
        opening = b","
    yield b"[]" if opening == b"[" else b"]"


def _place(who: Who, path: Path) -> Place | None:
    return None if who.rights is None else who.rights.at(path)


def _plain(content: Content, place: Place | None) -> Iterator[bytes]:
    return encode.plain(content) if place is None else readable.plain(content, place)


def _internal(
    content: Content,
    version: int,
    oid: str,
    parent: str | None,
    place: Place | None,
    ephemeral: bool = False,
) -> Iterator[bytes]:
    if place is None:
        return encode.internal(content, version, oid, parent, ephemeral)
    return readable.internal(content, version, oid, parent, place, ephemeral)
