"""Checks that what comes from outside cannot change under its name, and that what is deployed is what was approved.

    trust.py
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def main() -> int:
    problems: list[str] = []
    checked = 0

    def needs(what: str, holds: object) -> None:
        nonlocal checked
        checked += 1
        if not holds:
            problems.append(what)

    workflows = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
    parsed = {name: yaml.safe_load(text) for name, text in workflows.items()}
    for name, text in workflows.items():
        for used in re.findall(r"uses: (\S+.*)", text):
            local = used.startswith("./")
            needs(f"{name}: {used} is no commit, with its version beside it", local or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", used))
        needs(f"{name}: permissions of its token are not narrowed", parsed[name].get("permissions") == {"contents": "read"})
        for step in steps(parsed[name]):
            if str(step.get("uses", "")).startswith("actions/checkout@"):
                needs(f"{name}: a checkout leaves the token behind", step["with"]["persist-credentials"] is False)

    scripts = [path for path in [*ROOT.glob(".ci/*"), *ROOT.glob("infra/check/*"), *ROOT.glob("tests/*/run"), *ROOT.glob(".github/workflows/*.yml")] if path.is_file() and path.suffix not in (".txt", ".in", ".py")]
    for path in scripts:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r".*\bpip\"? install .*", text):
            needs(f"{path.relative_to(ROOT)} installs without hashes: {line.strip()}", "--require-hashes" in line)
        for line in re.findall(r".*\bnpm install .*", text):
            needs(f"{path.relative_to(ROOT)} installs without a lock: {line.strip()}", "--package-lock-only" in line)
    for lock in [*ROOT.glob("infra/check/tools/*.txt"), *ROOT.glob(".ci/*.txt")]:
        text = lock.read_text(encoding="utf-8")
        entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
        needs(f"{lock.relative_to(ROOT)}: a package without a hash", entries and all("--hash=sha256:" in entry for entry in entries))
        for wanted in lock.with_suffix(".in").read_text(encoding="utf-8").split():
            needs(f"{lock.relative_to(ROOT)} is older than its list: {wanted}", re.search(rf"^{re.escape(wanted)}\b", text, re.MULTILINE))
    packages = json.loads((ROOT / "infra/check/tools/package-lock.json").read_text(encoding="utf-8"))["packages"]
    needs("package-lock.json: a package without its hash", all("integrity" in package for name, package in packages.items() if name))

    for dockerfile in ROOT.glob("infra/docker/Dockerfile"):
        for image in re.findall(r"^FROM (\S+)", dockerfile.read_text(encoding="utf-8"), re.MULTILINE):
            needs(f"{image} is no digest", re.search(r"@sha256:[0-9a-f]{64}$", image))

    covered = {entry["package-ecosystem"] for entry in yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]}
    needs(f"dependabot does not know all kinds of pins: {covered}", covered >= {"cargo", "github-actions", "docker", "npm", "pip", "terraform"})

    # The approved plan is the applied one.
    deploy = workflows["deploy.yml"]
    plans = re.findall(r'terraform -chdir="\$DIRECTORY" (plan|apply)\b(.*)', deploy)
    needs("deploy.yml: a plan that is not kept", plans and all("-out=approved.tfplan" in rest for verb, rest in plans if verb == "plan"))
    needs("deploy.yml: an apply that plans anew", all(rest.strip().endswith("approved.tfplan") for verb, rest in plans if verb == "apply"))
    needs("deploy.yml: the plan is not the one that was shown", "sha256sum --check" in deploy)
    needs("deploy.yml: the provider is not the locked one", deploy.count(" init ") == deploy.count("-lockfile=readonly"))
    needs("deploy.yml: an image from elsewhere than the committed file", not re.search(r"TF_VAR_image|inputs\.image|BROKER_IMAGE|-var", deploy))
    needs("deploy.yml: nothing is allocated after it", "infra/check/smoke" in deploy)
    for example in ROOT.glob("infra/terraform/examples/*/main.tf"):
        lock = example.with_name(".terraform.lock.hcl")
        needs(f"{example.parent.name}: no lock file", lock.is_file() and '"h1:' in lock.read_text(encoding="utf-8"))
    image = json.loads((ROOT / "infra/terraform/examples/complete/image.auto.tfvars.json").read_text(encoding="utf-8"))["image"]
    needs("the committed image is no digest", re.search(r"@sha256:[0-9a-f]{64}$", image))

    pushes = workflows["image.yml"]
    needs("image.yml: an image is pushed whatever it is built from", pushes.find("infra/docker/pin --check") in range(pushes.find("docker/build-push-action")))
    needs("image.yml: no SBOM, no provenance, no signature", all(word in pushes for word in ("sbom:", "provenance:", "cosign sign --yes")))
    release = workflows["release.yml"]
    needs("release.yml: a version that can move", release.count('exists already" >&2') == 2)
    needs("release.yml: image or chart without signature", "cosign sign --yes" in release and "uses: ./.github/workflows/image.yml" in release)
    needs("release.yml: no notes of the version", "infra/check/changelog.py" in release)
    scheduled = workflows["scheduled.yml"]
    needs("scheduled.yml: no fuzzing, no advisories", ".ci/fuzz" in scheduled and "cargo deny check advisories" in scheduled and "schedule:" in scheduled)

    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {checked} pins and promises, {len(problems)} of them broken")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
