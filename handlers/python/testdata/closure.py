"""Prints each module of drover that is imported by the files of a directory but missing there."""

import ast
import os
import sys

home = os.path.join(sys.argv[1], "drover")
for name in sorted(os.listdir(home)):
    if not name.endswith(".py"):
        continue
    with open(os.path.join(home, name), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("drover."):
            modules = [(node.module or "").partition(".")[2]]
        elif isinstance(node, ast.ImportFrom) and node.module == "drover":
            modules = [a.name for a in node.names if a.name.islower() and not a.name.startswith("_")]
        else:
            continue
        for module in modules:
            if not os.path.exists(os.path.join(home, f"{module}.py")):
                print(f"{name} imports {module}")
