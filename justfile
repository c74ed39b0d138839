# The commands of README.md and CONTRIBUTING.md under short names. `just` lists them.

_list:
    @just --list --unsorted

# Everything on this machine: endpoints, API, workers, a seeded pool
run *arguments:
    cargo run --release -- {{arguments}}

# Every test; arguments go to cargo, such as `--test e2e -- repeats`
test *arguments:
    cargo test --workspace {{arguments}}

# What CI runs, with the seconds of each step
ci:
    .ci/run

# Format the Rust code
fmt:
    cargo fmt --all

# Formatting, lints, licenses and sources of dependencies
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo deny --log-level error check bans licenses sources

# The pages of the Rust code; a warning is an error
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Sizes, circles, arrows, public items; `just figures --names` also what they are
figures *arguments:
    tests/figures.py {{arguments}}

# How fast it is: `just bench run new`, `just bench results`, `just bench jobs`, `just bench silence`, `just bench tenants`, `just bench memory`, `just bench sync`
bench *arguments="run new":
    cargo build --release --workspace --bins
    target/release/broker-bench {{arguments}}

# A broker that is destroyed under load, and a verdict
chaos *arguments="--minutes 10 --seed 1":
    cargo build --workspace --bins
    target/debug/broker-chaos {{arguments}}

# The claim protocol, every interleaving; each known mistake is found
model:
    cargo run --release -p broker-model

# Whether a test fails for each mutant of the domain and the store
mutation *arguments:
    tests/mutation/run {{arguments}}

# Ten k6 users, 200 sandboxes, and a verdict
smoke:
    cargo build --workspace --bins
    target/debug/broker-load smoke
