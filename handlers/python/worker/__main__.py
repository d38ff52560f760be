"""Starts the worker; the directory of this file is what `import drover` finds."""

import sys

if sys.argv[1:] == ["index"]:
    from drover.function_app import main
else:
    from drover.worker import main

main()
