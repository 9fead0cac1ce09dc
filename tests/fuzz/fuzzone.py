"""One target in a process of its own: its name, and then what libFuzzer takes."""

from __future__ import annotations

import shlex
import sys

import atheris

with atheris.instrument_imports(include=["tega"]):
    from targets import TARGETS

if __name__ == "__main__":
    _, name, *arguments = sys.argv
    # libFuzzer starts more of itself by this name, through a shell.
    itself = shlex.join([sys.executable, __file__, name])
    atheris.Setup([itself, *arguments], TARGETS[name].run)
    atheris.Fuzz()
