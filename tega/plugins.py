"""Finding plugins, loading them, and letting them go again.

Plugins are the classes of kind `PlugIn` in ``DIR/plugins/*.py`` of the directories given, and those
that installed packages offer as entry points of the group ``tega.plugins``. One that fails is
logged with its traceback, and neither the others nor the server care.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tega.embedded import Database
from tega.subscriber import PlugIn

log = logging.getLogger(__name__)

#: The group of entry points.
GROUP: Final = "tega.plugins"


class Plugins:
    """The plugins of a server.

    :param directories: each may have a directory ``plugins``
    :param reserve: is told which tega ids plugins have now
    """

    def __init__(
        self,
        database: Database,
        directories: Sequence[Path],
        reserve: Callable[[set[str]], None],
    ) -> None:
        self._database = database
        self._directories = directories
        self._reserve = reserve
        self._plugins: dict[str, PlugIn] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def load(self) -> None:
        """Load all of them. To be called on the event loop."""
        for source, kind in self._found():
            self._make(source, kind)
        self._reserve(set(self._plugins))

    def scopes(self) -> dict[str, str]:
        """The scope of each plugin, by tega id."""
        return {name: self._plugins[name].scope.value for name in sorted(self._plugins)}

    def reload(self) -> None:
        """Let go of all of them, and load what is there now."""
        self.unload()
        self.load()

    def unload(self) -> None:
        """Let go of all of them: what is their own goes with them."""
        for tega_id in list(self._plugins):
            task = self._tasks.pop(tega_id, None)
            if task is not None:
                task.cancel()
            self._leave(self._plugins.pop(tega_id))
        self._reserve(set())

    def _leave(self, plugin: PlugIn) -> None:
        try:
            self._database.exit(plugin)
        except Exception:
            log.exception("plugin %s did not leave cleanly", plugin.tega_id)

    def _make(self, source: str, kind: type[PlugIn]) -> None:
        plugin = kind.__new__(kind)
        plugin._host = self._database
        try:
            kind.__init__(plugin)
            work = plugin.initialize()
        except Exception:
            log.exception("plugin %s of %s does not load", kind.__name__, source)
            self._leave(plugin)
            return
        self._plugins[plugin.tega_id] = plugin
        if inspect.isawaitable(work):
            task = asyncio.get_running_loop().create_task(self._run(plugin, work))
            self._tasks[plugin.tega_id] = task
        log.info("plugin %s of %s", plugin.tega_id, source)

    async def _run(self, plugin: PlugIn, work: Awaitable[Any]) -> None:
        try:
            await work
        except Exception:
            log.exception("plugin %s has stopped", plugin.tega_id)

    def _found(self) -> Iterator[tuple[str, type[PlugIn]]]:
        for directory in self._directories:
            files = sorted((directory / "plugins").glob("*.py"))
            if not files:
                log.warning("no plugins in %s", directory / "plugins")
            for file in files:
                module = _imported(file)
                if module is not None:
                    for kind in _kinds(module):
                        yield str(file), kind
        for entry in entry_points(group=GROUP):
            try:
                kind = entry.load()
            except Exception:
                log.exception("entry point %s does not load", entry.name)
                continue
            if isinstance(kind, type) and issubclass(kind, PlugIn):
                yield f"entry point {entry.name}", kind
            else:
                log.error("entry point %s: %r is no PlugIn", entry.name, kind)


def _imported(file: Path) -> ModuleType | None:
    """A plugin's module, read anew; None where it fails."""
    name = f"tega_plugins.{file.resolve().parts[-3]}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception:
        log.exception("%s does not load", file)
        del sys.modules[name]
        return None
    return module


def _kinds(module: ModuleType) -> list[type[PlugIn]]:
    """The plugins that a module defines; what it only imports is of elsewhere."""
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, PlugIn)
        and kind is not PlugIn
        and kind.__module__ == module.__name__
    ]
