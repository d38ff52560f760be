"""Stands for an app of your own: it answers to each message that is posted to it."""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept

    def do_GET(self):
        self.answer(200 if self.path == "/ready" else 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(f"{self.path}: {self.headers['Drover-Message-Id']!r}, {len(body)} bytes", flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Handler).serve_forever()
