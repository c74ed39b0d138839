"""The tests that judge mutants, each in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
import time

from tree import ROOT, TARGET, WORK, cargo

# Units and properties of every crate, the cases of the conformance suite, the bounded model.
JUDGES = ["--lib", "--test", "conformance", "--test", "bounded"]
# A test that takes that much longer than alone on the original hangs: caught.
PATIENCE = 10
LEAST_PATIENCE_S = 30


class Test:
    """One test of one binary, run in a process of its own."""

    def __init__(self, binary: str, package: pathlib.Path, name: str, urls: dict[str, str]):
        self.command = [binary, name, "--exact"]
        self.package = package
        self.name = f"{pathlib.Path(binary).name.rsplit('-', 1)[0]}: {name}"
        self.environment = {
            **os.environ, **urls,
            "CARGO_MANIFEST_DIR": str(package), "INSTA_UPDATE": "no", "RUST_BACKTRACE": "0", "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "1",
        }  # fmt: skip
        self.seconds = 0.0
        self.reached: set[int] = set()

    def baseline(self) -> str | None:
        """Runs it on the original and notes what it reaches; what it printed, if it fails."""
        notes = WORK / "reached" / str(id(self))
        began = time.monotonic()
        done = self._run({"MUTANTS_REACHED": str(notes)}, None)
        self.seconds = time.monotonic() - began
        if notes.exists():
            self.reached = {int(line) for line in notes.read_text().split()}
        return None if done.returncode == 0 else done.stdout.decode()

    def catches(self, number: int) -> str | None:
        """`caught` or `timeout`, if it fails on this mutant."""
        try:
            done = self._run({"MUTANT": str(number)}, max(LEAST_PATIENCE_S, PATIENCE * self.seconds))
        except subprocess.TimeoutExpired:
            return "timeout"
        return "caught" if done.returncode else None

    def _run(self, more: dict[str, str], timeout: float | None):
        return subprocess.run(
            self.command, cwd=self.package, env=self.environment | more, timeout=timeout, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def tests(urls: dict[str, str]) -> list[Test]:
    """Builds the judges and asks them for their tests."""
    found = []
    for message in cargo("test", "--no-run", *JUDGES):
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            sys.exit(message["message"]["rendered"])
        if message["reason"] != "compiler-artifact" or not message["executable"] or not message["profile"]["test"]:
            continue
        binary, package = message["executable"], pathlib.Path(message["manifest_path"]).parent

        def names(*which: str) -> set[str]:
            told = subprocess.run([binary, "--list", "--format", "terse", *which], check=True, capture_output=True).stdout
            return {line.removesuffix(": test") for line in told.decode().splitlines() if line.endswith(": test")}

        found += [Test(binary, package, name, urls) for name in sorted(names() - names("--ignored"))]
    return found


def endpoints() -> tuple[subprocess.Popen, dict[str, str]]:
    """The embedded endpoints, for the cases of the conformance suite."""
    subprocess.run(["cargo", "build", "--workspace", "--bin", "broker", "--quiet"], cwd=ROOT, check=True)
    command = [TARGET / "debug" / "broker", "endpoints", "--dynamodb-port", "0", "--sqs-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    told = json.loads(process.stdout.readline())
    urls = {"CONFORMANCE_DYNAMODB_URL": told["dynamodb_url"], "CONFORMANCE_SQS_URL": told["sqs_url"]}
    return process, urls | {"CONFORMANCE_EMBEDDED": "1"}


def judge(number: int, judges: list[Test]) -> tuple[str, str | None]:
    """The verdict on one mutant, and the test that failed."""
    able = sorted((test for test in judges if number in test.reached), key=lambda test: test.seconds)
    for test in able:
        if verdict := test.catches(number):
            return verdict, test.name
    return ("survived" if able else "uncovered"), None
