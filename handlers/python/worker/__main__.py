"""Starts the worker; the directory of this file is what `import drover` finds."""

import sys

for name in [name for name in sys.modules if name.partition(".")[0] == "drover"]:
    del sys.modules[name]  # the environment's package, imported by a .pth file

if sys.argv[1:] == ["index"]:
    from drover.function_app import main
else:
    from drover.worker import main

main()
