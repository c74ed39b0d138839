"""Checks that the infrastructure speaks of things that exist: log lines, settings, runbook sections. Rules: alerts.py.

    sources.py OUTPUTS_JSON RENDERED.yaml

Names drift silently: a metric filter on a line that nobody writes counts nothing, for ever.
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]

def rust() -> str:
    crates = [*sorted((ROOT / "common").iterdir()), *(ROOT / crate for crate in ("api", "worker", "infra/cli", "infra/local"))]
    files = [file for crate in crates for file in sorted((crate / "src").rglob("*.rs"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def outcomes() -> set[str]:
    """What a `request` line may say in `outcome`: how a request ended, or the code of the problem that it met, in small letters."""
    words = re.findall(r'=> "([a-z_]+)",', (ROOT / "common/domain/src/outcome.rs").read_text(encoding="utf-8"))
    codes = re.findall(r'"([A-Z_]+)"', (ROOT / "api/src/response/codes.rs").read_text(encoding="utf-8"))
    return {*words, *(code.lower() for code in codes)}


def main() -> int:
    rendered = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    manifests = pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")
    resources = [r for r in yaml.safe_load_all(manifests) if r]
    sources, runbook = rust(), (ROOT / "infra/README.md").read_text(encoding="utf-8")
    problems: list[str] = []
    checked = 0

    def needs(what: str, name: str, where: str, found: bool) -> None:
        nonlocal checked
        checked += 1
        if not found:
            problems.append(f"{what} {name!r} of {where} is nowhere")

    filters = {k: v for k, v in rendered["resources"].items() if k.startswith("aws_cloudwatch_log_metric_filter.")}
    for address, values in filters.items():
        for message in re.findall(r'\$\.message = "([^"]+)"', values["pattern"]):
            needs("line", message, address, f'"{message}"' in sources)
        for outcome in re.findall(r'\$\.outcome = "([^"]+)"', values["pattern"]):
            needs("outcome", outcome, address, outcome in outcomes())
        for field in re.findall(r"\$\.(\w+)", values["pattern"]):
            known = field in ("message", "level") or re.search(rf"\b{field}\s*[=,]", sources) is not None
            needs("field", field, address, known)

    definition = rendered["resources"]['aws_ecs_task_definition.this["api"]']["container_definitions"]
    container = json.loads(definition)[0]
    names = {v["name"] for v in container["environment"] + container["secrets"]}
    names |= set(next(r for r in resources if r["kind"] == "ConfigMap")["data"])
    for deployment in (r for r in resources if r["kind"] == "Deployment"):
        names |= {v["name"] for c in deployment["spec"]["template"]["spec"]["containers"] for v in c.get("env", [])}
    for name in sorted(n for n in names if n.startswith("BROKER_")):
        needs("setting", name, "services", f'"{name.removesuffix("_FILE")}"' in sources)

    told = [v["alarm_description"] for k, v in rendered["resources"].items() if "metric_alarm" in k]
    for text in told:
        if section := re.search(r": see (.+)$", text):
            needs("section", section[1], "alarms", f"## {section[1]}\n" in runbook)

    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {checked} names, {len(problems)} of them wrong")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
