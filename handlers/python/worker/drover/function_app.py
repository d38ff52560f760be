"""Indexes a function app: its functions with their bindings, and its mistakes.

The daemon runs this mode of the worker before it makes the configuration of a function app. A
request comes on file descriptor 3, and the answer goes there. What the app prints goes to the
standard streams. A function that fails leaves the others.
"""

from __future__ import annotations

import ast
import difflib
import faulthandler
import inspect
import json
import os
import platform
import socket
import sys
import types
from typing import Any, Callable, Iterator, Mapping, NamedTuple, NoReturn, Sequence

from drover.azure_apps import builders_of, call_of, module_name, name_of, registers_of
from drover.function_checks import check
from drover.functions import cut_traceback, one_line
from drover.modules import Modules, modules_of

# The names of packages on PyPI, where they differ from that of the module.
_PACKAGES = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "jwt": "PyJWT",
    "PIL": "Pillow",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


class _Wrong(NamedTuple):
    """Something that is wrong, with the place."""

    message: str
    function: str = ""
    file: str = ""
    line: int = 0
    detail: str = ""


class _Stop(Exception):
    """The app as a whole cannot be indexed."""

    def __init__(self, wrong: _Wrong) -> None:
        super().__init__(wrong.message)
        self.wrong = wrong


def main() -> NoReturn:
    sock = socket.socket(fileno=3)
    sock.set_inheritable(False)
    request = json.loads(b"".join(iter(lambda: sock.recv(1 << 16), b"")))
    if request["patience"] > 0:
        faulthandler.dump_traceback_later(request["patience"])  # the stacks tell where the import hangs
    answer = json.dumps(_Index(request).answer()).encode()
    faulthandler.cancel_dump_traceback_later()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the app has closed or replaced it
            pass
    sock.sendall(answer)
    os._exit(0)  # threads that the app has started must not keep the process


class _Index:
    def __init__(self, request: Mapping[str, Any]) -> None:
        self._request = request
        self._root: str = request["dir"]
        self._modules: Modules = modules_of(self._root)
        self._functions: list[dict[str, Any]] = []
        self._problems: list[_Wrong] = []
        self._warnings: list[str] = []
        self._library = ""

    def answer(self) -> dict[str, Any]:
        try:
            self._find_library()
            if "script" in self._request:
                self._decorated(self._request["script"])
            else:
                for wanted in self._request["functions"]:
                    self._described(wanted)
        except _Stop as stop:
            self._problems.append(stop.wrong)
        return {
            "python": platform.python_version(),
            "executable": sys.executable,
            "library": self._library,
            "functions": self._functions,
            "problems": [wrong._asdict() for wrong in self._problems],
            "warnings": self._warnings,
            "shadowed": sorted(self._modules.shadowed),
        }

    def _find_library(self) -> None:
        try:
            import azure.functions as library
        except ImportError as error:
            requirements = os.path.join(self._root, "requirements.txt")
            what = "azure-functions"
            if os.path.exists(requirements):
                what = f"-r {requirements}"
            raise _Stop(_Wrong(f"the package azure-functions is not installed for {_python()} ({one_line(error)}); run: {_installation(self._root, what)}"))
        self._library = str(getattr(library, "__version__", ""))

    # Model v2: functions with decorators.

    def _decorated(self, script: str) -> None:
        module = self._load(os.path.splitext(script)[0], script)
        apps, blueprints = registers_of(module)
        names = " and ".join(name for name, _ in apps.values())
        if len(apps) > 1:
            line = max(_assigned(module, name) for name, _ in apps.values())
            raise _Stop(_Wrong(f"{script} has {len(apps)} function apps, {names}; it must have exactly one: make each other one a func.Blueprint(), and register it with register_functions", file=script, line=line))
        if not apps:
            raise _Stop(_Wrong(_no_app(script, [name for name, _ in blueprints.values()]), file=script))
        app = next(iter(apps.values()))[1]
        builders = list(builders_of(app))
        registered = {id(builder) for builder in builders}
        for name, blueprint in blueprints.values():
            left = [b for b in builders_of(blueprint) if id(b) not in registered]
            if left:
                lost = ", ".join(sorted(map(name_of, left)))
                self._warnings.append(f"the blueprint {name} of {script} is not registered, so its functions do not exist: {lost}; call register_functions({name}) of the app")
        seen: dict[str, tuple[str, int]] = {}
        for builder in builders:
            self._built(builder, app, seen)

    def _built(self, builder: Any, app: Any, seen: dict[str, tuple[str, int]]) -> None:
        name, call = name_of(builder), call_of(builder)
        source = _Source(call, self._root)
        if name in seen:
            file, line = seen[name]
            self._problems.append(_Wrong(f"another function has this name ({file}:{line}); give each its own, with function_name", name, source.file, source.line))
            return
        seen[name] = (source.file, source.line)
        try:
            function = builder.build(app.auth_level)
        except Exception as error:
            self._problems.append(_Wrong(_unbuilt(error), name, source.file, source.line))
            return
        bindings = [json.loads(text) for text in function.get_raw_bindings()]
        lines = {b["name"]: source.line_of(b) for b in bindings}
        messages = check(call, bindings, "decorator")
        for message, binding in messages:
            self._problems.append(_Wrong(message, name, source.file, lines.get(binding, source.line)))
        if not messages:
            self._add(name, call, source, bindings, lines, function.get_settings_dict("retry_policy"), getattr(function, "http_type", "function"))

    # Model v1: functions with a function.json.

    def _described(self, wanted: Mapping[str, Any]) -> None:
        name, script, entry = wanted["name"], wanted["script"], wanted["entry"]
        try:
            module = self._load(module_name(script), script)
        except _Stop as stop:
            self._problems.append(stop.wrong._replace(function=name))
            return
        call = getattr(module, entry, None)
        if not callable(call):
            found = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
            self._problems.append(_Wrong(f"{script} has no function {entry}{_meant(entry, found)}; entryPoint in function.json names the function (default: main)", name, script))
            return
        source = _Source(call, self._root)
        messages = check(call, wanted["bindings"], "function.json")
        for message, _ in messages:
            self._problems.append(_Wrong(message, name, source.file, source.line))
        if not messages:
            self._add(name, call, source, wanted["bindings"], {}, None, "function")
            # A worker finds the function by its script, which may have imported it.
            self._functions[-1].update(entry=entry, file=script, line=source.line if source.file == script else 1)

    def _add(self, name: str, call: Callable[..., Any], source: _Source, bindings: Sequence[Any], lines: Mapping[str, int], retry: Any, http_type: str) -> None:
        self._functions.append(
            {
                "name": name,
                "module": getattr(call, "__module__", ""),
                "entry": getattr(call, "__name__", ""),
                "file": source.file,
                "line": source.line,
                "bindings": bindings,
                "lines": lines,
                "retry": retry,
                "async": inspect.iscoroutinefunction(call),
                "http_type": http_type,
            }
        )

    def _load(self, name: str, script: str) -> types.ModuleType:
        try:
            return self._modules.load(name)
        except BaseException as error:  # whatever an import does, SystemExit too
            raise _Stop(self._failed(script, error)) from None

    def _failed(self, script: str, error: BaseException) -> _Wrong:
        file, line = self._place(error)
        summary = f"importing {script}: {one_line(error)}"
        if isinstance(error, SystemExit):
            summary = f"importing {script}: it calls sys.exit({error.code!r}); move that behind: if __name__ == \"__main__\""
        return _Wrong(summary + self._advice(error), file=file or script, line=line, detail=cut_traceback(error))

    def _place(self, error: BaseException) -> tuple[str, int]:
        """The last place in the app's own files."""
        if isinstance(error, SyntaxError) and error.filename:
            return _inside(error.filename, self._root), error.lineno or 0
        place, tb = ("", 0), error.__traceback__
        while tb is not None:
            file = _inside(tb.tb_frame.f_code.co_filename, self._root)
            if file != tb.tb_frame.f_code.co_filename:
                place = file, tb.tb_lineno
            tb = tb.tb_next
        return place

    def _advice(self, error: BaseException) -> str:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return self._missing(error.name)
        if isinstance(error, (AttributeError, NameError)) and hasattr(error, "name"):
            known = dir(error.obj) if isinstance(error, AttributeError) else []
            return _meant(str(error.name), [n for n in known if not n.startswith("_")], others=False)
        if isinstance(error, KeyError) and error.args and str(error.args[0]).upper() in ("ANONYMOUS", "FUNCTION", "ADMIN"):
            return f"; http_auth_level of the app takes upper case only: write func.AuthLevel.{str(error.args[0]).upper()}"
        if isinstance(error, ValueError) and "trigger was already registered" in str(error):
            return "; a function has exactly one trigger: make a function for each"
        return ""

    def _missing(self, name: str) -> str:
        top = name.partition(".")[0]
        own = _meant(top, [os.path.splitext(entry)[0] for entry in os.listdir(self._root) if not entry.startswith((".", "_"))], others=False)
        package = name.replace(".", "-") if top == "azure" else _PACKAGES.get(top, top)
        where = f" (by {_python()}; to install it: {_installation(self._root, package)}, and add it to requirements.txt)"
        requirements = os.path.join(self._root, "requirements.txt")
        try:
            with open(requirements, encoding="utf-8") as lines:
                if any(line.strip().lower().startswith(package.lower()) for line in lines):
                    where = f" (by {_python()}; requirements.txt lists it: {_installation(self._root, '-r ' + requirements)})"
        except OSError:
            pass
        return own + where


class _Source:
    """Where a function is written: the first line of its decorators, and that of each binding."""

    def __init__(self, call: Callable[..., Any], root: str) -> None:
        self.file, self.line, self._decorators = "", 0, list[ast.Call]()
        code = getattr(inspect.unwrap(call), "__code__", None)
        if code is None:
            return
        inside = _inside(code.co_filename, root)
        if inside == code.co_filename:
            return  # the library has written it, for an ASGI or a WSGI app
        self.file, self.line = inside, code.co_firstlineno
        try:
            with open(code.co_filename, "rb") as file:
                tree = ast.parse(file.read())
        except (OSError, SyntaxError, ValueError):
            return
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if first == code.co_firstlineno:
                    self._decorators = [d for d in node.decorator_list if isinstance(d, ast.Call)]

    def line_of(self, binding: Mapping[str, Any]) -> int:
        """The line of the decorator that made a binding; that of the function if none is known."""
        for decorator in self._decorators:
            if binding["name"] in _texts(decorator):
                return decorator.lineno
        for decorator in self._decorators:
            attribute = getattr(decorator.func, "attr", "")
            if binding["type"].lower().endswith("trigger") and (attribute.endswith("trigger") or attribute in ("route", "schedule")):
                return decorator.lineno
        return self.line


def _texts(call: ast.Call) -> Iterator[object]:
    for node in [*call.args, *(keyword.value for keyword in call.keywords)]:
        if isinstance(node, ast.Constant):
            yield node.value


def _unbuilt(error: Exception) -> str:
    if "does not have a trigger" in str(error):
        return "it has no trigger; add exactly one, such as @app.queue_trigger(...) or @app.route(...)"
    return one_line(error)


def _no_app(script: str, blueprints: Sequence[str]) -> str:
    text = f"{script} has no function app; write: app = func.FunctionApp()"
    if blueprints:
        text += f", and register what it has with app.register_functions({blueprints[0]})"
    return text


def _assigned(module: types.ModuleType, name: str) -> int:
    """The line that assigns a name in a module; 0 if none does."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, SyntaxError, TypeError):
        return 0
    lines = [node.lineno for node in tree.body if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)]
    return lines[0] if lines else 0


def _inside(path: str, root: str) -> str:
    """A path relative to the app, if it is one of the app's own files."""
    inside = os.path.relpath(path, root)
    parts = inside.split(os.sep)
    if parts[0] == os.pardir or parts[0] in (".venv", ".python_packages") or "site-packages" in parts or path.startswith("<"):
        return path
    return inside


def _meant(word: str, known: Sequence[str], others: bool = True) -> str:
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; it has: {', '.join(sorted(known)) or 'none'}" if others else ""


def _python() -> str:
    return f"{sys.executable}, Python {platform.python_version()}"


def _installation(root: str, what: str) -> str:
    """Returns the command that installs packages for an app: into the environment that runs this, or into a
    new one in the app. Python of a system often refuses to install packages."""
    if sys.prefix != sys.base_prefix:
        return f"{sys.executable} -m pip install {what}"
    environment = os.path.join(root, ".venv")
    return f"{sys.executable} -m venv {environment} && {environment}/bin/python -m pip install {what}"
