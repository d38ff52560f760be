"""Runs the named checks of this directory, unchanged and with `from __future__ import annotations`."""

import __future__
import os
import sys
import types
import unittest

suite = unittest.TestSuite()
for name in sys.argv[1:]:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for flags in (0, __future__.annotations.compiler_flag):
        module = types.ModuleType(f"{name}_{flags}")
        module.__file__ = path
        sys.modules[module.__name__] = module
        exec(compile(text, path, "exec", flags, dont_inherit=True), module.__dict__)
        suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
sys.exit(not unittest.TextTestRunner(sys.stderr).run(suite).wasSuccessful())
