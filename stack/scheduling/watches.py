"""Watches: who waits for the ends of which runs.  An end costs those who wait for it, a question what has ended.

A watch has a name, which whoever waits makes up, and is told of a run once.  It keeps what has ended, in order, until
whoever waits says up to where that has arrived: a question whose answer was lost is answered the same again.  Watches
live in memory: of one that is not known (any more) whoever waits is told so, and begins another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from airside.stack.flag import Flag
from airside.stack.ids import RunId

KEPT_S = 120.0
"""How long a watch is kept that nobody asks: many times as long as a question waits."""

MOST_AT_ONCE, MOST_BYTES = 1_000, 4 * 2**20
"""Ends in one answer of a watch that goes on, and bytes of them, but for one that is larger by itself."""


class Watch:
    """The ends one caller waits for.

    `first` = how many have arrived; `news` is set while there are others; `unknown` are the runs that may have ended
    long ago; `born` tells it from any other watch, even one of the same name, which does not know its runs.
    """

    __slots__ = ("asked_s", "born", "ends", "first", "news", "run_ids", "unknown")

    def __init__(self, born: str) -> None:
        self.born = born
        self.run_ids: set[RunId] = set()
        self.unknown: set[RunId] = set()
        self.ends: list[tuple[RunId, bytes]] = []
        self.first = 0
        self.news = Flag()
        self.asked_s = 0.0

    def arrived(self, after: int) -> None:
        """Take in that so many ends have arrived in all."""
        gone = max(0, min(after - self.first, len(self.ends)))
        if gone:
            del self.ends[:gone]
            self.first += gone
            if not self.ends:
                self.news = Flag()

    def next_ends(self) -> tuple[dict[str, bytes], int]:
        """Return the ends that are next, a bounded number, and how many will have arrived with them."""
        found: list[tuple[RunId, bytes]] = []
        size = 0
        for run_id, body in self.ends[:MOST_AT_ONCE]:
            size += len(body)
            if found and size > MOST_BYTES:
                break
            found.append((run_id, body))
        return dict(found), self.first + len(found)

    def all_ends(self) -> tuple[dict[str, bytes], int]:
        """Return all ends, and how many will have arrived with them."""
        return dict(self.ends), self.first + len(self.ends)


class Watches:
    """All watches of a cell; `mark` is that of no other life of the driver."""

    def __init__(self, mark: str, kept_s: float = KEPT_S) -> None:
        self._mark = mark
        self._made_so_far = 0
        self._kept_s = kept_s
        self._by_name: OrderedDict[str, Watch] = OrderedDict()
        self._by_run: dict[RunId, list[Watch]] = {}

    def begin(self, name: str, now_s: float) -> Watch:
        """Return the watch of a name, a new one if there is none; one without a name is its caller's to `drop`."""
        self.forget_idle(now_s)
        return self.find(name, now_s) or self._made(name, now_s)

    def _made(self, name: str, now_s: float) -> Watch:
        self._made_so_far += 1
        watch = Watch(f"{self._mark}-{self._made_so_far}")
        watch.asked_s = now_s
        if name:
            self._by_name[name] = watch
        return watch

    def find(self, name: str, now_s: float) -> Watch | None:
        """Return the watch of a name, None if it is not known."""
        watch = self._by_name.get(name)
        if watch is not None:
            watch.asked_s = now_s
            self._by_name.move_to_end(name)
        return watch

    def add(self, watch: Watch, run_ids: Iterable[RunId]) -> None:
        """Have a watch told when these end; one that it knows already changes nothing."""
        for run_id in run_ids:
            if run_id not in watch.run_ids:
                watch.run_ids.add(run_id)
                self._by_run.setdefault(run_id, []).append(watch)

    def ended(self, run_id: RunId, body: bytes) -> None:
        """Tell those who wait for a run that it has ended."""
        for watch in self._by_run.pop(run_id, ()):
            watch.run_ids.discard(run_id)
            watch.unknown.discard(run_id)
            watch.ends.append((run_id, body))
            watch.news.set()

    def drop(self, watch: Watch) -> None:
        """Forget a watch."""
        for run_id in watch.run_ids:
            others = self._by_run.get(run_id, [])
            others.remove(watch)
            if not others:
                del self._by_run[run_id]
        watch.run_ids, watch.unknown = set(), set()

    def forget_idle(self, now_s: float) -> None:
        """Forget the watches that nobody has asked for long, with the ends they keep."""
        while self._by_name:
            name, watch = next(iter(self._by_name.items()))
            if now_s - watch.asked_s < self._kept_s:
                return
            del self._by_name[name]
            self.drop(watch)

    def __len__(self) -> int:
        return len(self._by_name)
