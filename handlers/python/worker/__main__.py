"""Starts the worker. `import drover` finds the package in the directory of this file."""

from drover.worker import main

main()
