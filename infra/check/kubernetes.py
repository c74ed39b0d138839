"""Checks the rendered manifests: custom resources against their published schemas, and what the base promises.

    kubernetes.py RENDERED.yaml TOOLS_DIRECTORY
"""

import json
import pathlib
import subprocess
import sys

import yaml

CUSTOM = ("keda.sh/", "monitoring.coreos.com/")


def problems_of_workload(workload: dict, end_s: int) -> list[str]:
    name, pod = workload["metadata"]["name"], workload["spec"]["template"]["spec"]
    container = pod["containers"][0]
    security = container["securityContext"]
    promises = {
        "the grace period is longer than lame duck and drain": pod["terminationGracePeriodSeconds"] > end_s + 10,
        "no service links": pod["enableServiceLinks"] is False,
        "no API token": pod["automountServiceAccountToken"] is False,
        "no root": pod["securityContext"]["runAsNonRoot"] is True,
        "read-only, no capability": security["readOnlyRootFilesystem"] and security["capabilities"]["drop"] == ["ALL"],
        "no escalation": security["allowPrivilegeEscalation"] is False,
        "three probes": all(f"{probe}Probe" in container for probe in ("startup", "liveness", "readiness")),
        "liveness asks /healthz, readiness /readyz": (container["livenessProbe"]["httpGet"]["path"], container["readinessProbe"]["httpGet"]["path"]) == ("/healthz", "/readyz"),
        "memory is bounded, CPU is not": set(container["resources"]["limits"]) == {"memory"},
        "an update never runs fewer": workload["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0,
        "its scaler owns the number": "replicas" not in workload["spec"],
        "the image is pinned": "@sha256:" in container["image"],
    }
    return [f"{name}: not true: {promise}" for promise, holds in promises.items() if not holds]


def main() -> int:
    rendered, tools = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    resources = [r for r in yaml.safe_load_all(rendered.read_text(encoding="utf-8")) if r]
    kinds = {(r["kind"], r["metadata"]["name"]): r for r in resources}
    problems = []

    settings = next(r for (kind, _), r in kinds.items() if kind == "ConfigMap")["data"]
    for (kind, name), resource in kinds.items():
        if kind == "Deployment":
            problems += problems_of_workload(resource, int(settings["BROKER_LAME_DUCK_S"]) + int(settings["BROKER_DRAIN_S"]))
            if ("PodDisruptionBudget", name) not in kinds:
                problems.append(f"{name} has no PodDisruptionBudget")

    scaled = kinds["ScaledObject", "broker-worker"]["spec"]
    if scaled["minReplicaCount"] < 2:
        problems.append("fewer than two workers: a cold pool, and one death stops everything")

    custom = [r for r in resources if r["apiVersion"].startswith(CUSTOM)]
    script = pathlib.Path(__file__).with_name("custom_resources.mjs")
    checked = subprocess.run(["node", script, tools / "node"], input=json.dumps(custom), text=True, check=False)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(resources)} resources, {len(custom)} of them custom")
    return 1 if problems or checked.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
