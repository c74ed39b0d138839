#!/usr/bin/env python3
"""A lab's start, renewal and stop, with nothing but Python's standard library.

    BROKER_URL=https://broker.example BROKER_TOKEN=... lab.py start INSTANCE [--lab LAB] [--key KEY] [--async]
    BROKER_URL=https://broker.example BROKER_TOKEN=... lab.py renew INSTANCE SANDBOX_ID [--hours N]
    BROKER_URL=https://broker.example BROKER_TOKEN=... lab.py stop INSTANCE SANDBOX_ID

Which key? One per intent. An instance that needs one sandbox needs no key: its own id is the default. One that needs
several at the same time names each: --key attacker, --key victim. A key is never used for two different requests.
"""

import argparse
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request

# The same call again is right after these, and safe: it gets what an earlier one was given.
AGAIN = {408, 409, 429, 500, 502, 503, 504}


class Refused(Exception):
    """The call is wrong and stays wrong; the text says what to do."""


class TooLate(Exception):
    """The patience is over. The sandbox may still come: asking again with the same key is safe."""


class TakenBack(Exception):
    """The time of the sandbox was over and it is taken back."""


class Broker:
    def __init__(self, url, token, patience_s=120, say=lambda message: None):
        """`say` is told, now and then, what a student who waits may read."""
        self.url, self.token, self.say = url.rstrip("/"), token, say
        self.began = time.monotonic()
        self.until = self.began + patience_s

    def start(self, instance, lab=None, key=None, respond_async=False):
        """The sandbox of this instance (and key), as the broker tells it."""
        headers = {"X-Instruqt-Sandbox-ID": instance}
        if lab:
            headers["X-Instruqt-Track-ID"] = lab
        if key:
            headers["Idempotency-Key"] = key
        if respond_async:
            headers["Prefer"] = "respond-async"
        while True:
            status, head, body = self._call("POST", "/v1/allocate", headers)
            if status == 202:
                status, body = self._outcome(head["Location"], head, instance)
            if status in (200, 201):
                return body
            waiting = "All sandboxes are in use. Waiting for one" if status == 409 else "Your sandbox is being prepared"
            self.say(f"{waiting}, {time.monotonic() - self.began:.0f} s so far.")
            self._pause(status, head, body)

    def renew(self, instance, sandbox_id, hours=None):
        """Until when the sandbox is kept, in seconds since the epoch."""
        data = {"hours": hours} if hours else {}
        while True:
            path = f"/v1/sandboxes/{sandbox_id}/renew"
            status, head, body = self._call("POST", path, {"X-Instruqt-Sandbox-ID": instance}, data)
            if status == 200:
                return body["expires_at"]
            if code_of(body) in ("ALLOCATION_EXPIRED", "SANDBOX_NOT_FOUND"):
                raise TakenBack(sandbox_id)
            self._pause(status, head, body)

    def stop(self, instance, sandbox_id):
        """Gives it back. True: it was there to give; False: its time was over, or it is long gone."""
        while True:
            path = f"/v1/sandboxes/{sandbox_id}/mark-for-deletion"
            status, head, body = self._call("POST", path, {"X-Instruqt-Sandbox-ID": instance})
            if status == 202:
                status, body = self._outcome(head["Location"], head, instance)
            if status == 200:
                return True
            if code_of(body) in ("ALLOCATION_EXPIRED", "SANDBOX_NOT_FOUND"):
                return False
            self._pause(status, head, body)

    def _outcome(self, location, head, instance):
        """How the request that was answered 202 ended: the status and body that the call itself would have had."""
        while True:
            self._sleep(head, "202")
            status, head, body = self._call("GET", location, {"X-Instruqt-Sandbox-ID": instance})
            if status == 200 and body["status"] != "queued":
                return body["response"]["status"], body["response"]["body"]
            if status != 200 and status not in AGAIN and status != 0:
                return status, body

    def _pause(self, status, head, body):
        if status != 0 and status not in AGAIN:
            problem = body if isinstance(body, dict) else {}
            raise Refused(f"{status} {code_of(body)}: {problem.get('detail')} {problem.get('help')}")
        self._sleep(head, f"{status} {code_of(body)}")

    def _sleep(self, head, last):
        # A little later than told, and not all at the same moment.
        pause = int(head.get("Retry-After") or 1) + random.random()
        if time.monotonic() + pause > self.until:
            raise TooLate(f"the last answer was {last}")
        time.sleep(pause)

    def _call(self, method, path, headers, data=None):
        """Status, headers and body; status 0 without an answer."""
        text = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, method=method, headers=headers, data=text)
        request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, read(answer)
        except urllib.error.HTTPError as answer:
            return answer.code, answer.headers, read(answer)
        except OSError:
            return 0, {}, None


def read(answer):
    try:
        return json.load(answer)
    except ValueError:
        return None


def code_of(body):
    """What tells one problem from another: programs look at this, never at the words."""
    error = body.get("error") if isinstance(body, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def main():
    parser = argparse.ArgumentParser(description="Gets a sandbox for a lab instance, or gives it back.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start")
    start.add_argument("instance")
    start.add_argument("--lab")
    start.add_argument("--key")
    start.add_argument("--async", dest="respond_async", action="store_true")
    renew = commands.add_parser("renew")
    renew.add_argument("instance")
    renew.add_argument("sandbox")
    renew.add_argument("--hours", type=int)
    stop = commands.add_parser("stop")
    stop.add_argument("instance")
    stop.add_argument("sandbox")
    args = parser.parse_args()
    patience_s = float(os.environ.get("PATIENCE_S", "120"))
    say = lambda message: print(message, file=sys.stderr, flush=True)
    broker = Broker(os.environ["BROKER_URL"], os.environ["BROKER_TOKEN"], patience_s, say)
    try:
        if args.command == "start":
            print(json.dumps(broker.start(args.instance, args.lab, args.key, args.respond_async)))
        elif args.command == "renew":
            print(broker.renew(args.instance, args.sandbox, args.hours))
        else:
            given = broker.stop(args.instance, args.sandbox)
            print("given back" if given else "nothing left to give back")
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    except TakenBack as sandbox:
        print(f"the time of {sandbox} was over and it is taken back", file=sys.stderr)
        return 3
    except TooLate as late:
        print(f"not in time: {late}", file=sys.stderr)
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
