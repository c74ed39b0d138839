"""The throwaway copy of the workspace: every mutant that compiles is in it."""

import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys

import conditions
import schemata

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "mutation"
TREE = WORK / "tree"
# The crate that all others need. The module that chooses a mutant is in it; the table takes it from there.
CRATE = pathlib.Path("common/domain/src")
DECLARED = {
    "common/domain/src/lib.rs": "\npub mod mutation;\n",
    "common/store/src/lib.rs": "\nmod mutation {\n    pub use broker_domain::mutation::active;\n}\n",
}


def listed(files: list[str]) -> list[dict]:
    """What cargo-mutants would change, each with a name that does not move with the lines above it."""
    globs = [argument for each in files for argument in ("--file", each)]
    command = ["cargo", "mutants", "--workspace", "--list", "--json", *globs]
    mutants = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    for name in sorted({mutant["file"] for mutant in mutants}):
        mutants += conditions.of_file(ROOT, name)
    seen: collections.Counter[str] = collections.Counter()
    for mutant in mutants:
        position, _, change = mutant["name"].partition(": ")
        name = f"{position.partition(':')[0]}: {change}"
        seen[name] += 1
        mutant["name"] = name if seen[name] == 1 else f"{name} #{seen[name]}"
    return mutants


def copy_workspace() -> list[str]:
    """The files that git knows or would know of, but for those in Rust, which are named; the same ones keep their times."""
    known = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    ).stdout.decode()
    wanted = {name for name in known.split("\0") if name and (ROOT / name).is_file()}
    if TREE.exists():
        for path in TREE.rglob("*"):
            if path.is_file() and str(path.relative_to(TREE)) not in wanted:
                path.unlink()
    for name in wanted:
        if not name.endswith(".rs") and name != str(CRATE.parent / "Cargo.toml"):
            write(TREE / name, (ROOT / name).read_bytes())
            shutil.copymode(ROOT / name, TREE / name)
    # Cargo tells workspaces in one target directory apart by the versions of their packages, not by where they lie; that
    # of the crate that all others need tells all apart.
    manifest = (ROOT / CRATE.parent / "Cargo.toml").read_text()
    write(TREE / CRATE.parent / "Cargo.toml", manifest.replace("version.workspace = true", 'version = "0.0.0+mutants"', 1).encode())
    return sorted(name for name in wanted if name.endswith(".rs"))


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes what is not there yet."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def compile_in(files: list[str], mutants: list[dict], verdicts: dict[int, str]) -> None:
    """Rewrites the copy with all mutants that have no verdict yet."""
    sources = {name: schemata.Source((ROOT / name).read_text()) for name in files}
    shared: set[str] = set()
    for number, mutant in enumerate(mutants):
        if number not in verdicts:
            try:
                sources[mutant["file"]].add(number, mutant)
            except schemata.Inexpressible:
                verdicts[number] = "inexpressible"
        if mutant["function"] is None:
            line = (ROOT / mutant["file"]).read_text().split("\n")[mutant["span"]["start"]["line"] - 1]
            shared.add(mutant.get("constant") or line.partition("const ")[2].partition(":")[0])
    not_const: set[str] = set()
    while more := set().union(*(source.names_not_const(not_const) for source in sources.values())) - not_const:
        not_const |= more
    for name, source in sources.items():
        own = source.constants(lambda value: value in shared or "Timestamp::from_" in value)
        own |= shared if name.startswith("common/store/src") else set()
        write(TREE / name, (source.rewritten(own) + DECLARED.get(name, "")).encode())
    write(TREE / CRATE / "mutation.rs", schemata.CHOICE.encode())


def cargo(*arguments: str) -> list[dict]:
    """Runs cargo on the copy; its messages."""
    command = ["cargo", *arguments, "--workspace", "--message-format=json", "--quiet"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    done = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, check=False)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    if done.returncode and not any(errors(messages)):
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr.decode()[-4000:]}")
    return messages


def errors(messages: list[dict]):
    """The compiler's errors that name a place."""
    for message in messages:
        told = message.get("message") or {}
        if message["reason"] == "compiler-message" and told["level"] == "error" and told["spans"]:
            yield told


def drop_unviable(files: list[str], mutants: list[dict], verdicts: dict[int, str]) -> None:
    """Compiles, drops the mutants that the errors are about, and compiles again until there are none."""
    while True:
        compile_in(files, mutants, verdicts)
        found = list(errors(cargo("check", "--lib")))
        if not found:
            return
        blamed: set[int] = set()
        for error in found:
            about: set[int] = set()
            for span in error["spans"] + [span for child in error["children"] for span in child["spans"]]:
                path = TREE / span["file_name"]
                if path.is_file():
                    about |= schemata.mutants_at(path.read_bytes(), span["byte_start"], span["byte_end"])
            blamed |= about or about_signature(error, mutants, verdicts)
        if not blamed - verdicts.keys():
            sys.exit("errors about no mutant:\n" + "".join(error["rendered"] for error in found)[:4000])
        verdicts.update({number: "unviable" for number in blamed})
        print(f"   {len(found)} errors: {len(blamed)} mutants do not compile", flush=True)


def about_signature(error: dict, mutants: list[dict], verdicts: dict[int, str]) -> set[int]:
    """The mutants that decide the type of an `impl Trait` that the error is about: those of the function that holds it."""
    [at] = [span for span in error["spans"] if span["is_primary"]]
    lines = (TREE / at["file_name"]).read_text().split("\n")[: at["line_start"]]
    inserted = [line for line in lines if "{ return /*<" in line]
    if not inserted:
        return set()
    number = int(inserted[-1].partition("/*<")[2].partition("*/")[0])
    function = mutants[number]["function"]["function_name"]
    return {n for n, m in enumerate(mutants) if m["genre"] == "FnValue" and m["function"]["function_name"] == function} - verdicts.keys()
