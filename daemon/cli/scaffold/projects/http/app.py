"""An HTTP app for drover. It can be in any language; this one needs only Python.

python3 app.py [PORT]
"""

import http.server
import json
import sys


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep connections alive

    def do_GET(self):
        self.answer(200 if self.path == "/ready" else 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/orders":
            return self.answer(404)  # drover pauses the function as misconfigured
        try:
            order = json.loads(body)
            total = sum(line["price"] * line["count"] for line in order["lines"])
        except (ValueError, KeyError, TypeError) as error:
            return self.answer(422, f"no order: {error!r}")  # dead-lettered
        attempt = self.headers.get("Drover-Attempt", "1")
        print(f"order {order.get('id')}, attempt {attempt}: {total}", flush=True)
        # The body of a 2xx is the result, which drover sends if the function has an output.
        return self.answer(200, json.dumps({"id": order.get("id"), "total": total}))

    def answer(self, status, text=""):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass  # do not log each request


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait; with the default of 5, many at once are delayed by a second


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    server = Server(("127.0.0.1", port), App)
    print(f"listens on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
