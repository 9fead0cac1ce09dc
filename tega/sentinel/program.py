"""What ``tega-sentinel`` does, from its arguments to its exit status."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Final

from tega.errors import Malformed
from tega.options import Settings
from tega.sentinel import verify
from tega.sentinel.ending import Ending
from tega.sentinel.ends import Ends, ends
from tega.sentinel.engine import Sentinel
from tega.sentinel.report import JsonReport, Report, TextReport
from tega.sentinel.settings import load
from tega.sentinel.sink import Fenced, SinkError, Unfit
from tega.sentinel.source import Away

#: Exit statuses: something differs; wrong settings; another sentinel has taken over; it failed.
_DIFFERS, _WRONG, _TAKEN, _FAILED = 1, 2, 3, 4

#: With a signal's number it is the exit status of what was ended before it was done.
_KILLED: Final = 128


def run(arguments: Sequence[str], ending: Ending) -> int:
    """Do what the command line says.

    :returns: the exit status, see `tega.sentinel.main.main`
    """
    try:
        settings = load(arguments, os.environ)
        logging.basicConfig(
            level=settings.loglevel, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        # Keys may have characters that the terminal's encoding has not.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        report: Report = TextReport(sys.stdout)
        if settings.log_format == "json":
            report = JsonReport(sys.stdout)
        return asyncio.run(_run(settings, ends(settings, os.environ), report, ending))
    except Malformed as error:
        print(f"tega-sentinel: {error}", file=sys.stderr)
        return _WRONG


async def _run(settings: Settings, these: Ends, report: Report, ending: Ending) -> int:
    """Do what the settings say, then disconnect.

    :raises Malformed: for a port that cannot be had
    """
    task = asyncio.current_task()
    assert task is not None
    ending.cancels(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
    try:
        return await _work(settings, these, report)
    except asyncio.CancelledError:
        report.say("ended")
        assert ending.number is not None
        once = settings.once or settings.verify or settings.dry_run
        return _KILLED + ending.number if once else 0
    except Away as error:
        report.error("source", f"{these.source.name}: {error}")
        return _FAILED
    except (SinkError, Unfit) as error:
        report.error("sink", f"{these.sink.name}: {error}")
        return _FAILED
    except Fenced as error:
        report.error("sink", str(error))
        return _TAKEN
    finally:
        ending.cancels(None)
        await these.source.close()
        await these.sink.close()


async def _work(settings: Settings, these: Ends, report: Report) -> int:
    """Do what the settings say.

    :returns: the exit status
    """
    if settings.verify or settings.dry_run:
        return await _compared(settings, these, report)
    sentinel = Sentinel(these.source, these.sink, report, Random())  # noqa: S311  # it only spreads retries
    if settings.once:
        await sentinel.once()
        return 0
    if settings.port is not None:
        # What it stands on takes a while to load.
        from tega.sentinel import web

        port = web.serve(settings.port, settings.address, sentinel)
        report.say(f"metrics on http://{settings.address}:{port}/_metrics", port=port)
    await sentinel.run()
    raise AssertionError("it ends only by an error")


async def _compared(settings: Settings, these: Ends, report: Report) -> int:
    await these.source.open()
    await these.sink.peek()
    for what in these.sink.lacks:
        report.say(f"{what} is not there yet")
    if settings.dry_run:
        found = await verify.compare(these.source, these.sink, report)
        report.events(found, would=True)
        report.say(f"would change {len(found)}, and has changed nothing")
        return 0
    found = await verify.verify(these.source, these.sink, report)
    report.events(found, would=True)
    if found:
        report.say(f"{len(found)} differ: above is what would mend them")
        return _DIFFERS
    report.say(f"{these.sink.name} agrees with {these.source.name}")
    return 0
