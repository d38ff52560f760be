"""Imports the app's modules as their author expects, whatever they are named.

The app's directory is first on the path, as a script's is, and behind it the packages
that were vendored into .python_packages. A module of the app that has the name of one of
the standard library is what the app's own files get by that name; all others get the
standard library's.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
import types
from importlib.machinery import ModuleSpec, PathFinder
from typing import Mapping, Sequence

_VENDORED = os.path.join(".python_packages", "lib", "site-packages")
_PREFIX = "_drover_app_"  # of the app's own module in sys.modules, where the standard library has one of the name
_HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # may be below the app's directory
_ROOT = "__app__"  # what Azure Functions calls the app's directory, as a package


_made: dict[str, Modules] = {}


def modules_of(path: str) -> Modules:
    """The Modules of the app in a directory. They are the same in a forked worker as in
    its template."""
    if path not in _made:
        _made[path] = Modules(path)
    return _made[path]


class Modules:
    """Those of the app in a directory."""

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
        if self.shadowed:
            sys.meta_path.insert(0, self)
            self._real, builtins.__import__ = builtins.__import__, self._import

    def _names(self) -> set[str]:
        """The top-level modules that are in the app's directory."""
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
        """Imports a module of the app; raises whatever that does."""
        if name.partition(".")[0] in self.shadowed:
            return importlib.import_module(_PREFIX + name)
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if "relative import" not in str(error):
                raise
        return importlib.import_module(f"{_ROOT}.{name}")  # the app's directory is a package for it

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None) -> ModuleSpec | None:
        """Finds, before all others, the modules of the shadowed names: part of the
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
        """Stands in for __import__, where a name is shadowed."""
        if level == 0 and name.partition(".")[0] in self.shadowed and self._is_own(globals):
            name = _PREFIX + name
        return self._real(name, globals, locals, fromlist, level)

    def _is_own(self, scope: Mapping[str, object] | None) -> bool:
        file = scope.get("__file__") if scope else None
        if not isinstance(file, str) or not file.startswith(self._own) or file.startswith(_HERE):
            return False
        inside = file[len(self._own) :].split(os.sep)[:-1]
        return not any(part.startswith(".") or part in ("site-packages", "dist-packages") for part in inside)


def _standard() -> set[str] | frozenset[str]:
    """The names of the standard library's modules."""
    try:
        return sys.stdlib_module_names  # Python 3.10 and newer
    except AttributeError:
        names = set(sys.builtin_module_names)
        for where in (os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload")):
            if os.path.isdir(where):
                names.update(entry.partition(".")[0] for entry in os.listdir(where) if not entry.startswith("_"))
        return names - {"site-packages", "dist-packages"}
