"""A program to be killed: opens a database and commits from several threads until it is gone.

Each line of its input, a seed, starts one more such process; forked, so that none has to import
anything. They tell of themselves in lines on the same output::

    pid 4711                  the process that this seed started
    state {...}               what it found
    try 2 17                  thread 2 is about to commit its value 17
    did 2 17 {...}            that was acknowledged
    end -9                    the process is gone, and how

Thread N writes its values in turn to root ``own-N``, which starts with value 0 in version 0. Every
third one goes, in the same transaction, to ``shared.N`` as well.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from tega.database import Database, new_life
from tega.errors import NotFound
from tega.log.file import FileLog
from tega.store.commit import Transaction, make_put
from tega.store.node import thaw

ME = "srv"
THREADS = 4


def open_database(directory: Path) -> Database:
    """The database as the children open it: its snapshots come every few hundred commits."""
    return Database(FileLog(directory, ME, new_life, snapshot_size=50_000, keep=1), ME)


def summary(db: Database) -> dict[str, Any]:
    """What the killer compares: the numbers, and each thread's newest values."""
    roots = {name: [r.version, thaw(r.content)] for name, r in sorted(db.state.roots.items())}
    return {"life": db.state.life, "seq": db.state.seq, "roots": roots}


def say(*words: object) -> None:
    """One line, which a kill cannot cut: a pipe takes so little at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def commit_forever(db: Database, number: int, rng: random.Random) -> None:
    root = f"own-{number}"
    try:
        own = thaw(db.find((root,)).content)
    except NotFound:
        own = {"value": -1, "shared": None}
    while True:
        own["value"] += 1
        puts = []
        if own["value"] % 3 == 0:
            own["shared"] = own["value"]
            puts.append(make_put(("shared", str(number)), own["value"]))
        own["text"] = "x" * rng.randrange(300)
        puts.append(make_put((root,), own))
        say("try", number, own["value"])
        result = db.commit(Transaction(tuple(puts), f"t-{number}", f"{number}/{own['value']}"))
        body = {"seq": result.seq, "version": dict(result.versions)[root]}
        say("did", number, own["value"], json.dumps(body))
        if rng.random() < 0.01:
            db.snapshot()


def live(directory: Path, seed: str) -> None:
    say("pid", os.getpid())
    db = open_database(directory)
    db.check()
    say("state", json.dumps(summary(db)))
    threads = [
        threading.Thread(target=commit_forever, args=(db, n, random.Random(f"{seed}/{n}")))
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    directory = Path(sys.argv[1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                live(directory, line.strip())
            finally:
                # Only a bug gets here; the parent sees that nobody killed this one.
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        say("end", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
