"""What of a commit reaches whom, and how it reads.

A change at or below what a subscription is on reaches it as it is. A change above is cut down to
the part that the subscription covers. `addressed` finds that for all subscriptions at once; a
`Notice` is what some of them get of one commit, made into JSON once, however many they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Final, TypeAlias

import msgspec

from tega.access import readable
from tega.access.rules import READ, Place, Rights
from tega.errors import NotFound
from tega.paths import Path, dotted, wire
from tega.store import encode, match, node
from tega.store.commit import Change, Commit
from tega.store.history import State
from tega.store.node import ABSENT, Content, MaybeContent
from tega.strictjson import dumps
from tega.topics import Topic, Topics, below

#: A removed subtree whose record does not hold it is written piece by piece.
_INSTANCE: Final = b',"instance":'

#: Steps in which it may be found out at once what a notice says.
_AT_ONCE: Final = 32


class Piece(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One change as a subscriber sees it.

    :ivar content: what was put or removed; of a rollback nothing
    :ivar record: its JSON text, where that is the change's own
    :ivar replaced: what stood there before
    :ivar place: what the rules say there, of whoever may read only some of it; None: of it all
    """

    ope: str
    path: Path
    tega_id: str
    content: Content
    version: int
    record: bytes = b""
    backto: int | None = None
    replaced: MaybeContent = ABSENT
    place: Place | None = None

    def seen_by(self, rights: Rights) -> Generator[bytes, None, Piece | None]:
        """The change as somebody sees it who may read only some of it; None: not at all.

        After some empty pieces: what is hidden may be large.
        """
        place = rights.at(self.path)
        if place.everywhere(READ):
            return self
        if self.ope == "ROLLBACK":
            return self if place.somewhere(READ) else None
        if (yield from readable.look(self.content, place)):
            return msgspec.structs.replace(self, record=b"", place=place)
        if self.ope == "PUT" and (yield from readable.look(self.replaced, place)):
            return msgspec.structs.replace(
                self, ope="DELETE", content=self.replaced, record=b"", place=place
            )
        return None

    def chunks(self, seq: int) -> Iterator[bytes]:
        """The JSON text, in pieces of bounded work."""
        if self.record:
            yield self.record[:-1] + b',"seq":%d}' % seq
            return
        yield b'{"ope":"%b","path":%b,"tega_id":%b,"seq":%d,"version":%d' % (
            self.ope.encode(), dumps(wire(self.path)), dumps(self.tega_id), seq, self.version
        )  # fmt: skip
        if self.backto is not None:
            yield b',"backto":%d,"instance":null}' % self.backto
            return
        yield _INSTANCE
        if self.content is ABSENT:
            yield b"null"
        elif self.place is not None:
            yield from readable.plain(self.content, self.place)
        else:
            yield from encode.plain(self.content)
        yield b"}"

    def as_data(self, seq: int) -> dict[str, Any]:
        """The change as Python users get it: a value of their own."""
        data = {
            "ope": self.ope,
            "path": dotted(self.path),
            "tega_id": self.tega_id,
            "instance": None if self.content is ABSENT else node.thaw(self.content),
            "seq": seq,
            "version": self.version,
        }
        if self.backto is not None:
            data["backto"] = self.backto
        return data


#: What a notice says, after some empty pieces.
_Finding: TypeAlias = Generator[bytes, None, tuple[Piece, ...]]


class Notice:
    """What subscribers get of one commit: its changes in order, as they see them.

    :ivar frame: for whoever sends it: what it has made of the text
    """

    __slots__ = ("_seen", "frame", "pieces", "seq")

    def __init__(self, seq: int, pieces: tuple[Piece, ...]) -> None:
        self.seq = seq
        self.pieces = pieces
        self.frame: Any = None
        self._seen: dict[Rights, Notice | None] = {}

    def seen_by(self, rights: Rights | None) -> Notice | None:
        """What somebody gets of it; None: nothing. Those with the same rights get the same one.

        :param rights: None: may read everything
        """
        if rights is None:
            return self
        try:
            return self._seen[rights]
        except KeyError:
            pass
        notice = _noticed(self.seq, _seen_by(rights, self.pieces))
        if notice is not None and notice.pieces == self.pieces:
            notice = self
        self._seen[rights] = notice
        return notice

    def chunks(self) -> Iterator[bytes]:
        """A JSON list of the changes, in pieces of bounded work."""
        opening = b"["
        for piece in self.pieces:
            for chunk in piece.chunks(self.seq):
                yield opening + chunk
                opening = b""
            opening = b","
        yield b"[]" if opening == b"[" else b"]"

    def as_data(self) -> list[dict[str, Any]]:
        """The changes as Python users get them."""
        return [piece.as_data(self.seq) for piece in self.pieces]


class LateNotice(Notice):
    """A notice of which it takes a while to find out what it says: that is done while it is sent.

    It may come to nothing then: its text is empty.

    :param finding: comes to the pieces, after some empty ones
    """

    __slots__ = ("_finding", "_is_found")

    def __init__(self, seq: int, finding: _Finding) -> None:
        super().__init__(seq, ())
        self._finding = finding
        self._is_found = False

    def _find(self) -> Iterator[bytes]:
        # All who are told find it out together.
        while not self._is_found:
            try:
                yield next(self._finding)
            except StopIteration as end:
                self._is_found, self.pieces = True, end.value

    def chunks(self) -> Iterator[bytes]:
        yield from self._find()
        if self.pieces:
            yield from super().chunks()

    def as_data(self) -> list[dict[str, Any]]:
        deque(self._find(), 0)
        return super().as_data()


def _noticed(seq: int, finding: _Finding) -> Notice | None:
    """A notice of what is found, a late one where that takes a while; None where it is nothing."""
    for _ in range(_AT_ONCE):
        try:
            next(finding)
        except StopIteration as end:
            return Notice(seq, end.value) if end.value else None
    return LateNotice(seq, finding)


def noticed(topics: Topics, commit: Commit, rights: Rights | None) -> Notice | None:
    """What somebody gets of a commit; None: nothing.

    :param topics: all that one's subscriptions, and nobody else's
    :param rights: None: may read everything
    """
    return _noticed(commit.seq, _noted(topics, commit, rights))


def _noted(topics: Topics, commit: Commit, rights: Rights | None) -> _Finding:
    pieces: tuple[Piece, ...] = ()
    for found in addressed(topics, commit):
        if found is None:
            yield b""
        else:
            pieces = found[0].pieces
    if rights is None:
        return pieces
    return (yield from _seen_by(rights, pieces))


def _seen_by(rights: Rights, pieces: Iterable[Piece]) -> _Finding:
    """What somebody sees of some changes."""
    seen = []
    for number, one in enumerate(pieces, 1):
        if number % _AT_ONCE == 0:
            yield b""
        cut = yield from one.seen_by(rights)
        if cut is not None:
            seen.append(cut)
    return tuple(seen)


def addressed(topics: Topics, commit: Commit) -> Iterator[tuple[Notice, list[Any]] | None]:
    """Who gets what of a commit: each notice with all that get just this one.

    None in between is a place to pause; subscriptions may come and go meanwhile.
    """
    if commit.rolled_back is not None:
        yield from _rolled_back(topics, commit)
        return
    if len(commit.changes) == 1:
        # The most common commit: no need to gather by subscriber.
        change = commit.changes[0]
        covering, there = topics.covering(change.path)
        if not any(topic.leads_on for topic in there):
            recipients = _listening_to(covering, commit.seq)
            if recipients:
                yield Notice(commit.seq, (whole(change),)), recipients
            return
    gathered: dict[Any, dict[Any, Piece]] = {}
    for number, change in enumerate(commit.changes):
        for touched in _touched(topics, number, change):
            if touched is None:
                yield None
                continue
            key, piece, topic = touched
            for who in _listening((topic,), commit.seq):
                gathered.setdefault(who, {}).setdefault(key, piece)
    together: dict[tuple[Any, ...], list[Any]] = {}
    for who, pieces in gathered.items():
        yield None
        together.setdefault(tuple(pieces), []).append(who)
    for recipients in together.values():
        yield None
        yield Notice(commit.seq, tuple(gathered[recipients[0]].values())), recipients


def _listening(topics: Iterable[Topic], seq: int) -> Iterator[Any]:
    for topic in topics:
        for who, since in topic.entries.items():
            if since < seq:
                yield who


def _listening_to(topics: list[Topic], seq: int) -> list[Any]:
    """Who listens to any of some topics, each once."""
    if len(topics) == 1 and topics[0].newest < seq:
        return list(topics[0].entries)
    return list(dict.fromkeys(_listening(topics, seq)))


def _touched(
    topics: Topics, number: int, change: Change
) -> Iterator[tuple[Any, Piece, Topic] | None]:
    """The topics that a change touches, each with what it gets, and a key by which to know that."""
    yield None
    covering, there = topics.covering(change.path)
    if covering:
        piece = whole(change)
        for topic in covering:
            yield number, piece, topic
    new = change.content if change.ope == "PUT" else ABSENT
    for topic in there:
        for found in below(topic, change.path, new, change.replaced):
            if found is None:
                yield None
                continue
            below_it, path, content, gone = found
            ope = "PUT" if content is not ABSENT else "DELETE"
            part = content if content is not ABSENT else gone
            cut = Piece(ope, path, change.tega_id, part, change.version, replaced=gone)
            yield (number, path), cut, below_it


def whole(change: Change) -> Piece:
    """A change as it is."""
    # A removed subtree that was too large for its record is not in there, nor what was ephemeral.
    complete = change.ope == "PUT" or (
        _INSTANCE in change.record and getattr(change.content, "mark", None) is None
    )
    return Piece(
        change.ope,
        change.path,
        change.tega_id,
        change.content,
        change.version,
        change.record if complete else b"",
        replaced=change.replaced,
    )


def _rolled_back(topics: Topics, commit: Commit) -> Iterator[tuple[Notice, list[Any]] | None]:
    assert commit.rolled_back is not None
    name, back = commit.rolled_back
    found: dict[Any, None] = {}
    for number, change in enumerate(commit.changes):
        for touched in _touched(topics, number, change):
            if touched is None:
                yield None
            else:
                found.update(dict.fromkeys(_listening((touched[2],), commit.seq)))
    if found:
        version = dict(commit.versions)[name]
        piece = Piece("ROLLBACK", (name,), commit.tega_id, ABSENT, version, backto=-back)
        yield Notice(commit.seq, (piece,)), list(found)


def standing(
    state: State, levels: Path, regex: bool, tega_id: str, rights: Rights | None = None
) -> Iterator[bytes]:
    """What a subscription covers, as it stands: for whoever cannot be told what has changed.

    A JSON list in pieces of bounded work: a PUT for each part that is there; of a path with nothing
    there, a DELETE without an instance.

    :param levels: keys, or with `regex` patterns
    :param rights: of whoever is told; None: may read everything
    """
    opening = b"["
    for piece in _parts(state, levels, regex, tega_id):
        if piece is None:
            yield b""
            continue
        if rights is not None:
            cut = yield from piece.seen_by(rights)
            if cut is None:
                if regex or not rights.at(piece.path).somewhere(READ):
                    continue
                # To whom it is hidden, nothing is there.
                cut = Piece("DELETE", piece.path, tega_id, ABSENT, 0)
            piece = cut
        for chunk in piece.chunks(state.seq):
            yield opening + chunk
            opening = b""
        opening = b","
    yield b"[]" if opening == b"[" else b"]"


def _parts(state: State, levels: Path, regex: bool, tega_id: str) -> Iterator[Piece | None]:
    if regex:
        compiled = match.compile_pattern("\\.".join(levels))
        for found in match.matches(state, compiled):
            if found is None:
                yield None
            else:
                yield Piece("PUT", found.path, tega_id, found.content, found.version)
        return
    try:
        here = state.find(levels)
    except NotFound:
        yield Piece("DELETE", levels, tega_id, ABSENT, 0)
        return
    yield Piece("PUT", levels, tega_id, here.content, here.version)
