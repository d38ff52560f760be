"""Reports the files of the app that were imported, with IMPORTED. The daemon replaces the
workers only when one of these files changes.

The loader shows which files an import reads; the end of sys.meta_path shows which modules
were not found."""

from __future__ import annotations

import collections
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, Mapping, Sequence

from drover.frames import IMPORTED, Writer

# The most files, and the most in one frame. If a daemon receives more, all of the app's files count.
_MOST, _SOME = 20_000, 40
_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # may be below the app's directory
_STANDARD = os.path.join(os.path.dirname(os.__file__), "")
_STARTS = _STANDARD + "multiprocessing/popen_"  # with this a process is started whose imports are unknown


class Imports:
    def __init__(self, writer: Writer, app: str) -> None:
        self._writer = writer
        self._app = app
        self._seen: set[str] = set()
        self._waiting: collections.deque[str] = collections.deque()
        self._live = False  # whether the worker is ready: later imports are sent at once
        read = SourceFileLoader.path_stats

        def path_stats(loader: SourceFileLoader, path: str) -> Mapping[str, Any]:
            self.note(path)
            return read(loader, path)

        setattr(SourceFileLoader, "path_stats", path_stats)  # called for each source before it is compiled
        sys.meta_path.append(self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Records a module that no finder has found: part of the protocol of sys.meta_path."""
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
        else:  # a child of the worker reports nothing, and a worker forked from a template after its handshake
            self._waiting.append(path)

    def ready(self) -> None:
        """Queues the imports so far, before READY."""
        for name, module in list(sys.modules.items()):
            if "." not in name and not name.startswith("_") and not self._is_own(module):
                self.note(os.path.join(self._app, name))  # a file there would be imported in its place
        self._live = True
        while True:  # at least one frame: an empty list reports that nothing was imported
            paths = [self._waiting.popleft() for _ in range(min(len(self._waiting), _SOME))]
            self._writer.json(IMPORTED, {"paths": paths})
            if not self._waiting:
                return

    def _is_own(self, module: ModuleType) -> bool:
        places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
        return any(isinstance(place, str) and place.startswith(self._app + os.sep) for place in places)
