"""Checks what the chart refuses: values that are wrong, each by its schema or by a word of the templates.

    chart.py HELM
"""

import pathlib
import subprocess
import sys

KUBERNETES = pathlib.Path(__file__).parents[1] / "kubernetes"
# What is set, and a part of what helm must say.
REFUSALS = [
    (["image.digest=latest"], "digest"),
    (["api.minReplicas=1"], "minReplicas"),
    (["api.minReplicas=9,api.maxReplicas=4"], "below"),
    (["worker.minReplicas=9,worker.maxReplicas=4"], "below"),
    (["settings.BROKER_ADMIN_TOKENS=a=b"], "BROKER_ADMIN_TOKENS"),
    (["settings.PATH=/"], "PATH"),
    (["settings.BROKER_TABLE=other"], "settings.BROKER_TABLE"),
    (["settings.AWS_REGION=eu-west-1"], "settings.AWS_REGION"),
    (["settings.BROKER_PREFIX=other"], "settings.BROKER_PREFIX"),
    (["settings.BROKER_LAME_DUCK_S=0"], "settings.BROKER_LAME_DUCK_S"),
    (["settings.BROKER_DRAIN_S=300"], "settings.BROKER_DRAIN_S"),
    (["settings.BROKER_LOG_FORMAT=text"], "settings.BROKER_LOG_FORMAT"),
    (["settings.BROKER_LISTEN=0.0.0.0:80"], "settings.BROKER_LISTEN"),
    (["settings.BROKER_ADMIN_LISTEN="], "settings.BROKER_ADMIN_LISTEN"),
    (["settings.BROKER_METRICS_LISTEN=0.0.0.0:9091"], "settings.BROKER_METRICS_LISTEN"),
    (["settings.BROKER_PROVIDER_RATE=5"], "settings.BROKER_PROVIDER_RATE"),
    (["settings.BROKER_PROVIDER_URL=https://other.example"], "settings.BROKER_PROVIDER_URL"),
    (["provider.url=,settings.BROKER_PROVIDER_URL=https://other.example"], "settings.BROKER_PROVIDER_URL"),
    (["settings.BROKER_TRUSTED_PROXIES=10.0.0.0/8"], "settings.BROKER_TRUSTED_PROXIES"),
    (["keda.version=2.14"], "version"),
    (["keda.identityOwner=operator"], "identityOwner"),
    (["aws.roleArns.worker="], "roleArns"),
    (["identity=podIdentity,aws.roleArns.worker="], "roleArns.worker"),
    (["provider.rate=0"], "rate"),
    (["provider.url=provider.example"], "provider/url"),
    (["provider.url=https://user:password@provider.example"], "provider/url"),
    (["trustedProxies[0]=load-balancer"], "trustedProxies"),
    (["table=a table"], "table"),
    (["shutdown.drainS=601"], "drainS"),
    (["ingress.host="], "host"),
    (["worker.schedule=x"], "schedule"),
]


def render(helm: str, settings: list[str], values: str = "{}") -> subprocess.CompletedProcess:
    command = [helm, "template", "broker", KUBERNETES / "chart", "--namespace", "n", "-f", KUBERNETES / "values/eks-irsa.yaml", "-f", "-"]
    return subprocess.run([*command, *(word for one in settings for word in ("--set", one))], input=values, capture_output=True, text=True, check=False)


def main() -> int:
    problems = []
    for settings, word in REFUSALS:
        done = render(sys.argv[1], settings)
        if done.returncode == 0 or word not in done.stderr:
            problems.append(f"{settings} is taken, or refused without {word!r}: {done.stderr.strip()}")
    # An empty list in a NetworkPolicy opens everything.
    for name in ("awsCidrs", "providerCidrs", "providerPorts", "hookPorts"):
        done = render(sys.argv[1], [], f'{{"networkPolicy": {{"egress": {{"{name}": []}}}}}}')
        if done.returncode == 0 or name not in done.stderr:
            problems.append(f"an empty {name} is taken")
    # A change of a setting replaces the pods, or they would go on with the old one.
    before, after = render(sys.argv[1], []), render(sys.argv[1], ["settings.BROKER_WAIT_S=20"])
    sums = [{line for line in done.stdout.splitlines() if "checksum/settings" in line} for done in (before, after)]
    if not sums[0] or sums[0] & sums[1]:
        problems.append("a changed setting does not replace the pods")
    # A number of a file, as a process reads it.
    many = render(sys.argv[1], [], '{"settings": {"BROKER_MAX_PENDING": 1000000, "BROKER_TRACE_RATIO": 0.25}}').stdout
    if 'BROKER_MAX_PENDING: "1000000"' not in many or 'BROKER_TRACE_RATIO: "0.25"' not in many:
        problems.append("a number of the settings is written so that no process starts with it")
    # For `helm template`: helm itself takes over no namespace.
    with_namespace = render(sys.argv[1], ["namespace.create=true"]).stdout
    if "elbv2.k8s.aws/pod-readiness-gate-inject: enabled" not in with_namespace or "kind: Namespace" in before.stdout:
        problems.append("the namespace does not ask for the load balancer's readiness gate, or is made unasked")
    # Two environments in one Prometheus: each asks for its own.
    if 'prefix="other"' not in render(sys.argv[1], ["prefix=other"]).stdout or 'prefix="broker"' in render(sys.argv[1], ["prefix=other"]).stdout:
        problems.append("an alert names another environment than the chart's")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(REFUSALS)} refusals, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
