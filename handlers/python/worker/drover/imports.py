"""Names the files of the app that were imported, by IMPORTED: the daemon replaces the
workers when one of them changes, and not when another does.

What an import reads is a matter of its loader, however it was found; what it looked for
in vain, of sys.meta_path."""

from __future__ import annotations

import collections
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, Mapping, Sequence

from drover.frames import IMPORTED, Writer

# How many there are at most, and in one frame. For a daemon that gets more, all count.
_MOST, _SOME = 20_000, 40
_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # may be below the app's directory
_STANDARD = os.path.join(os.path.dirname(os.__file__), "")
_STARTS = _STANDARD + "multiprocessing/popen_"  # a process is started that imports what it likes


class Imports:
    def __init__(self, writer: Writer, app: str) -> None:
        self._writer = writer
        self._app = app
        self._seen: set[str] = set()
        self._waiting: collections.deque[str] = collections.deque()
        self._live = False  # whether the worker is ready: what comes then is sent at once
        read = SourceFileLoader.path_stats

        def path_stats(loader: SourceFileLoader, path: str) -> Mapping[str, Any]:
            self.note(path)
            return read(loader, path)

        setattr(SourceFileLoader, "path_stats", path_stats)  # called for each source before it is compiled
        sys.meta_path.append(self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Notes what nobody before has found: part of the protocol of sys.meta_path."""
        for entry in sys.path if path is None else path:
            if isinstance(entry, str):
                self.note(os.path.join(os.path.abspath(entry), name.rpartition(".")[2]))
        return None

    def note(self, path: str) -> None:
        if path in self._seen or len(self._seen) > _MOST:
            return
        if path.startswith((_STANDARD, _HERE)) or "/site-packages/" in path or "/dist-packages/" in path:
            if not path.startswith(_STARTS):
                return
            path = self._app
        self._seen.add(path)
        if self._live and not self._writer.forked:
            self._writer.json(IMPORTED, {"paths": [path]})
            self._writer.soon()
        else:  # a child of the worker's reports nothing, and a template's reports after its handshake
            self._waiting.append(path)

    def ready(self) -> None:
        """Queues what was imported until now: READY follows."""
        for name, module in list(sys.modules.items()):
            if "." not in name and not name.startswith("_") and not self._is_own(module):
                self.note(os.path.join(self._app, name))  # a file there would stand in for it
        self._live = True
        while True:  # once at least: the daemon is to know that no more were imported
            paths = [self._waiting.popleft() for _ in range(min(len(self._waiting), _SOME))]
            self._writer.json(IMPORTED, {"paths": paths})
            if not self._waiting:
                return

    def _is_own(self, module: ModuleType) -> bool:
        places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
        return any(isinstance(place, str) and place.startswith(self._app + os.sep) for place in places)
