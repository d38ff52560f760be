"""Measures azure-functions-worker 1.1.9: a host that starts the worker, loads a function of a queue and
invokes it, over gRPC as Azure's host does. Python 3.8 with that package and azure-functions runs it.

Arguments: the directory of an app of model v1 with a function for each name, seconds, calls in flight,
and the names. Prints calls per second for each name, as a JSON object.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
from azure_functions_worker import protos

APP, SECONDS, IN_FLIGHT, NAMES = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
BODY = "x" * 128
METADATA = {
    "Id": '"5c8d1dc7-ed9a-4f4e-8e4e-0a1b2c3d4e5f"', "DequeueCount": "1", "InsertionTime": '"2026-12-01T02:03:04+00:00"',
    "ExpirationTime": '"2026-12-08T02:03:04+00:00"', "NextVisibleTime": '"2026-12-01T02:08:04+00:00"', "PopReceipt": '"AgAAAAMAAAAAAAAA"',
}


class Host(protos.FunctionRpcServicer):
    def __init__(self):
        self.outgoing, self.incoming, self.connected = queue.Queue(), queue.Queue(), threading.Event()

    def EventStream(self, requests, context):
        def read():
            try:
                for message in requests:
                    if message.WhichOneof("content") != "rpc_log":
                        self.incoming.put(message)
            except grpc.RpcError:
                pass  # the worker was stopped

        threading.Thread(target=read, daemon=True).start()
        self.connected.set()
        while True:
            message = self.outgoing.get()
            if message is None:
                return
            yield message

    def ask(self, **content):
        self.outgoing.put(protos.StreamingMessage(**content))
        return self.incoming.get(timeout=60)


def invocation(function, number):
    data = protos.ParameterBinding(name="msg", data=protos.TypedData(string=BODY))
    metadata = {name: protos.TypedData(json=value) for name, value in METADATA.items()}
    return protos.StreamingMessage(
        request_id=str(number),
        invocation_request=protos.InvocationRequest(invocation_id=str(number), function_id=function, input_data=[data], trigger_metadata=metadata),
    )


def measure(host, function):
    """Returns calls per second, with this number in flight."""
    sent = done = 0
    for _ in range(IN_FLIGHT):
        host.outgoing.put(invocation(function, sent))
        sent += 1
    began = time.perf_counter()
    warm = began + min(1, SECONDS / 4)
    end, counted, since = began + SECONDS, 0, None
    while time.perf_counter() < end:
        answer = host.incoming.get(timeout=60).invocation_response
        if answer.result.status != protos.StatusResult.Success:
            raise RuntimeError(answer.result.exception.message)
        done += 1
        host.outgoing.put(invocation(function, sent))
        sent += 1
        now = time.perf_counter()
        if now >= warm:
            if since is None:
                since = now
            else:
                counted += 1
    rate = counted / (time.perf_counter() - since)
    while done < sent:
        host.incoming.get(timeout=60)
        done += 1
    return rate


def main():
    host = Host()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    protos.add_FunctionRpcServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    worker = subprocess.Popen(
        [sys.executable, "-m", "azure_functions_worker", "--host", "127.0.0.1", "--port", str(port), "--workerId", "w", "--requestId", "r", "--grpcMaxMessageLength", "2147483647"],
        stdout=subprocess.DEVNULL,
    )
    try:
        assert host.connected.wait(60), "the worker did not connect"
        assert host.incoming.get(timeout=60).WhichOneof("content") == "start_stream"
        host.ask(worker_init_request=protos.WorkerInitRequest(host_version="4.0"))
        rates = {}
        for name in NAMES:
            directory = os.path.join(APP, name)
            metadata = protos.RpcFunctionMetadata(
                name=name, directory=directory, script_file=os.path.join(directory, "__init__.py"), entry_point="main",
                bindings={"msg": protos.BindingInfo(type="queueTrigger", direction=0)},
            )
            answer = host.ask(function_load_request=protos.FunctionLoadRequest(function_id=name, metadata=metadata))
            if answer.function_load_response.result.status != protos.StatusResult.Success:
                raise RuntimeError(answer.function_load_response.result.exception.message)
            rates[name] = measure(host, name)
        print(json.dumps(rates))
    finally:
        worker.kill()
        worker.wait()
        host.outgoing.put(None)


main()
