"""Checks what the chart renders: custom resources against their published schemas, and what the chart promises.

    kubernetes.py RENDERED.yaml VALUES.yaml TOOLS_DIRECTORY
"""

import json
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]
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
        "a worker may write to /tmp, an API nowhere": [mount["mountPath"] for mount in container.get("volumeMounts", []) if not mount.get("readOnly")] == (["/tmp"] if name == "broker-worker" else []),
        "no escalation": security["allowPrivilegeEscalation"] is False,
        "three probes": all(f"{probe}Probe" in container for probe in ("startup", "liveness", "readiness")),
        "liveness asks /healthz, readiness /readyz": (container["livenessProbe"]["httpGet"]["path"], container["readinessProbe"]["httpGet"]["path"]) == ("/healthz", "/readyz"),
        "memory is bounded, CPU is not": set(container["resources"]["limits"]) == {"memory"},
        "an update never runs fewer": workload["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0,
        "its scaler owns the number": "replicas" not in workload["spec"],
        "the image is pinned": "@sha256:" in container["image"],
    }
    return [f"{name}: not true: {promise}" for promise, holds in promises.items() if not holds]


def problems_of_scaling(kinds: dict, values: dict) -> list[str]:
    scaled = kinds["ScaledObject", "broker-worker"]["spec"]
    identity = kinds["TriggerAuthentication", "broker-aws"]["spec"]["podIdentity"]
    behaves = "behavior" in scaled["fallback"]
    newer = values.get("keda", {}).get("version", "2.15") >= "2.17"
    wanted = {rush["replicas"] for rush in values.get("worker", {}).get("schedules", [])}
    crons = {int(trigger["metadata"]["desiredReplicas"]) for trigger in scaled["triggers"] if trigger["type"] == "cron"}
    promises = {
        "two workers at least: never a cold pool, and one may die": scaled["minReplicaCount"] >= 2,
        "KEDA does not measure with its own role unasked": identity.get("identityOwner") == "workload" or "roleArn" in identity,
        "identityOwner and roleArn exclude each other": not {"identityOwner", "roleArn"} <= set(identity),
        "a KEDA that does not know the behaviour is not told of it": behaves == newer,
        "a fallback never scales in": behaves or scaled["fallback"]["replicas"] >= scaled["maxReplicaCount"],
        "every known rush has its trigger": crons == wanted,
    }
    return [f"scaling: not true: {promise}" for promise, holds in promises.items() if not holds]


def problems_of_the_rest(resources: list[dict], kinds: dict, values: dict, prefix: str) -> list[str]:
    promises = {}
    for kind, name, key in (("ServiceMonitor", "broker-api", "endpoints"), ("PodMonitor", "broker-worker", "podMetricsEndpoints")):
        monitor = kinds[kind, name]
        promises[f"{kind}: every series says its prefix"] = all({"targetLabel": "prefix", "replacement": prefix} in e.get("relabelings", []) for e in monitor["spec"][key])
        labels = values.get("monitoring", {}).get("labels", {})
        promises[f"{kind}: the operator's selector finds it"] = labels.items() <= monitor["metadata"]["labels"].items()
    admin, policy = kinds["Service", "broker-api-admin"]["spec"], kinds["NetworkPolicy", "broker-api"]["spec"]
    promises["operators and machines have a service of their own"] = [port["targetPort"] for port in admin["ports"]] == ["admin"]
    promises["nobody reaches the admin port unnamed"] = all("from" in rule for rule in policy["ingress"] if {"port": "admin"} in rule["ports"])
    promises["Prometheus reaches it"] = any({"port": "admin"} in rule["ports"] for rule in policy["ingress"])
    rules = (ROOT / "infra/observability/alerts.yaml").read_text(encoding="utf-8")
    rules = yaml.safe_load(rules.replace('prefix="broker"', f'prefix="{prefix}"'))["groups"]
    promises["the alert rules are those of infra/observability"] = kinds["PrometheusRule", "broker"]["spec"]["groups"] == rules
    narrowed = values.get("networkPolicy", {}).get("egress", {})
    for service in ("api", "worker"):
        policy = kinds["NetworkPolicy", f"broker-{service}"]["spec"]
        ports = {(port["port"], service) for rule in policy.get("egress", []) for port in rule["ports"]}
        promises[f"{service}: ways out are narrowed when asked"] = ("Egress" in policy["policyTypes"]) == bool(narrowed.get("enabled"))
        if narrowed.get("enabled"):
            promises[f"{service}: names and AWS are reached"] = {(53, service), (443, service)} <= ports
            if narrowed.get("otlpCidrs"):
                promises[f"{service}: traces leave"] = (4318, service) in ports
            for port in narrowed.get("hookPorts", []):
                promises[f"{service}: only a worker reaches the hooks' port {port}"] = ((port, service) in ports) == (service == "worker")
            for port in narrowed.get("providerPorts", []):
                promises[f"{service}: only a worker reaches the provider's port {port}"] = ((port, service) in ports) == (service == "worker")
            if values.get("identity") == "podIdentity":
                promises[f"{service}: the agent of Pod Identity is reached"] = (80, service) in ports
        account = kinds["ServiceAccount", f"broker-{service}"]["metadata"].get("annotations", {})
        promises[f"{service}: a role by annotation exactly with IRSA"] = ("eks.amazonaws.com/role-arn" in account) == (values.get("identity", "irsa") == "irsa")
    if values.get("ingress", {}).get("enabled"):
        paths = [path["path"] for rule in kinds["Ingress", "broker"]["spec"]["rules"] for path in rule["http"]["paths"]]
        promises["metrics stay inside"] = paths == ["/v1", "/readyz"]
    promises["each selector names the release"] = all(
        "app.kubernetes.io/instance" in r["spec"]["selector"]["matchLabels"] for r in resources if r["kind"] in ("Deployment", "PodDisruptionBudget", "ServiceMonitor", "PodMonitor")
    )
    return [f"not true: {promise}" for promise, holds in promises.items() if not holds]


def main() -> int:
    rendered, tools = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
    values = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8"))
    resources = [r for r in yaml.safe_load_all(rendered.read_text(encoding="utf-8")) if r]
    kinds = {(r["kind"], r["metadata"]["name"]): r for r in resources}
    problems = []

    settings = next(r for (kind, _), r in kinds.items() if kind == "ConfigMap")["data"]
    for (kind, name), resource in kinds.items():
        if kind == "Deployment":
            problems += problems_of_workload(resource, int(settings["BROKER_LAME_DUCK_S"]) + int(settings["BROKER_DRAIN_S"]))
            if ("PodDisruptionBudget", name) not in kinds:
                problems.append(f"{name} has no PodDisruptionBudget")
        if kind != "Namespace" and resource["metadata"].get("namespace") != "sandbox-broker":
            problems.append(f"{kind} {name} is in no namespace of the release")
    problems += problems_of_scaling(kinds, values)
    problems += problems_of_the_rest(resources, kinds, values, settings["BROKER_PREFIX"])

    custom = [r for r in resources if r["apiVersion"].startswith(CUSTOM)]
    script = pathlib.Path(__file__).with_name("custom_resources.mjs")
    checked = subprocess.run(["node", script, tools / "node"], input=json.dumps(custom), text=True, check=False)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(resources)} resources, {len(custom)} of them custom")
    return 1 if problems or checked.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
