"""Evaluates both renderings of the workers' scaling rule against the rule itself.

    scaling.py OUTPUTS_JSON RENDERED.yaml CASES.json

CASES is the rule's table: a unit test of common/domain/src/scaling.rs computes every row with the one function that
`broker up --workers A..B` uses. Here the rows are computed from the metric-math expression that Terraform renders, as
target tracking uses it, and from the parameters of the KEDA trigger, as the autoscaler uses them. Both have their own
cool-downs and tolerances, so rows are compared before these (`wanted`), and the cool-downs by their values.
"""

import json
import math
import pathlib
import re
import sys

import yaml


def metric_math(expression: str, values: dict[str, float | None]) -> float:
    """FILL, IF, +, -, *, / and comparisons over single values; a missing value is None."""
    tokens = re.findall(r"[A-Za-z_]\w*|\d+(?:\.\d+)?|[()+\-*/,<>]", expression)
    if "".join(tokens) != expression.replace(" ", ""):
        raise ValueError(f"not understood: {expression}")
    functions = {
        "FILL": lambda value, default: default if value is None else value,
        "IF": lambda condition, yes, no: yes if condition else no,
    }
    for token in tokens:
        if re.match(r"[A-Za-z_]", token) and token not in functions and token not in values:
            raise ValueError(f"unknown name: {token}")
    return eval(" ".join(tokens), {"__builtins__": {}}, {**functions, **values})  # only the tokens checked above


def held(number: float, least: int, most: int) -> int:
    return max(least, min(most, number))


def main() -> int:
    rendered = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    manifests = [r for r in yaml.safe_load_all(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")) if r]
    cases = json.loads(pathlib.Path(sys.argv[3]).read_text(encoding="utf-8"))
    problems: list[str] = []

    policy = rendered["resources"]["aws_appautoscaling_policy.backlog[0]"]["target_tracking_scaling_policy_configuration"][0]
    metrics = {m["id"]: m for m in policy["customized_metric_specification"][0]["metrics"]}
    expression = next(m["expression"] for m in metrics.values() if m["return_data"])
    target = rendered["resources"]['aws_appautoscaling_target.this["worker"]']
    scaled = next(r for r in manifests if r["kind"] == "ScaledObject")["spec"]
    trigger = scaled["triggers"][0]["metadata"]
    counted = {"visible": True, "in_flight": trigger["scaleOnInFlight"] == "true", "delayed": trigger["scaleOnDelayed"] == "true"}

    def expect(what: str, found: object, wanted: object) -> None:
        if found != wanted:
            problems.append(f"{what}: {found}, the rule says {wanted}")

    rule = cases["rule"]
    bounds = (target["min_capacity"], target["max_capacity"])
    expect("Terraform's bounds", bounds, (rule["min"], rule["max"]))
    expect("Terraform's target", policy["target_value"], rule["per_worker"])
    expect("Terraform's cool-down", policy["scale_in_cooldown"], rule["cooldown_s"])
    expect("KEDA's bounds", (scaled["minReplicaCount"], scaled["maxReplicaCount"]), (rule["min"], rule["max"]))
    expect("KEDA's target", int(trigger["queueLength"]), rule["per_worker"])
    window = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
    expect("KEDA's cool-down", window, rule["cooldown_s"])
    expect("KEDA's metric type", scaled["triggers"][0]["metricType"], "AverageValue")

    for case in cases["cases"]:
        for running in (case["workers"], None):
            backlog = metric_math(expression, {"visible": case["visible"], "inflight": case["in_flight"], "running": running})
            # Target tracking: as many more as the metric is above its target.
            tracked = math.ceil(round(max(running or 0, 1) * backlog / policy["target_value"], 9))
            expect(f"Terraform, {case}, running {running}", held(tracked, *bounds), case["wanted"])
        asked = sum(case.get(part, 0) for part, counts in counted.items() if counts)
        expect(f"KEDA, {case}", held(math.ceil(asked / int(trigger["queueLength"])), scaled["minReplicaCount"], scaled["maxReplicaCount"]), case["wanted"])
    # No traffic yet: CloudWatch has no value at all.
    expect("Terraform, no values", metric_math(expression, {"visible": None, "inflight": None, "running": None}), 0)

    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(cases['cases'])} cases in two renderings, {len(problems)} differences")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
