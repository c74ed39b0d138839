"""Checks what promtool does not: every alert is tested both ways, its runbook section exists, Kubernetes has the same, the dashboard its jobs.

    alerts.py
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]
OBSERVABILITY = ROOT / "infra/observability"


def anchors(page: pathlib.Path) -> set[str]:
    """The sections of a Markdown page, as links name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def main() -> int:
    groups = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    problems: list[str] = []

    fires, quiet = set(), set()
    tests = yaml.safe_load((OBSERVABILITY / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    for case in (case for test in tests for case in test["alert_rule_test"]):
        (fires if case["exp_alerts"] else quiet).add(case["alertname"])
    for rule in rules:
        name, notes = rule["alert"], rule["annotations"]
        for told, seen in (("fires", fires), ("stays quiet", quiet)):
            if name not in seen:
                problems.append(f"no test in which {name} {told}")
        page, _, section = notes.get("runbook", "").partition("#")
        if not page or section not in anchors(ROOT / page):
            problems.append(f"{name}: the runbook {notes.get('runbook')!r} is nowhere")

    # Environments do not mix: every aggregation keeps the prefix.
    for rule in rules:
        for grouping in re.findall(r"\b(?:sum|min|max|avg|count)\b\s*(by \([^)]*\))?", rule["expr"]):
            if "prefix" not in grouping:
                problems.append(f"{rule['alert']} aggregates over all environments")

    # A series that is not there has no prefix: whose it would be is said.
    for rule in rules:
        if any('prefix="' not in asked for asked in re.findall(r"\babsent\w*\(\w+(\{[^}]*\})?", rule["expr"])):
            problems.append(f"{rule['alert']} asks whether all environments together have none")

    # Of a counter that several processes add to, the largest is a part.
    for rule in rules:
        for counter in re.findall(r"\b(?:min|max)\b\s*(?:by \([^)]*\))?\s*\((?:increase|rate)\((\w+)", rule["expr"]):
            problems.append(f"{rule['alert']} takes one process's part of {counter}: sum it")

    chart = ROOT / "infra/kubernetes/chart/files/alerts.yaml"
    if yaml.safe_load(chart.read_text(encoding="utf-8"))["groups"] != groups:
        problems.append(f"{chart.relative_to(ROOT)} has other rules than infra/observability/alerts.yaml")

    # The operator names a job after its service, a scrape configuration as it likes: rules and dashboard ask for the same ones.
    jobs = {job for rule in rules for job in re.findall(r'\bjob=~?"[^"]*"', rule["expr"])}

    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for job in re.findall(r'\bjob=~?"[^"]*"', target["expr"]):
                if job not in jobs:
                    problems.append(f"panel {panel['title']!r} asks for {job}, and no alert does")
            for metric, matchers in re.findall(r"\b(broker_\w+|up)\b(?!\()(\{[^}]*\})?", target["expr"]):
                if 'prefix=~"$prefix"' not in matchers:
                    problems.append(f"panel {panel['title']!r} shows {metric} of all environments at once")
    if "prefix" not in {variable["name"] for variable in dashboard["templating"]["list"]}:
        problems.append("the dashboard has no variable prefix")

    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(rules)} alerts, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
