"""A stand-in for a notebook server: a small HTTP server that says who it is and what it was asked for.

JupyterHub starts it as a user's server or as a service. It takes the address from the same
variables that the real ones do.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SERVICE_URL = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
IDENTITY = {
    "light_server": True,
    "user": os.environ.get("JUPYTERHUB_USER", ""),
    "server": os.environ.get("JUPYTERHUB_SERVER_NAME", ""),
    "service": os.environ.get("JUPYTERHUB_SERVICE_NAME", ""),
    "pid": os.getpid(),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({**IDENTITY, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # Connections that come all at once, as after a moment in which the machine was busy elsewhere.
    request_queue_size = 256


if __name__ == "__main__":
    server = Server((SERVICE_URL.hostname, SERVICE_URL.port), Handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
