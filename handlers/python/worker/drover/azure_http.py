"""The responses of HTTP functions of function apps."""

from __future__ import annotations

import functools
import json
from typing import Any

from drover.payloads import put_properties
from drover.results import article

@functools.lru_cache(1000)
def _head(status: int, content_type: str) -> bytes:
    """Returns the properties of a response that has no other headers."""
    return put_properties({"http_status": str(status), "content_type": content_type}, b"")


def respond(function: str, value: Any) -> bytes:
    """Returns the properties and body of a response; raises TypeError if the value is none."""
    if isinstance(value, str):
        return _head(200, "text/plain; charset=utf-8") + value.encode("utf-8", "surrogatepass")
    body: bytes | str | None
    try:
        status, headers, body = int(value.status_code), value.headers, value.get_body()
    except AttributeError:
        what = "None" if value is None else article(value)
        raise TypeError(f"function {function} returned {what}, which is not an HTTP response; return func.HttpResponse(...) or a str") from None
    content_type, others = "", []
    for name, text in headers.items():
        if name.lower() == "content-type":
            content_type = str(text)
        else:
            others.append((name, str(text)))
    if not content_type:
        content_type = value.mimetype
        if content_type.startswith("text/"):
            content_type += f"; charset={value.charset}"
    if body is None:
        body = b""
    elif isinstance(body, str):
        body = body.encode()
    if not others:
        return _head(status, content_type) + body
    return put_properties({"http_status": str(status), "content_type": content_type, "http_headers": json.dumps(others)}, body)
