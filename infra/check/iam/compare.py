"""Compares the rendered policies with the calls that were seen: none missing, none unused.

    compare.py OUTPUTS_JSON CALLS...

CALLS are files of `role action resource` lines (record.py writes them): `queue/requests`, `queue/replies-*`,
`table`, `index/StateIndex`, or `*`; `#` begins a comment. Every call must be allowed by a statement of its role's policy, and every action of
every allowing statement must have been used on each of its resources. Calls of the role `init` are no task's: on AWS, Terraform
makes what `broker init` makes.
"""

import fnmatch
import json
import pathlib
import re
import sys

METHOD = re.compile(r"\.(\w+)\(\)")


def listed(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def resource(arn: str) -> str:
    """`arn:aws:sqs:…:broker-replies-*` is `queue/replies-*`."""
    if arn == "*":
        return "*"
    service, tail = arn.split(":")[2], arn.split(":", 5)[5]
    if service == "sqs":
        return f"queue/{tail.removeprefix('broker-')}"
    if "/index/" in tail:
        return f"index/{tail.rsplit('/', 1)[1]}"
    # An operator does on a restored table what is done on the table.
    return "table" if tail in ("table/broker", "table/broker-restored") else tail


def compare(role: str, policy: dict, calls: set[tuple[str, str]]) -> list[str]:
    granted = {
        (action, resource(arn))
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
        for arn in listed(statement["Resource"])
    }
    denied = [statement for statement in policy["Statement"] if statement["Effect"] == "Deny" and "Condition" not in statement]
    wild = [(action, on) for action, on in granted if "*" in action]
    problems = [f"{role}: {action} on {on}: an action with a wildcard" for action, on in wild]
    problems += [f"{role}: {statement['Sid']} denies without a condition, whatever is allowed" for statement in denied]
    for action, on in sorted(calls):
        if not any(action == a and fnmatch.fnmatchcase(on, r) for a, r in granted):
            problems.append(f"{role}: {action} on {on} was called and is not allowed")
    for action, on in sorted(granted):
        if not any(action == a and fnmatch.fnmatchcase(r, on) for a, r in calls):
            problems.append(f"{role}: {action} on {on} is allowed and nobody called it")
    return problems


def operations_in_sources(root: pathlib.Path) -> set[str]:
    """The AWS operations that the crates call, by the SDK's method names: `.send_message_batch()`."""
    # Wherever the crates of table and queues lie.
    sources = [path for path in root.glob("common/**/*.rs") if {"store", "queue"} & set(path.parts) and "tests" not in str(path)]
    if not sources:
        raise SystemExit("  no source of the store and the queues is found: the list cannot be compared with it")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    known = "get batch_get put update delete transact_get transact_write batch_write".split()
    items = {f"{verb}_item{'s' if verb.startswith(('trans',)) else ''}" for verb in known}
    others = {"query", "scan", "execute_statement", "send_message", "send_message_batch", "receive_message",
              "delete_message", "delete_message_batch", "change_message_visibility",
              "change_message_visibility_batch", "get_queue_url", "get_queue_attributes", "list_queues",
              "create_queue", "delete_queue", "purge_queue", "list_dead_letter_source_queues"}
    return set(METHOD.findall(text)) & (items | others)


IAM_OF = {
    "transact_write_items": {"ConditionCheckItem", "DeleteItem", "PutItem", "UpdateItem"},
    "transact_get_items": {"GetItem"},
    "execute_statement": {"PartiQLSelect"},
    "send_message_batch": {"SendMessage"},
    "delete_message_batch": {"DeleteMessage"},
    "change_message_visibility_batch": {"ChangeMessageVisibility"},
}


def stale(root: pathlib.Path, calls: list[tuple[str, str, str]]) -> list[str]:
    """Operations that the code calls and the list has never seen: the list is older than the code."""
    seen = {action.split(":")[1] for _, action, _ in calls}
    problems = []
    for operation in sorted(operations_in_sources(root)):
        needs = IAM_OF.get(operation, {"".join(word.capitalize() for word in operation.split("_"))})
        if missing := needs - seen:
            problems.append(f"the code calls {operation}, the list has no {', '.join(sorted(missing))}: record it anew")
    return problems


def main() -> int:
    outputs, *lists = sys.argv[1:]
    policies = json.loads(pathlib.Path(outputs).read_text(encoding="utf-8"))["policies"]
    lines = [line for path in lists for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    calls = [(role, action, on) for role, action, on in (line.split() for line in lines if not line.startswith("#"))]
    problems = stale(pathlib.Path(__file__).parents[3], calls)
    for role, policy in policies.items():
        of_role = {(action, on) for r, action, on in calls if r == role}
        problems += compare(role, json.loads(policy), of_role)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(calls)} kinds of calls, {len(policies)} policies, {len(problems)} differences")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
