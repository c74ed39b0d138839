"""A hook that judges every signature with the Python verifier of Standard Webhooks: 204, or 400 with its words."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            Webhook(sys.argv[1]).verify(body, headers)
        except Exception as error:
            self.send_response(400)
            self.end_headers()
            self.wfile.write(f"{type(error).__name__}: {error}".encode())
        else:
            self.send_response(204)
            self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Hook)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
