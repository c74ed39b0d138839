"""Plays every CloudWatch alarm that Terraform renders through: it must fire, and stay quiet, over points that come late or never.

    cloudwatch.py OUTPUTS_JSON
"""

import json
import pathlib
import re
import sys

from metric_math import Series, breaching, evaluate, filled

PERIODS = 40
# Published always while the thing lives, and late: a made-up newest point would hide the real ones.
ALWAYS_PUBLISHED = ("AWS/SQS", "ECS/ContainerInsights", "AWS/ECS", "AWS/DynamoDB")

# What makes an alarm of several metrics fire, and what leaves it quiet: a value each, or a list of values by period.
CASES = {
    "errors": {
        "fires": [{"requests": 600, "target": 12, "balancer": None}, {"requests": 20, "target": 5, "balancer": 2}],
        "quiet": [{"requests": 600, "target": 3, "balancer": None}, {"requests": 8, "target": 8, "balancer": None}, {"requests": None, "target": None, "balancer": None}],
    },
    "waits-run-out": {
        "fires": [{"requests": 600, "ran_out": 30}],
        "quiet": [{"requests": 600, "ran_out": 2}, {"requests": 8, "ran_out": 8}, {"requests": 600, "ran_out": None}],
    },
    "nobody-receives": {
        "fires": [{"visible": 40, "received": 0}],
        "quiet": [{"visible": 40, "received": 900}, {"visible": 0, "received": 0}, {"visible": 0, "received": 900}],
    },
    "pool-empty": {
        "fires": [{"available": 0, "refused": 3}, {"available": [0, None, None, None] * 10, "refused": 3}],
        "quiet": [{"available": 200, "refused": 50}, {"available": 0, "refused": 0}],
    },
    "pool-prefix": {
        "fires": [{"available": 200, "refused": 5}],
        "quiet": [{"available": 200, "refused": [4] + [0] * 39}, {"available": 0, "refused": 50}],
    },
}
# Lines that come again in every minute while what they tell lasts (the worker's own test says so of Unhealthy, Shed is a line
# for each refused request). Any other line that is counted is written once, and must be enough for its alarm.
GO_ON = {"Shed", "Unhealthy"}
# Objectives, by the window's alarm: the answers of a period.
WINDOWS = {
    "answers": {
        "fires": [{"requests": 60000, "target": 3000, "balancer": None}],
        "quiet": [{"requests": 60000, "target": 20, "balancer": None}, {"requests": 50, "target": 50, "balancer": None}],
    },
    "latency": {
        "fires": [{"timed": 60000, "fast": 60}],
        "quiet": [{"timed": 60000, "fast": 99.5}, {"timed": 50, "fast": 10}],
    },
}


def late(at: int) -> int | None:
    """A point comes up to two periods late, and each thirteenth never."""
    return None if at % 13 == 12 else at % 3


def series(value) -> Series:
    return Series(value if isinstance(value, list) else [value] * PERIODS, late)


def states(alarm: dict, points_at) -> set[str]:
    """The states that the alarm is in once it has been looked at for long enough."""
    of = (alarm["datapoints_to_alarm"] or alarm["evaluation_periods"], alarm["evaluation_periods"])
    threshold = alarm["threshold"]
    breaches = {
        "GreaterThanThreshold": lambda value: value > threshold,
        "GreaterThanOrEqualToThreshold": lambda value: value >= threshold,
        "LessThanThreshold": lambda value: value < threshold,
    }[alarm["comparison_operator"]]
    after = of[1] + 5
    return {breaching(points_at(now), now, of, breaches, alarm["treat_missing_data"]) for now in range(after, PERIODS)}


def main() -> int:
    resources = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["resources"]
    alarms = {k: v for k, v in resources.items() if k.startswith("aws_cloudwatch_metric_alarm.")}
    filters = [v for k, v in resources.items() if k.startswith("aws_cloudwatch_log_metric_filter.")]
    transformations = [one["metric_transformation"][0] for one in filters]
    counted = {one["name"] for one in transformations if one["value"] == "1"}
    problems, played = [], 0

    def expect(address: str, what: str, found: set[str], fires: bool) -> None:
        nonlocal played
        played += 1
        if fires and found != {"ALARM"}:
            problems.append(f"{address} does not fire, or not for long: {what}: {sorted(found)}")
        if not fires and "ALARM" in found:
            problems.append(f"{address} fires: {what}")

    for address, alarm in alarms.items():
        queries = {q["id"]: q for q in alarm.get("metric_query") or []}
        if not queries:
            threshold = alarm["threshold"]
            low = alarm["comparison_operator"] == "LessThanThreshold"
            bad, good = (threshold - 1, threshold) if low else (threshold + 1, threshold - (0 if alarm["comparison_operator"] == "GreaterThanThreshold" else 1))
            for value, fires in ((bad, True), (good, False)):
                if alarm["treat_missing_data"] == "breaching":
                    # A count of samples: none at all, against one a period.
                    value = None if fires else 1
                one = series(value) if alarm["treat_missing_data"] != "breaching" else Series([value] * PERIODS)
                expect(address, f"{alarm['metric_name']} is {value}", states(alarm, one.known), fires)
            if alarm["metric_name"] in counted - GO_ON and not low:
                for others in (0, None):
                    once = [others] * PERIODS
                    once[PERIODS // 2] = bad
                    found = {"ALARM"} & states(alarm, series(once).known)
                    expect(address, f"{alarm['metric_name']} is counted once", found, True)
            if not low:
                nothing = Series([None] * PERIODS)
                expect(address, "nothing is published", states(alarm, nothing.known), False)
            continue

        expression = next(q["expression"] for q in queries.values() if q["return_data"])
        metrics = {id: q["metric"][0] for id, q in queries.items() if q.get("metric")}
        for id in filled(expression):
            if metrics[id]["namespace"].startswith(ALWAYS_PUBLISHED):
                problems.append(f"{address} makes up {id}, which is published always, and late")
        if alarm["evaluation_periods"] == alarm["datapoints_to_alarm"] == 1 and max(m["period"] for m in metrics.values()) <= 60:
            problems.append(f"{address} hangs on the newest point alone, which is published late")
        name = re.search(r'\["(.+)"\]', address)[1]
        cases = WINDOWS[name.split("-")[0]] if ".burn[" in address else CASES.get(name)
        if cases is None:
            problems.append(f"{address} has no case in infra/check/cloudwatch.py")
            continue
        for kind in ("fires", "quiet"):
            for case in cases[kind]:
                of_alarm = {id: series(case[id]) for id in metrics}
                found = states(alarm, lambda now, of_alarm=of_alarm: evaluate(expression, of_alarm, now))
                expect(address, str(case), found, kind == "fires")

    composites = {k: v for k, v in resources.items() if k.startswith("aws_cloudwatch_composite_alarm.")}
    names = {alarm["alarm_name"] for alarm in alarms.values()}
    for address, composite in composites.items():
        parts = re.findall(r'ALARM\("([^"]+)"\)', composite["alarm_rule"])
        if len(parts) != 2 or " AND " not in composite["alarm_rule"] or set(parts) - names:
            problems.append(f"{address} must need both of its windows: {composite['alarm_rule']}")

    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(alarms)} alarms and {len(composites)} pairs, {played} series, {len(problems)} problems")
    return 1 if problems or not alarms else 0


if __name__ == "__main__":
    sys.exit(main())
