"""Entry point of ``tega-sentinel``: hears signals before it loads what takes time."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tega.sentinel.ending import Ending


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tega-sentinel``.

    :returns: the exit status: 0; 1 where something differs; 2 for a wrong setting; 3 where another
        sentinel has taken over the checkpoint; 4 where source or sink cannot be used; 128 and the
        signal's number where one has ended what was to be done once
    """
    ending = Ending()
    from tega.sentinel import program

    return program.run(sys.argv[1:] if arguments is None else arguments, ending)


if __name__ == "__main__":
    sys.exit(main())
