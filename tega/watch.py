"""Who hears of what: subscriptions, and commits on their way to them.

Commits come in order, each once it is durable, and are kept in memory for a while. Every watcher is
a cursor over them. One that keeps up is *live*: it is handed each commit's notice as it comes. One
that falls behind, or resumes from before, takes the notices that it missed from what is kept, in
its own time; where that does not reach back far enough it is told what stands there now instead.
So nobody holds up a commit, and what a slow watcher costs is bounded.

Every method may be called from any thread. Notices are delivered by one thread at a time, in order:
by whoever asked for it, or where `Hub.run` says.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from tega.access.rules import SUBSCRIBE
from tega.errors import Malformed, OverLimit
from tega.kept import Kept
from tega.notices import Notice, addressed, noticed
from tega.paths import MAX_DEPTH, dotted, parse, split_pattern
from tega.runs import Runs, guarded
from tega.store.commit import Commit
from tega.subscriber import SCOPE
from tega.topics import Topics
from tega.watcher import Publication, Subscription, Watcher, own_topics

log = logging.getLogger(__name__)

#: Most patterns of one watcher, and most levels of all of them: each takes memory of its own.
_MAX_PATTERNS: Final = 1_000
_MAX_PATTERN_LEVELS: Final = 5_000

#: Most levels of all paths that one watcher subscribes to, for each subscription that it may have.
_LEVELS_EACH: Final = 10


class Census(NamedTuple):
    """Who watches.

    :ivar watchers: those with at least one subscription
    :ivar behind: those of them who catch up
    :ivar lag: how many sequence numbers the one furthest behind has still to be told of
    """

    watchers: int
    subscriptions: int
    behind: int
    lag: int


class Hub:
    """Takes commits and messages, and hands them out.

    :param seq: of the newest commit so far
    :param keep: how many commits are kept for those who resume, at most; see `tega.kept`
    :param most: most subscriptions of one watcher
    :param max_depth: most levels of a subscription
    """

    def __init__(
        self, seq: int, keep: int = 4096, most: int = 10_000, max_depth: int = MAX_DEPTH
    ) -> None:
        #: Runs a delivery: here and now, unless a server wants it on its event loop.
        self.run: Callable[[Callable[[], None]], None] = lambda deliver: deliver()
        self._lock = threading.RLock()
        #: Does what a delivery takes, step by step: to its end, unless a server does it in turns.
        self.go_on: Callable[[Iterator[None]], object] = lambda steps: deque(steps, 0)
        #: Called once there are commits that `kept_after` gives, and after a reset.
        self.committed: Callable[[], None] | None = None
        #: Told of each path or pattern that begins or ceases to be subscribed to in global scope.
        self.wanted: Callable[[str, bool, bool], None] | None = None
        #: Takes to other servers what is published here.
        self.relay: Callable[[Publication], None] | None = None
        self._topics = Topics()
        # Those of global scope once more: messages from other servers go to them only.
        self._global = Topics()
        self._global_count: dict[tuple[str, bool], int] = {}
        self._watchers: dict[Watcher, None] = {}
        self._most = most
        self._max_depth = max_depth
        self._kept = Kept(keep)
        self._queue: deque[Commit] = deque()
        self._delivering = False
        # Whose subscriptions have changed while it was found out who gets what of a commit.
        self._changed: dict[Watcher, None] = {}
        self._resets = 0
        #: Nobody can resume from here or before: what was ephemeral then has gone unrecorded.
        self._start = seq
        self._published = seq
        self._delivered = seq

    # -- subscribing ------------------------------------------------------------------------------

    def subscribe(
        self,
        watcher: Watcher,
        text: str,
        scope: SCOPE = SCOPE.LOCAL,
        regex: bool = False,
        since: int | None = None,
    ) -> Subscription:
        """Let a watcher hear of a path or pattern.

        From `since` on only those hear who are not `Watcher.live` and take what they `missed`.

        :param text: a dotted path, or with `regex` one pattern a level, split at ``\\.``
        :param since: the sequence number after which it wants to hear; by default the newest
        :raises Malformed: for what is neither
        :raises OverLimit: where the watcher has too many
        """
        levels = split_pattern(text) if regex else parse(text)
        if len(levels) > self._max_depth:
            raise Malformed(
                f"a subscription of {len(levels)} levels: the depth limit is {self._max_depth}",
                limit=self._max_depth,
            )
        key = (text if regex else dotted(levels), regex)
        with self._lock:
            had = watcher.subscriptions.get(key)
            if had is None:
                self._check_room(watcher, regex, len(levels))
                watcher.levels[regex] += len(levels)
            start = self._published if since is None else since
            if had is not None and since is None:
                start = had.since
            self._change(watcher)
            made = Subscription(key[0], levels, regex, scope, start)
            self._topics.add(levels, regex, watcher, start)
            watcher.subscriptions[key] = made
            self._watchers[watcher] = None
            self._kept.wanted(self._published)
            if scope is SCOPE.GLOBAL:
                self._global.add(levels, regex, watcher, start)
            else:
                self._global.remove(levels, regex, watcher)
            self._rescope(made, had)
            return made

    def _rescope(self, made: Subscription | None, had: Subscription | None) -> None:
        """Count what is subscribed to in global scope, where `made` is there instead of `had`."""
        for one, more in ((made, 1), (had, -1)):
            if one is not None and one.scope is SCOPE.GLOBAL:
                key = (one.text, one.regex)
                count = self._global_count.get(key, 0) + more
                self._global_count[key] = count
                if not count:
                    del self._global_count[key]
                if self.wanted is not None and count == (more > 0):
                    self.wanted(one.text, one.regex, more > 0)

    def _check_room(self, watcher: Watcher, regex: bool, levels: int) -> None:
        patterns = sum(1 for _, one in watcher.subscriptions if one) if regex else 0
        if len(watcher.subscriptions) >= self._most:
            raise OverLimit(
                f"{watcher.tega_id} has {self._most} subscriptions, the limit: subscribe to a "
                "path above, or to a pattern",
                "subscriptions",
                limit=self._most,
            )
        if patterns >= _MAX_PATTERNS:
            raise OverLimit(
                f"{watcher.tega_id} subscribes to {_MAX_PATTERNS} patterns, the limit",
                "patterns",
                limit=_MAX_PATTERNS,
            )
        most = _MAX_PATTERN_LEVELS if regex else self._most * _LEVELS_EACH
        if watcher.levels[regex] + levels > most:
            raise OverLimit(
                f"the {'patterns' if regex else 'paths'} that {watcher.tega_id} subscribes to have "
                f"{most} levels together, the limit",
                "levels",
                limit=most,
            )

    def _change(self, watcher: Watcher) -> None:
        """The subscriptions of a watcher change."""
        if self._delivering:
            self._changed[watcher] = None

    def begin_at(self, watcher: Watcher, subscription: Subscription, seq: int) -> None:
        """Let a subscription count from another sequence number on."""
        with self._lock:
            self._change(watcher)
            subscription.since = seq
            self._topics.add(subscription.levels, subscription.regex, watcher, seq)

    def unsubscribe(self, watcher: Watcher, text: str, regex: bool = False) -> None:
        """Let a watcher hear of a path or pattern no more; nothing where it did not."""
        levels = split_pattern(text) if regex else parse(text)
        with self._lock:
            self._change(watcher)
            key = (text if regex else dotted(levels), regex)
            had = watcher.subscriptions.pop(key, None)
            if had is not None:
                watcher.levels[regex] -= len(levels)
                self._rescope(None, had)
            self._topics.remove(levels, regex, watcher)
            self._global.remove(levels, regex, watcher)
            if not watcher.subscriptions:
                self._watchers.pop(watcher, None)

    def unsubscribe_all(self, watcher: Watcher) -> None:
        """Let a watcher hear of nothing more."""
        with self._lock:
            self._change(watcher)
            for one in watcher.subscriptions.values():
                self._topics.remove(one.levels, one.regex, watcher)
                self._global.remove(one.levels, one.regex, watcher)
                self._rescope(None, one)
            watcher.subscriptions.clear()
            watcher.levels = {False: 0, True: 0}
            self._watchers.pop(watcher, None)

    def channels(self) -> dict[str, list[str]]:
        """The tega ids that subscribe, by path or pattern."""
        found: dict[str, set[str]] = {}
        for watcher, one in self._all():
            found.setdefault(one.text, set()).add(watcher.tega_id)
        return {text: sorted(found[text]) for text in sorted(found)}

    def subscribers(self) -> dict[str, list[str]]:
        """The paths and patterns that are subscribed to, by tega id."""
        found: dict[str, set[str]] = {}
        for watcher, one in self._all():
            found.setdefault(watcher.tega_id, set()).add(one.text)
        return {tega_id: sorted(found[tega_id]) for tega_id in sorted(found)}

    def global_channels(self) -> list[tuple[str, str]]:
        """The paths and patterns of global scope, with that scope."""
        found = {one.text for _, one in self._all() if one.scope is SCOPE.GLOBAL}
        return [(text, SCOPE.GLOBAL.value) for text in sorted(found)]

    def in_global_scope(self) -> list[tuple[str, bool]]:
        """The paths and patterns of global scope, each with whether it is a pattern."""
        with self._lock:
            return list(self._global_count)

    def _all(self) -> list[tuple[Watcher, Subscription]]:
        with self._lock:
            return [(who, one) for who in self._watchers for one in who.subscriptions.values()]

    def census(self) -> Census:
        """How many watch, and how far those have come who are behind."""
        with self._lock:
            watchers = list(self._watchers)
            cursors = [one.cursor for one in watchers]
            lags = [self._delivered - cursor for cursor in cursors if cursor is not None]
            subscriptions = sum([len(one.subscriptions) for one in watchers])
            return Census(len(watchers), subscriptions, len(lags), max(lags, default=0))

    # -- commits --------------------------------------------------------------------------------

    def publish(self, commits: Sequence[Commit]) -> None:
        """Take commits that are durable now. `deliver` hands them out."""
        with self._lock:
            if not commits:
                return
            self._published = commits[-1].seq
            if self._watchers:
                self._queue.extend(commits)
                # Whoever leaves may come back.
                self._kept.wanted(self._published)
            else:
                # Nobody to hand them to: whoever comes now begins after them.
                self._queue.clear()
                self._delivered = self._published
            self._kept.add(commits)

    def deliver(self) -> None:
        """Hand out what was published."""
        if self._queue:
            self.run(self._deliver)
        if self.committed is not None:
            self.run(self.committed)

    def kept(self) -> list[Commit]:
        """The newest commits, oldest first, as many as are kept."""
        with self._lock:
            return self._kept.all()

    def hold(self) -> None:
        """Keep what comes from now on, as for a watcher: it will be asked for."""
        with self._lock:
            self._kept.wanted(self._published)

    def kept_after(self, seq: int) -> list[Commit] | None:
        """All commits after a sequence number, oldest first; None where not all are kept.

        Who asks goes on from there, as after `hold`.
        """
        with self._lock:
            self._kept.wanted(self._published)
            if not self.keeps(seq):
                return None
            return self._kept.newest(self._published - seq)

    def _deliver(self) -> None:
        with self._lock:
            if self._delivering:
                return
            self._delivering = True
        self.go_on(self._hand_out())

    def _hand_out(self) -> Iterator[None]:
        """Hand out what is in the queue, in steps."""
        runs = Runs()
        while True:
            with self._lock:
                if not self._queue and not runs:
                    self._delivering = False
                    return
                commit = self._queue.popleft() if self._queue else None
                if commit is not None:
                    self._changed.clear()
                    resets = self._resets
                    finding = addressed(self._topics, commit)
            if commit is None:
                runs.end()
                continue
            found: list[tuple[Notice, list[Any]]] = []
            while not self._find(finding, found):
                runs.end()
                yield
            with self._lock:
                if resets != self._resets or commit.seq <= self._delivered:
                    # Cleared meanwhile, or all watchers gone.
                    continue
                self._delivered = commit.seq
                changed = self._changed.copy()
            for notice, watchers in found:
                if changed:
                    watchers = [watcher for watcher in watchers if watcher not in changed]
                runs.add(commit, notice, watchers)
            for watcher in changed:
                runs.end()
                own = noticed(own_topics(watcher), commit, watcher.rights)
                if own is not None and watcher.hears(commit):
                    guarded(watcher, watcher.notify, own)

    def _find(
        self, finding: Iterator[tuple[Notice, list[Any]] | None],
        found: list[tuple[Notice, list[Any]]],
    ) -> bool:
        """Find a little more of who gets what.

        :returns: whether that is all
        """
        with self._lock:
            for one in finding:
                if one is None:
                    return False
                found.append(one)
        return True

    # -- resuming -------------------------------------------------------------------------------

    @property
    def delivered(self) -> int:
        """The sequence number up to which live watchers have been told."""
        return self._delivered

    def keeps(self, after: int) -> bool:
        """Whether all that came after a sequence number is still kept."""
        with self._lock:
            oldest = self._kept.oldest
            return (self._published + 1 if oldest is None else oldest) - 1 <= after

    def resumes_from(self, seq: int) -> bool:
        """Whether somebody who has seen a sequence number, perhaps long ago, can go on from it."""
        # What the last run of the server ended with may have had ephemeral nodes, which are gone
        # without anything having said so.
        return self.keeps(seq) and seq <= self._published and not 0 < seq <= self._start

    def missed(self, watcher: Watcher, after: int) -> Iterator[tuple[int, Notice | None]]:
        """What a watcher would have been told after a sequence number, were it live.

        Each of its subscriptions counts from its own `Subscription.since`. Another thread may let
        go of old commits meanwhile: then there is a gap in the numbers, or they end too early.

        :returns: sequence number by sequence number the notice, where there is one for it
        """
        own = own_topics(watcher)
        while after < self._delivered:
            with self._lock:
                batch = self._kept.after(after, 64)
            for commit in batch:
                if commit.seq > self._delivered:
                    return
                hears = commit.tega_id != watcher.tega_id
                yield commit.seq, noticed(own, commit, watcher.rights) if hears else None
                after = commit.seq
            if not batch:
                return

    def reset(self) -> Callable[[], None]:
        """Begin anew, at number 0: the database was cleared.

        :returns: tells the watchers; to be called once no lock is held
        """
        with self._lock:
            self._queue.clear()
            self._kept.clear()
            self._start = self._published = self._delivered = 0
            self._resets += 1
            watchers = list(self._watchers)
            for watcher in watchers:
                for one in watcher.subscriptions.values():
                    one.since = 0
                    self._topics.add(one.levels, one.regex, watcher, 0)

        def tell_all() -> None:
            for watcher in watchers:
                watcher.cleared()
            if self.committed is not None:
                self.committed()

        return lambda: self.run(tell_all)

    # -- messages -------------------------------------------------------------------------------

    def tell(
        self, publication: Publication, sender: Watcher | None = None, elsewhere: bool = False
    ) -> int:
        """Hand a message to all that subscribe to its channel, but for who sends it.

        :param elsewhere: whether it was published on another server: then only those of global
            scope get it
        :returns: how many that were
        """
        with self._lock:
            found: dict[Watcher, None] = {}
            for topic in (self._global if elsewhere else self._topics).at(publication.channel):
                found.update(dict.fromkeys(topic.entries))
        if sender is not None:
            found.pop(sender, None)
        for watcher in found:
            rights = watcher.rights
            if rights is not None and not rights.at(publication.channel).may(SUBSCRIBE):
                continue
            try:
                watcher.tell(publication)
            except Exception:
                log.exception("%s failed on a message; the others get it", watcher.tega_id)
        if self.relay is not None and not elsewhere:
            self.relay(publication)
        return len(found)
