"""``scripts/fuzz``: looks for inputs that get somewhere new in tega's own code, and keeps them."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from targets import CORPUS, LARGEST, TARGETS

#: Seconds that one input may take, with all that is counted meanwhile.
_PATIENCE = 10


def fuzz(name: str, seconds: int, seed: int) -> bool:
    """Fuzz one target; what is new goes into its corpus.

    :returns: whether every input did as it should. One that did not is in the corpus too
    """
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    before = set(corpus.iterdir())
    with tempfile.TemporaryDirectory() as directory:
        found = Path(directory, "found")
        found.mkdir()
        words = Path(directory, "words")
        words.write_text("".join([f"{_quoted(word)}\n" for word in TARGETS[name].words]))
        does_well = _run(
            name, found, corpus, f"-dict={words}", f"-max_total_time={seconds}", f"-seed={seed}",
            f"-artifact_prefix={corpus}/",
        )  # fmt: skip
        # Of what was found, as little as gets to as many places.
        _run(name, "-merge=1", corpus, found)
    new = set(corpus.iterdir()) - before
    print(f"{name}: {'' if does_well else 'FAILED, '}{len(new)} new", flush=True)
    return does_well


def _run(name: str, *arguments: str | Path) -> bool:
    """Let libFuzzer work on a target; what it says is shown where something is wrong."""
    done = subprocess.run(
        [
            sys.executable, Path(__file__).with_name("fuzzone.py"), name, *arguments,
            f"-max_len={LARGEST}", f"-timeout={_PATIENCE}",
        ],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        print(done.stderr[-4_000:], file=sys.stderr)
    return done.returncode == 0


def _quoted(word: bytes) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return '"' + "".join([f"\\x{byte:02x}" for byte in word]) + '"'


def main() -> int:
    """Entry point.

    :returns: the exit status: 1 where an input failed
    """
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance (the time)")
    parser.add_argument("target", nargs="*", help=f"of {', '.join(TARGETS)} (all)")
    given = parser.parse_args()
    if unknown := set(given.target) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
    well = [fuzz(name, given.seconds, given.seed) for name in given.target or TARGETS]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
