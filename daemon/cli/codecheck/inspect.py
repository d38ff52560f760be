"""Finds the functions of an app by parsing its code, and reports those that cannot be loaded.

It does not import the app. The request is JSON on standard input, the answer JSON on standard
output. It runs with -I, so that modules of the app do not replace modules of the standard library here.
"""

import ast
import importlib.machinery
import importlib.util
import json
import os
import site
import sys


def main():
    request = json.load(sys.stdin)
    app = request["dir"]
    search_path(app)
    modules = {}
    problems = []
    for function in request["functions"]:
        name = function["module"]
        if name not in modules:
            modules[name] = Module(app, name)
            problems += [dict(p, function=function["name"]) for p in modules[name].problems]
        wrong = modules[name].check(function["function"], function["batch"], function["reply"])
        if wrong:
            problems.append(dict(wrong, function=function["name"]))
    json.dump({"problems": problems}, sys.stdout)


def search_path(app):
    """Sets the path on which a worker would search for modules. With -I the interpreter omits parts of it."""
    outside = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    vendored = os.path.join(app, ".python_packages", "lib", "site-packages")
    sys.path[:0] = [app] + ([vendored] if os.path.isdir(vendored) else []) + outside
    if not os.environ.get("PYTHONNOUSERSITE") and sys.prefix == sys.base_prefix:
        site.addsitedir(site.getusersitepackages())


class Module:
    """A module of the app, as its source defines it."""

    def __init__(self, app, name):
        self.name, self.app, self.problems = name, app, []
        self.file = None  # the source file; None if there is none that can be read here
        self.found = {}  # by name: the only definition; None for another value, or if uncertain
        self.names = set()  # of functions and classes
        self.open = False  # whether it may have names that were not found
        self.broken = False
        spec = find(app, name)
        if spec is None:
            self.broken = True
            self.problems.append({"kind": "module", "message": self.missing()})
            return
        if not spec.origin or not spec.origin.endswith(".py"):
            self.open = True
            return
        self.file = spec.origin
        try:
            with open(self.file, "rb") as source:
                tree = ast.parse(source.read(), self.file)
        except SyntaxError as error:
            self.broken = True
            self.problems.append({"kind": "code", "file": self.file, "line": error.lineno or 0, "column": error.offset or 0, "message": "SyntaxError: " + error.msg})
            return
        except (OSError, ValueError) as error:
            self.broken = True
            self.problems.append({"kind": "code", "file": self.file, "line": 0, "column": 0, "message": "it cannot be read: " + str(error)})
            return
        self.read(tree.body, certain=True)

    def missing(self):
        """Returns why the module was not found, with the other modules of its directory."""
        parts = self.name.split(".")
        where = os.path.join(self.app, *parts)
        text = "there is no module %s: neither %s.py nor %s exists" % (self.name, where, os.path.join(where, "__init__.py"))
        names = []
        folder = os.path.dirname(where)
        prefix = ".".join(parts[:-1] + [""])
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            entries = []
        for entry in entries:
            stem, ending = os.path.splitext(entry)
            if ending == ".py" and stem.isidentifier() and stem != "__init__":
                names.append(prefix + stem)
        if names:
            text += "; %s has the modules %s" % (folder, ", ".join(names[:10]))
        return text + "; module names another one"

    def read(self, body, certain):
        """Reads the statements of the module. certain means that all of them run when it is imported."""
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.found[node.name] = node if certain and node.name not in self.found else None
                self.names.add(node.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self.found[alias.asname or alias.name.partition(".")[0]] = None
                    self.installed(node, alias.name, certain)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name == "*":
                        self.open = True
                    else:
                        self.found[alias.asname or alias.name] = None
                if not node.level:
                    self.installed(node, node.module, certain)
            else:
                self.read_other(node, certain)
        if "__getattr__" in self.found:
            self.open = True

    def read_other(self, node, certain):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, (ast.Store, ast.Del)):
                self.found[inner.id] = None
            elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id in ("globals", "exec", "setattr", "vars", "locals"):
                self.open = True
            elif isinstance(inner, ast.Attribute) and inner.attr == "modules":
                self.open = True  # sys.modules
        certain = certain and isinstance(node, (ast.With, ast.AsyncWith))
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            for inner in getattr(node, field, []) or []:
                if isinstance(inner, ast.stmt):
                    self.read([inner], certain)
                elif hasattr(inner, "body"):
                    self.read(inner.body, False)

    def installed(self, node, name, certain):
        """Reports a package that the module imports but that is not installed."""
        top = name.partition(".")[0]
        if not certain or top == "drover" or self.changes_path():
            return
        try:
            known = top in sys.builtin_module_names or importlib.util.find_spec(top) is not None
        except (ImportError, ValueError, AttributeError):
            known = True  # no finder knows
        if not known:
            command = "%s -m pip install %s" % (sys.executable, top)
            if sys.prefix == sys.base_prefix:  # of the system, which often refuses to install packages
                command = "%s -m venv .venv && .venv/bin/python -m pip install %s, in the directory of the app or beside it" % (sys.executable, top)
            text = "it imports %s, which is not installed for %s; to install it: %s" % (top, sys.executable, command)
            self.problems.append({"kind": "code", "file": self.file, "line": node.lineno, "column": node.col_offset + 1, "message": text})

    def changes_path(self):
        """Returns whether the app's code changes the search path of modules."""
        if not hasattr(self, "_changes"):
            with open(self.file, "rb") as source:
                text = source.read()
            self._changes = b"sys.path" in text or b"meta_path" in text or b"addsitedir" in text
        return self._changes

    def check(self, name, batch, reply):
        """Returns the problem of a function of the module, if it has one."""
        if self.broken:
            return None
        if name not in self.found:
            if self.open:
                return None
            names = sorted(n for n in self.names if not n.startswith("_"))
            text = "%s has no function %s; it has: %s" % (self.file, name, ", ".join(names) or "none")
            return {"kind": "function", "message": text, "names": names}
        node = self.found[name]
        if node is None or node.decorator_list:
            return None  # known only after an import
        return self.shape(node, batch, reply)

    def shape(self, node, batch, reply):
        """Returns the problem of a function that cannot be called with a message and a context."""
        first = "messages" if batch else "message"
        right = "def %s(%s) or def %s(%s, context)" % (node.name, first, node.name, first)
        if isinstance(node, ast.ClassDef):
            text = "%s is a class, not a function; write %s" % (node.name, right)
            return {"kind": "code", "file": self.file, "line": node.lineno, "column": node.col_offset + 1, "message": text}
        a = node.args
        positional = [p.arg for p in a.posonlyargs + a.args]
        if reply and tuple(positional) in (("scope", "receive", "send"), ("environ", "start_response"), ("env", "start_response")):
            return None  # an ASGI or WSGI app
        least = len(positional) - len(a.defaults)
        required = [k.arg for k, default in zip(a.kwonlyargs, a.kw_defaults) if default is None]
        known = any(p.annotation for p in a.posonlyargs + a.args) or any(p in ("message", "msg", "context", "ctx") for p in positional[1:])
        if least > 3 or least > 2 and not known:
            text = "%s has %d parameters without a default, but drover passes the message and a context; write %s" % (node.name, least, right)
        elif required:
            text = "%s needs the keyword %s, which drover does not pass; write %s" % (node.name, required[0], right)
        elif not positional:
            text = "%s has no parameter for the message; write %s" % (node.name, right)
        elif least == 2 and positional[0] in ("context", "ctx") and not (a.posonlyargs + a.args)[0].annotation:
            text = "%s has its parameters in the wrong order; write %s" % (node.name, right)
        elif not reply and any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in own_nodes(node)):
            text = "%s is a generator function (it has yield), so its code would not run; return a list instead" % node.name
        else:
            return None
        return {"kind": "code", "file": self.file, "line": node.lineno, "column": node.col_offset + 1, "message": text}


def own_nodes(function):
    """Yields the nodes of a function, without the nodes of nested functions."""
    queue = list(function.body)
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            queue.extend(ast.iter_child_nodes(node))


def find(app, name):
    """Returns the spec of a module, without importing its parent packages."""
    path, spec = [app, os.path.join(app, ".python_packages", "lib", "site-packages")] + sys.path, None
    parts = name.split(".")
    for i in range(len(parts)):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: i + 1]), path)
        if spec is None and i == 0:
            try:
                spec = importlib.util.find_spec(parts[0])
            except (ImportError, ValueError):
                spec = None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
        if i + 1 < len(parts) and not path:
            return None
    return spec


if __name__ == "__main__":
    main()
