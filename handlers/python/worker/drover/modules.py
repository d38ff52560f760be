"""Imports the app's modules, even those with the name of a standard module.

The app's directory is first on the path, like a script's, followed by the packages
vendored into .python_packages. If a module of the app has the name of one of the standard
library, the app's own files import the app's module by that name; all other files import
the standard library's.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
import time
import types
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any, Mapping, Sequence

_VENDORED = os.path.join(".python_packages", "lib", "site-packages")
_PREFIX = "_drover_app_"  # begins the name in sys.modules of an app's module that has the name of a standard one
_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # may be below the app's directory
_ROOT = "__app__"  # the name of the app's directory as a package, as in Azure Functions


_RECENT = 2.0  # seconds

_path_stats: Any = SourceFileLoader.path_stats


def _stats_if_cached(loader: SourceFileLoader, path: str) -> Any:
    """Replaces SourceFileLoader.path_stats. A cached .pyc file matches any source with the same size and
    modification second. So the cache is neither read nor written for a file of the app that was just
    saved, because it could be saved again within that second."""
    stats = _path_stats(loader, path)
    if time.time() - stats["mtime"] < _RECENT and not path.startswith(_HERE):
        raise OSError(f"{path} was just saved")
    return stats


setattr(SourceFileLoader, "path_stats", _stats_if_cached)

_made: dict[str, Modules] = {}


def modules_of(path: str) -> Modules:
    """Returns the Modules of the app in a directory. A forked worker has those of its
    template."""
    if path not in _made:
        _made[path] = Modules(path)
    return _made[path]


class Modules:
    """The modules of the app in a directory."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._own = os.path.join(os.path.abspath(path), "")
        if path not in sys.path[:1]:
            sys.path.insert(0, path)
        vendored = os.path.join(path, _VENDORED)
        if os.path.isdir(vendored) and vendored not in sys.path:
            sys.path.insert(1, vendored)
        if _ROOT not in sys.modules:
            root = sys.modules[_ROOT] = types.ModuleType(_ROOT)
            root.__path__ = [path]
        self.shadowed = self._names() & _standard()
        # The folder of a function of Azure Functions is __app__.NAME; by its name alone nobody means it.
        self._folders = {name for name in self.shadowed if os.path.isfile(os.path.join(path, name, "function.json"))}
        if self.shadowed:
            sys.meta_path.insert(0, self)
            self._real, builtins.__import__ = builtins.__import__, self._import

    def _names(self) -> set[str]:
        """Returns the names of the top-level modules in the app's directory."""
        found: set[str] = set()
        try:
            entries = os.listdir(self._path)
        except OSError:
            return found
        for entry in entries:
            name, ending = os.path.splitext(entry)
            if ending == ".py" or not ending and os.path.isfile(os.path.join(self._path, entry, "__init__.py")):
                found.add(name)
        return found

    def load(self, name: str) -> types.ModuleType:
        """Imports a module of the app; raises the exceptions of the import."""
        if name.partition(".")[0] in self.shadowed:
            return importlib.import_module(_PREFIX + name)
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if "relative import" not in str(error):
                raise
        return importlib.import_module(f"{_ROOT}.{name}")  # the module uses the app's directory as a package

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None) -> ModuleSpec | None:
        """Finds the modules of the shadowed names, before other finders: part of the
        protocol of sys.meta_path."""
        if path is not None:
            return None
        if name in self.shadowed:
            return PathFinder.find_spec(name, [p for p in sys.path if os.path.abspath(p or ".") + os.sep != self._own])
        if name.startswith(_PREFIX) and name[len(_PREFIX) :] in self.shadowed:
            return self._alias(name)
        return None

    def _alias(self, name: str) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name[len(_PREFIX) :], [self._path])
        if spec is None or spec.loader is None:
            return spec
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, spec.origin, submodule_search_locations=spec.submodule_search_locations)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """Replaces __import__ if a name is shadowed."""
        if level == 0 and name.partition(".")[0] in self.shadowed - self._folders and self._is_own(globals):
            name = _PREFIX + name
        return self._real(name, globals, locals, fromlist, level)

    def _is_own(self, scope: Mapping[str, object] | None) -> bool:
        file = scope.get("__file__") if scope else None
        if not isinstance(file, str) or not file.startswith(self._own) or file.startswith(_HERE):
            return False
        inside = file[len(self._own) :].split(os.sep)[:-1]
        return not any(part.startswith(".") or part in ("site-packages", "dist-packages") for part in inside)


def _standard() -> set[str] | frozenset[str]:
    """Returns the names of the standard library's modules."""
    try:
        return sys.stdlib_module_names  # Python 3.10 and newer
    except AttributeError:
        names = set(sys.builtin_module_names)
        for where in (os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload")):
            if os.path.isdir(where):
                names.update(entry.partition(".")[0] for entry in os.listdir(where) if not entry.startswith("_"))
        return names - {"site-packages", "dist-packages"}
