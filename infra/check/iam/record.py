#!/usr/bin/env python3
"""Writes down what the processes of a test run ask of AWS: role, action, resource.

    record.py OUT -- COMMAND...

Runs COMMAND with BROKER_TEST_RECORDER set to an HTTP proxy on 127.0.0.1, through which the test harness sends every
process it starts (`/{port}/...` is forwarded to that port). The role is the SDK's application id, which the harness
gives each process; calls of the tests themselves carry none and are not written. OUT is sorted, one line a kind of call.
Actions are those of IAM: a batch or a transaction needs the permissions of what it consists of.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SEEN: set[str] = set()
BATCHES = {
    "SendMessageBatch": "SendMessage",
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}
TRANSACTION = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
REPLIES = re.compile(r"-replies-[0-9a-f-]{36}$")
KIND = re.compile(r"-((?:requests|maintenance)(?:-dlq)?)$")


def queue(body: dict) -> str:
    name = body.get("QueueName") or body.get("QueueUrl", "").rsplit("/", 1)[-1]
    if REPLIES.search(name):
        return "queue/replies-*"
    kind = KIND.search(name)
    return f"queue/{kind[1]}" if kind else "queue/*"


def calls(target: str, body: dict) -> list[tuple[str, str]]:
    """The (IAM action, resource) pairs of one call."""
    service, operation = target.split(".", 1)
    if service == "AmazonSQS":
        return [(f"sqs:{BATCHES.get(operation, operation)}", "*" if operation == "ListQueues" else queue(body))]
    if operation in ("TransactWriteItems", "TransactGetItems"):
        items = [kind for item in body["TransactItems"] for kind in item]
        return [(f"dynamodb:{TRANSACTION.get(kind, kind + 'Item')}", "table") for kind in items]
    if operation == "ExecuteStatement":
        statement = re.match(r'SELECT .* FROM "[^"]+"(?:\."([^"]+)")?', body["Statement"], re.DOTALL)
        if not statement:
            raise ValueError(f"which IAM action is this? {body['Statement']}")
        return [("dynamodb:PartiQLSelect", f"index/{statement[1]}" if statement[1] else "table")]
    index = body.get("IndexName")
    return [(f"dynamodb:{operation}", f"index/{index}" if index else "table")]


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    local = threading.local()

    def do_POST(self) -> None:
        port, path = re.match(r"/(\d+)(/.*)?$", self.path).groups()
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        role = re.search(r"app/broker-(\w+)", self.headers.get("user-agent", ""))
        if role:
            for action, resource in calls(self.headers["x-amz-target"], json.loads(body or b"{}")):
                SEEN.add(f"{role[1]} {action} {resource}")
        upstream = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        upstream.request("POST", path or "/", body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_: object) -> None:
        """A process that was killed in the middle of a call is what some stories are about."""


def main() -> int:
    out, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        sys.exit(__doc__)
    server = Server(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "BROKER_TEST_RECORDER": f"http://127.0.0.1:{server.server_port}"}
    code = subprocess.run(command, env=environment, check=False).returncode
    # Also of a run with a failure: what was asked was asked.
    with open(out, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in sorted(SEEN))
    print(f"{len(SEEN)} kinds of calls, exit code {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
