"""Finds the functions of a function app: those with decorators (model v2) in its script, and
those with a function.json (model v1) in their files."""

from __future__ import annotations

import inspect
import os
import types
from typing import Any, Callable, Mapping, NamedTuple, Sequence, cast

from drover.modules import Modules, modules_of

_SCRIPT = "PYTHON_SCRIPT_FILE_NAME"  # the setting that names the script of model v2
_USUAL = "function_app.py"


class Registers(NamedTuple):
    """What a module has of the library: each with its first name, by its identity."""

    apps: Mapping[int, tuple[str, Any]]
    blueprints: Mapping[int, tuple[str, Any]]


def registers_of(module: types.ModuleType) -> Registers:
    """Returns the function apps and the blueprints of a module."""
    from azure.functions import Blueprint, FunctionRegister

    apps: dict[int, tuple[str, Any]] = {}
    blueprints: dict[int, tuple[str, Any]] = {}
    for name in dir(module):
        value = getattr(module, name, None)
        if isinstance(value, FunctionRegister):
            apps.setdefault(id(value), (name, value))
        elif isinstance(value, Blueprint):
            blueprints.setdefault(id(value), (name, value))
    return Registers(apps, blueprints)


def builders_of(of: Any) -> Sequence[Any]:
    """Returns what makes the functions of an app or a blueprint. Its get_functions would stop at
    the first function that fails, and works only once."""
    return cast(Sequence[Any], of._function_builders)


def name_of(builder: Any) -> str:
    return str(builder._function.get_function_name())


def call_of(builder: Any) -> Callable[..., Any]:
    return cast(Callable[..., Any], builder._function.get_user_function())


def is_request(hint: Any) -> bool:
    """Returns whether an annotation is the Request of FastAPI, which functions take with the package
    azurefunctions-extensions-http-fastapi."""
    return isinstance(hint, type) and any(base.__qualname__ == "Request" and base.__module__ == "starlette.requests" for base in hint.__mro__)


def module_name(script: str) -> str:
    """Returns the name that a script of model v1 is imported by."""
    parts = os.path.splitext(script)[0].split("/")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["__app__", *parts])


class Missing(Exception):
    """An app does not have a function."""


def directory_of(root: str, name: str, call: Callable[..., Any]) -> str:
    """Returns the directory of a function, as its Context has it: the folder of model v1, and the
    directory of the file of model v2."""
    folder = os.path.join(root, name)
    if os.path.isfile(os.path.join(folder, "function.json")):
        return folder
    try:
        file = inspect.getfile(inspect.unwrap(call))
    except (TypeError, ValueError):
        return root
    return os.path.dirname(file) if file.startswith(os.path.join(root, "")) else root


_decorated: dict[str, Mapping[str, Callable[..., Any]]] = {}  # of the scripts that were read, by path


def find_call(root: str, name: str, azure: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns the Python function of an app's function, which azure of LOAD describes. Raises
    Missing, and the exceptions of the import."""
    modules = modules_of(root)
    script = azure.get("script") or os.environ.get(_SCRIPT) or _USUAL
    if os.path.isfile(os.path.join(root, script)):
        return _find_decorated(modules, root, name, script)
    file, entry = azure.get("file") or f"{name}/__init__.py", azure.get("entry") or "main"
    module = modules.load(module_name(file))
    try:
        return cast(Callable[..., Any], getattr(module, entry))
    except AttributeError:
        raise Missing(f"{file} has no function {entry}") from None


def _find_decorated(modules: Modules, root: str, name: str, script: str) -> Callable[..., Any]:
    path = os.path.join(root, script)
    if path not in _decorated:
        apps = list(registers_of(modules.load(os.path.splitext(script)[0])).apps.values())
        if len(apps) != 1:
            raise Missing(f"{script} has {len(apps)} function apps; it must have exactly one")
        _decorated[path] = {name_of(builder): call_of(builder) for builder in builders_of(apps[0][1])}
    found = _decorated[path]
    if name not in found:
        raise Missing(f"{script} has no such function; it has: {', '.join(sorted(found)) or 'none'}")
    return found[name]
