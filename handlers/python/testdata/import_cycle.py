"""Prints a cycle of imports in the package at the path that is given, if there is one.
Imports in functions count."""

import ast
import pathlib
import sys


def imports(path, package):
    """The modules of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise SystemExit(f"{path}: a relative import, which this test does not follow")
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found & package


def cycle(graph, way):
    for name in sorted(graph[way[-1]]):
        if name in way:
            return way[way.index(name) :] + [name]
        if name not in done:
            found = cycle(graph, way + [name])
            if found:
                return found
    done.add(way[-1])
    return None


root = pathlib.Path(sys.argv[1])
names = {root.name if p.stem == "__init__" else f"{root.name}.{p.stem}": p for p in root.glob("*.py")}
graph = {name: imports(path, set(names)) for name, path in names.items()}
if sum(map(len, graph.values())) < len(graph):
    raise SystemExit(f"only {graph} found")
done = set()
for name in sorted(graph):
    found = cycle(graph, [name])
    if found:
        print(" imports ".join(found))
        break
