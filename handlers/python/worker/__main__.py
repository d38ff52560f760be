"""Starts the worker; the directory of this file is what `import drover` finds."""

from drover.worker import main

main()
