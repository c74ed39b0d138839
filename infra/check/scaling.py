"""Evaluates both renderings of the workers' scaling rule against the rule itself.

    scaling.py OUTPUTS_JSON RENDERED.yaml CASES.json

CASES is the rule's table: a unit test of the domain computes every row with the one function that `broker up --workers A..B`
uses. Here the rows are computed from the metric-math expression that Terraform renders, as target tracking uses it, and
from the parameters of the KEDA trigger, as the autoscaler uses them. Both have their own cool-downs and tolerances, so rows
are compared before these (`wanted`), and the cool-downs by their values.

Target tracking looks at a series, not at a value: the expression is then evaluated minute by minute over points that come
late or not at all, and must scale out and in all the same.
"""

import json
import math
import pathlib
import sys

import yaml
from metric_math import Series, breaching, evaluate, filled

OUT, IN = (3, 3), (15, 15)  # what target tracking's own alarms wait for


def held(number: float, least: int, most: int) -> int:
    return max(least, min(most, number))


def at_once(expression: str, values: dict[str, float]) -> float:
    return evaluate(expression, {name: Series([value]) for name, value in values.items()}, 0)[0]


def late(fewest: int, most: int, lost_every: int = 0):
    """Points come `fewest` to `most` periods late; each `lost_every`th never comes."""
    return lambda at: None if lost_every and at % lost_every == lost_every - 1 else fewest + at * 7 % (most - fewest + 1)


def tracked(expression: str, target: float, backlog: list[float], workers: int) -> list[str]:
    """What target tracking is told to do, minute by minute, when `backlog` waits for `workers`."""
    series = {
        "visible": Series([backlog[at] * 0.8 for at in range(len(backlog))], late(1, 2, lost_every=9)),
        "inflight": Series([backlog[at] * 0.2 for at in range(len(backlog))], late(1, 2)),
        "running": Series([workers] * len(backlog), late(1, 3, lost_every=11)),
    }
    said = []
    for now in range(len(backlog)):
        points = evaluate(expression, series, now, now - IN[1] - 5)
        if breaching(points, now, OUT, lambda value: value > target, "missing") == "ALARM":
            said.append("out")
        elif breaching(points, now, IN, lambda value: value < 0.9 * target, "missing") == "ALARM":
            said.append("in")
        else:
            said.append("-")
    return said


def series_problems(expression: str, target: float) -> list[str]:
    problems = []
    calm, rush, minutes = [20.0] * 30, [1000.0] * 30, 8
    said = tracked(expression, target, calm + rush + calm, workers=2)
    if "out" in said[:30]:
        problems.append("it scales out in a calm")
    if "out" not in said[30 : 30 + minutes]:
        problems.append(f"a rush of 30 minutes scales out later than after {minutes} minutes, or never: {said[30:60]}")
    if said[30 + minutes : 60].count("out") < 20:
        problems.append(f"scaling out is interrupted by late and lost points: {said[30:60]}")
    # What came before it is all that is known in its first minutes.
    if "in" in said[34:60]:
        problems.append("it scales in during a rush")
    if "in" not in tracked(expression, target, calm * 3, workers=10)[20:]:
        problems.append("a calm never scales in")
    return problems


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
    trigger = next(t for t in scaled["triggers"] if t["type"] == "aws-sqs-queue")
    queue = trigger["metadata"]
    counted = {"visible": True, "in_flight": queue["scaleOnInFlight"] == "true", "delayed": queue["scaleOnDelayed"] == "true"}

    def expect(what: str, found: object, wanted: object) -> None:
        if found != wanted:
            problems.append(f"{what}: {found}, the rule says {wanted}")

    rule = cases["rule"]
    bounds = (target["min_capacity"], target["max_capacity"])
    expect("Terraform's bounds", bounds, (rule["min"], rule["max"]))
    expect("Terraform's target", policy["target_value"], rule["per_worker"])
    expect("Terraform's cool-down", policy["scale_in_cooldown"], rule["cooldown_s"])
    expect("KEDA's bounds", (scaled["minReplicaCount"], scaled["maxReplicaCount"]), (rule["min"], rule["max"]))
    expect("KEDA's target", int(queue["queueLength"]), rule["per_worker"])
    window = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
    expect("KEDA's cool-down", window, rule["cooldown_s"])
    expect("KEDA's metric type", trigger["metricType"], "AverageValue")
    expect("metrics of the rule that are made up where they are late", filled(expression), set())

    for case in cases["cases"]:
        running = case["workers"]
        backlog = at_once(expression, {"visible": case["visible"], "inflight": case["in_flight"], "running": running})
        # Target tracking: as many more as the metric is above its target.
        tracks = math.ceil(round(max(running, 1) * backlog / policy["target_value"], 9))
        expect(f"Terraform, {case}", held(tracks, *bounds), case["wanted"])
        asked = sum(case.get(part, 0) for part, counts in counted.items() if counts)
        expect(f"KEDA, {case}", held(math.ceil(asked / int(queue["queueLength"])), scaled["minReplicaCount"], scaled["maxReplicaCount"]), case["wanted"])

    problems += [f"Terraform, a series: {problem}" for problem in series_problems(expression, policy["target_value"])]
    # The series can tell: the rule as it was, filled with zeros, never scales out.
    was = "(FILL(visible, 0) + FILL(inflight, 0)) / IF(FILL(running, 0) > 1, FILL(running, 0), 1)"
    if not series_problems(was, policy["target_value"]):
        problems.append("the series finds nothing wrong with a rule that is filled with zeros")

    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(cases['cases'])} cases in two renderings, a series of late and lost points, {len(problems)} differences")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
