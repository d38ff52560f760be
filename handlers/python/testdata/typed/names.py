"""Prints the public names of drover that function_app.py, beside it, does not use."""

import pathlib
import re

import drover

names = set(drover.__all__)
for kind in (drover.Context, drover.Message, drover.Output, drover.Outputs, drover.Response):
    names.update(name for name in dir(kind) if not name.startswith("_"))
names.update(drover.Retry("").__dict__)
text = pathlib.Path(__file__).with_name("function_app.py").read_text()
print(*sorted(name for name in names if not re.search(rf"\.{name}\b", text)), end="")
