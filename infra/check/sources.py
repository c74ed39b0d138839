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


def rust() -> dict[pathlib.Path, str]:
    """The product's sources: by what they say, not by where they lie, so that files may move."""
    crates = ("common", "api", "worker", "infra/cli", "infra/local")
    files = [file for crate in crates for file in sorted((ROOT / crate).rglob("*.rs")) if "target" not in file.parts]
    return {file: file.read_text(encoding="utf-8") for file in files}


def outcomes(sources: dict[pathlib.Path, str]) -> set[str]:
    """What a `request` line may say in `outcome`: how a request ended, or the code of the problem that it met, in small letters."""
    ended = [text for file, text in sources.items() if file.name == "outcome.rs" and "domain" in file.parts]
    words = re.findall(r'=> "([a-z_]+)",', "\n".join(ended))
    coded = [text for text in sources.values() if '"NO_SANDBOXES_AVAILABLE"' in text and "enum Code" in text]
    codes = re.findall(r'"([A-Z_]+)"', "\n".join(coded))
    if not words or not codes:
        raise SystemExit("  the outcomes of requests are not found in the sources")
    own = re.findall(r'const NO_PREFIX_MATCH: &str = "([a-z_]+)"', "\n".join(sources.values()))
    return {*words, *own, *(code.lower() for code in codes)}


def tests(sources: dict[pathlib.Path, str]) -> list[tuple[set[str], str]]:
    """Every function that may be a test, with the names of its modules."""
    own = [file for file in sorted((ROOT / "tests").rglob("*.rs")) if "target" not in file.parts]
    texts = {**sources, **{file: file.read_text(encoding="utf-8") for file in own}}
    found = []
    for file, text in texts.items():
        parts = {part.removesuffix(".rs").removesuffix("_tests") for part in file.relative_to(ROOT).parts} | {file.stem}
        parts |= set(re.findall(r"^ *(?:pub )?mod (\w+) \{", text, re.MULTILINE))
        found += [(parts, name) for name in re.findall(r"\bfn (\w+)", text)]
    return found


def main() -> int:
    rendered = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    manifests = pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")
    resources = [r for r in yaml.safe_load_all(manifests) if r]
    files = rust()
    sources, known_outcomes = "\n".join(files.values()), outcomes(files)
    runbook = (ROOT / "infra/docs/RUNBOOK.md").read_text(encoding="utf-8")
    problems: list[str] = []
    checked = 0

    def needs(what: str, name: str, where: str, found: bool) -> None:
        nonlocal checked
        checked += 1
        if not found:
            problems.append(f"{what} {name!r} of {where} is nowhere")

    # A line that says first what it is about, as `"{failing} fails: …"`.
    named = [re.compile(r"\w[\w ]*" + re.escape(rest)) for rest in re.findall(r'"\{\w+\}( [^"{}]+)"', sources)]
    filters = {k: v for k, v in rendered["resources"].items() if k.startswith("aws_cloudwatch_log_metric_filter.")}
    for address, values in filters.items():
        for message in re.findall(r'\$\.message = "([^"]+)"', values["pattern"]):
            needs("line", message, address, f'"{message}"' in sources or any(line.fullmatch(message) for line in named))
        of_requests = '$.message = "request"' in values["pattern"]
        for outcome in re.findall(r'\$\.outcome = "([^"]+)"', values["pattern"]):
            needs("outcome", outcome, address, outcome in known_outcomes if of_requests else f'=> "{outcome}"' in sources)
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

    # What the services are told by the modules cannot be given another value, which would be dropped.
    for file in ("variables.tf", "modules/ecs/variables.tf"):
        refused = re.search(r"setintersection\(keys\(var\.settings\), \[(.*?)\]", (ROOT / "infra/terraform" / file).read_text(encoding="utf-8"), re.DOTALL)
        for name in sorted(v["name"] for v in container["environment"] if v["name"].startswith("BROKER_")):
            needs("setting", name, f"the refused ones of {file}", refused is not None and f'"{name}"' in refused[1])

    # What the chart takes for a setting, its processes take, too; what Scheduler does unasked, the workers would do.
    numbers = re.findall(r'Setting::number\(\s*"(\w+)",\s*"(\d*)",\s*"[^"]*",\s*(?:([\d_]+)\.\.=([\d_]+))?', sources)
    numbers = {name: (int(default or 0), int(low or 0), int(high or 0)) for name, default, low, high in numbers}
    schema = json.loads((ROOT / "infra/kubernetes/chart/values.schema.json").read_text(encoding="utf-8"))["properties"]
    for group in schema.values():
        for value in group.get("properties", {}).values():
            if value["type"] == "integer" and (setting := re.match(r"BROKER_\w+", value.get("description", ""))):
                bounds = (value.get("minimum"), value.get("maximum"))
                needs("range", str(bounds), f"{setting[0]} in the chart's schema", numbers.get(setting[0], ())[1:] == bounds)
    schedule = (ROOT / "infra/terraform/modules/data/schedule.tf").read_text(encoding="utf-8")
    for job, seconds in re.findall(r"(\w+) = (\d+)", re.search(r"default_intervals_s = \{(.*)\}", schedule)[1]):
        name = f"BROKER_{job.removesuffix('_stale').upper()}_EVERY_S"
        needs("interval", seconds, f"{job} in modules/data", numbers.get(name, (0,))[0] == int(seconds))

    # Alarms and the sections that they name know each other.
    sections = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", runbook, flags=re.MULTILINE)[1:]}
    prefix = rendered["prefix"] + "-"
    alarms = {v["alarm_name"].removeprefix(prefix): v["alarm_description"] for k, v in rendered["resources"].items() if "_alarm." in k}
    for name, text in alarms.items():
        if section := re.search(r": see (.+)$", text):
            words = sections.get(section[1], "")
            needs("section", section[1], f"alarm {name}", words != "")
            globs = re.findall(r"`(\*?[a-z-]+)`", words)
            needs("alarm", name, f"section {section[1]}", any(name == glob or glob[0] == "*" and name.endswith(glob[1:]) for glob in globs))
    rules = re.findall(r"- alert: (\w+)\n(?:.*\n)*?\s+runbook: .*#(\S+)", (ROOT / "infra/observability/alerts.yaml").read_text(encoding="utf-8"))
    for name, anchor in rules:
        words = next((words for title, words in sections.items() if title.lower().replace(" ", "-") == anchor), "")
        needs("alert", name, f"section {anchor}", f"`{name}`" in words)
    # Alarms of parts that this rendering does not have: with a collector.
    elsewhere = set(re.findall(r"^      ([a-z-]+) = \{\n\s+when", (ROOT / "infra/terraform/modules/observability/alarms.tf").read_text(encoding="utf-8"), re.MULTILINE))
    for line in re.findall(r"^Alarms (.+?)(?:[.:;]|$)", runbook, re.MULTILINE):
        for name in re.findall(r"`([\w*-]+)`", line):
            known = name in alarms or name in elsewhere or any(name == rule for rule, _ in rules)
            known = known or name[0] == "*" and any(alarm.endswith(name[1:]) for alarm in {*alarms, *elsewhere})
            needs("alarm", name, "the runbook", known)

    # Tests that the guarantees name; `…` stands for the rest of a name.
    guarantees = (ROOT / "tests/GUARANTEES.md").read_text(encoding="utf-8")
    defined = tests(files)
    for name in re.findall(r"`(?:[\w-]+ )?((?:\w+::)+[\w…]+)`", guarantees):
        *modules, test = name.split("::")
        module = next((module for module in reversed(modules) if module != "tests"), "tests")
        found = any(module in parts and known.startswith(test.rstrip("…")) for parts, known in defined if test.endswith("…") or known == test)
        needs("test", name, "tests/GUARANTEES.md", found)

    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {checked} names, {len(problems)} of them wrong")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
