r"""Finding nodes by a regex path: one RE2 pattern per level, split at ``\.``.

RE2 matches in linear time, so no pattern can stall the server; what it has not (back references,
look-around) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import re2

from tega.errors import Malformed
from tega.paths import Path, split_pattern
from tega.store.children import in_order
from tega.store.history import State
from tega.store.node import Content, Node, base_of, is_ephemeral, version_of

#: How many keys are tried before the search offers a pause.
_PAUSE = 1_000

#: Most memory of one compiled pattern, bytes.
_MAX_MEMORY = 1 << 20

#: The same where many patterns are kept: those of subscriptions.
_KEPT_MEMORY = 1 << 16


class Match(NamedTuple):
    """A node that a regex path found.

    :ivar groups: a list for each level whose pattern has groups
    :ivar ephemeral: whether it is, or stands below what is
    """

    path: Path
    groups: list[list[str | None]]
    content: Content
    version: int
    ephemeral: bool = False


def compile_pattern(pattern: str) -> tuple[Any, ...]:
    """Compile a regex path: one matcher per level.

    :raises Malformed: naming the level that RE2 refuses, and why
    """
    return tuple([_compile(level, _MAX_MEMORY, groups=True) for level in split_pattern(pattern)])


def compile_level(level: str, parts: int = 1) -> Any:
    """Compile the pattern of one level, to be kept: it may take less memory, and has no groups.

    :param parts: of how many patterns it is made
    :raises Malformed: where RE2 refuses it
    """
    return _compile(level, _KEPT_MEMORY * parts, groups=False)


def _compile(level: str, memory: int, groups: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    # Without groups RE2 matches several times as fast.
    options.never_capture = not groups
    options.max_mem = memory
    try:
        return re2.compile(level, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise Malformed(
            f"malformed pattern {level[:64]!r}: {shown}. A pattern is RE2 syntax, one a level",
            pattern=level[:64],
        ) from None


def matches(state: State, pattern: Sequence[Any]) -> Iterator[Match | None]:
    """Every node whose path matches, in order of path; None now and then as a place to pause."""
    names = {root.name: root for root in state.live_roots()}
    for name, groups in _matching(names, pattern[0], []):
        if name is None:
            yield None
            continue
        root = names[name]
        yield from _below(root.content, root.version, (name,), groups, pattern[1:])


def _below(
    content: Content,
    version: int,
    path: Path,
    groups: list[Any],
    pattern: Sequence[Any],
    ephemeral: bool = False,
) -> Iterator[Match | None]:
    version = version_of(content, version)
    ephemeral = ephemeral or is_ephemeral(content)
    if not pattern:
        yield Match(path, groups, content, version, ephemeral)
        return
    # Also for a leaf: there may be a hundred thousand of them side by side.
    yield None
    if type(content) is Node:
        base = base_of(content, version)
        for key, captured in _matching(content.children, pattern[0], groups):
            if key is None:
                yield None
                continue
            child = content.children[key]
            yield from _below(child, base, (*path, key), captured, pattern[1:], ephemeral)


def _matching(keys: Any, matcher: Any, groups: list[Any]) -> Iterator[tuple[str | None, list[Any]]]:
    found = {}
    for count, key in enumerate(keys, 1):
        match = matcher.match(key)
        if match is not None:
            captured = list(match.groups())
            found[key] = [*groups, captured] if captured else groups
        if count % _PAUSE == 0:
            yield None, groups
    for matching in in_order(found):
        yield matching, groups if matching is None else found[matching]
