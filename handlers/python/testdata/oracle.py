"""Runs functions of an Azure Functions app by Azure's own runtime package, without a host: what they
return is compared with what drover gets of the same app.

Input: JSON, {"dir": DIRECTORY, "calls": [CALL, ...]}. A call has function, name and type (of the
trigger's binding), body (in base64), or bodies for a batch, metadata (an object), and for HTTP method, url, headers, query and params.
Output: JSON, a list with, for each call, outputs (an object: for each binding a list of bodies in base64),
response (status, headers and body, or null) and error (or "").
"""

import asyncio
import base64
import json
import os
import sys
import types
import uuid


class Anything:
    """A message of the host's protocol: any keywords."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def __class_getitem__(cls, _):
        return cls


def protocol():
    """Returns a namespace with the classes that the runtime looks up in it."""

    def enumeration(*names):
        return {name: number for number, name in enumerate(names)}

    class Protos:
        def __getattr__(self, name):
            made = type(name, (Anything,), {})
            if name == "StatusResult":
                made.Success, made.Failure = 1, 0
            if name == "BindingInfo":
                for key, value in enumeration("in", "out", "inout").items():
                    setattr(made, key, value)
                made.undefined, made.string, made.binary, made.stream = 0, 1, 2, 3
                made.Direction = made.DataType = made
            setattr(self, name, made)
            return made

    return Protos()


def bodies(binding, datum):
    """Returns the messages that the host makes of an output value."""
    if datum is None or datum.value is None:
        return []
    value, kind = datum.value, datum.type
    if kind == "bytes":
        return [value]
    if kind == "string":
        return [value.encode()]
    if kind == "json":
        value = json.loads(value)
    if not isinstance(value, list):
        value = [value]
    out = []
    for one in value:
        if binding == "queue" and isinstance(one, dict) and set(one) == {"id", "body"}:
            one = one["body"]  # the host unwraps it
        out.append(one if isinstance(one, bytes) else one.encode() if isinstance(one, str) else json.dumps(one).encode())
    return out


def response(datum):
    """Returns an HTTP response as JSON."""
    if datum is None:
        return None
    if datum.type == "string":
        headers = [["content-type", "text/plain; charset=utf-8"]]  # the host adds it
        return {"status": 200, "headers": headers, "body": base64.b64encode(datum.value.encode()).decode()}
    value = datum.value
    body = value["body"]
    raw = b"" if body is None or body.value is None else body.value.encode() if isinstance(body.value, str) else bytes(body.value)
    headers = sorted([name.lower(), each.value] for name, each in value["headers"].items())
    for jar in value.get("cookies") or ():
        for cookie in jar.values():
            headers.append(["set-cookie", cookie.key + "=" + cookie.value])
    return {"status": int(value["status_code"].value), "headers": headers, "body": base64.b64encode(raw).decode()}


class Runtime:
    """The runtime of one programming model, with an app in it."""

    def __init__(self, app):
        self.app = app
        if os.path.exists(os.path.join(app, os.environ.get("PYTHON_SCRIPT_FILE_NAME", "function_app.py"))):
            import azure_functions_runtime as runtime
            from azure_functions_runtime import handle_event, native_invocation
            from azure_functions_runtime.bindings.datumdef import Datum
        else:
            import azure_functions_runtime_v1 as runtime
            from azure_functions_runtime_v1 import handle_event, native_invocation
            from azure_functions_runtime_v1.bindings.datumdef import Datum
        self.runtime, self.events, self.native, self.Datum = runtime, handle_event, native_invocation, Datum
        self.protos = protocol()
        self.v1 = runtime.__name__.endswith("_v1")

    def request(self, name, **fields):
        inner = types.SimpleNamespace(**{name: types.SimpleNamespace(**fields)})
        return types.SimpleNamespace(name=name, request=inner, properties={"protos": self.protos, "host": "127.0.0.1"})

    async def load(self):
        self.runtime.start_threadpool_executor()
        answer = await self.runtime.worker_init_request(
            self.request("worker_init_request", capabilities={}, function_app_directory=self.app, host_version="4")
        )
        self.check(answer)
        if self.v1:
            for folder in sorted(os.listdir(self.app)):
                if os.path.exists(os.path.join(self.app, folder, "function.json")):
                    await self.load_v1(folder)

    async def load_v1(self, folder):
        with open(os.path.join(self.app, folder, "function.json")) as file:
            config = json.load(file)
        bindings = {}
        for one in config["bindings"]:
            kind = {"binary": 2, "string": 1, "stream": 3}.get(one.get("dataType", ""), 0)
            direction = {"in": 0, "out": 1, "inout": 2}[one.get("direction", "in")]
            bindings[one["name"]] = Anything(type=one["type"], direction=direction, data_type=kind, name=one["name"], properties={})
        metadata = Anything(
            name=folder, directory=os.path.join(self.app, folder), bindings=bindings, entry_point=config.get("entryPoint", ""),
            script_file=os.path.join(self.app, folder, config.get("scriptFile", "__init__.py")), properties={}, raw_bindings=[], retry_options=None,
        )
        answer = await self.runtime.function_load_request(self.request("function_load_request", function_id=self.number(folder), metadata=metadata))
        self.check(answer)

    def check(self, answer):
        if answer.result.status != self.protos.StatusResult.Success:
            failure = answer.result.exception
            raise RuntimeError(getattr(failure, "message", failure))

    def number(self, name):
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))

    async def call(self, call):
        function = self.events._functions.get_function(self.number(call["function"]))
        datum, metadata = self.datum(call), {}
        for key, value in (call.get("metadata") or {}).items():
            metadata[key] = self.Datum(json.dumps(value), "json")
        ok, returned, outputs, error, _ = await self.native.invocation_request_native(str(uuid.uuid4()), self.number(call["function"]), [(call["name"], datum)], metadata, "", "", *call["retry"])
        out = {"outputs": {}, "response": None, "error": "" if ok else error}
        if not ok:
            return out
        kinds = {n: info.binding_name for n, info in function.output_types.items()}
        if function.return_type is not None:
            kinds["$return"] = function.return_type.binding_name
            outputs = [*outputs, ("$return", returned)]
        for name, datum in outputs:
            if kinds[name] == "http":
                out["response"] = response(datum)
                continue
            made = bodies(kinds[name], datum)
            if made:
                out["outputs"][name] = [base64.b64encode(body).decode() for body in made]
        return out

    def datum(self, call):
        """Returns the value of a trigger, as the host sends it."""
        if call.get("bodies"):
            return self.Datum(types.SimpleNamespace(string=[base64.b64decode(body).decode() for body in call["bodies"]]), "collection_string")
        body = base64.b64decode(call.get("body", ""))
        if call["type"] == "timerTrigger":
            return self.Datum(body.decode(), "json")
        if call["type"] == "httpTrigger":
            def text(value):
                return self.Datum(value, "string")

            return self.Datum(
                {
                    "method": text(call["method"]), "url": text(call["url"]), "body": self.Datum(body, "bytes"),
                    "headers": {name: text(value) for name, value in (call.get("headers") or {}).items()},
                    "query": {name: text(value) for name, value in (call.get("query") or {}).items()},
                    "params": {name: text(value) for name, value in (call.get("params") or {}).items()},
                },
                "http",
            )
        if call.get("binary"):
            return self.Datum(body, "bytes")
        return self.Datum(body.decode(), "string")


async def main():
    wanted = json.load(sys.stdin)
    sys.path.insert(0, wanted["dir"])
    os.chdir(wanted["dir"])
    runtime = Runtime(wanted["dir"])
    await runtime.load()
    return [await runtime.call(call) for call in wanted["calls"]]


if __name__ == "__main__":
    answer_to, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr  # functions may print
    os.dup2(2, 1)
    json.dump(asyncio.run(main()), answer_to)
    answer_to.close()
    os._exit(0)  # threads that the app has started must not keep the process
