#!/usr/bin/env python3
"""Figures of the Rust sources: sizes, circles between modules, arrows between crates, public items.

    tests/figures.py [ROOT] [--names] [--json]

Product code is everything in the crates' `src` folders (and `infra/local`, where it is a crate) except tests, fuzz
targets, samples, simulations and build scripts. Test modules inside a product file are cut out before counting. The
definitions do not depend on the layout, so the figures of two commits can be compared.

- A function's length runs from its `fn` to its closing brace.
- A type is a struct, an enum, a union or a trait outside of functions and impl blocks; aliases are none.
- A public item is `pub` without a restriction: modules, types, aliases, traits, constants, statics, functions, methods,
  and each `pub use` declaration; not fields or enum variants.
- A circle is a group of sibling modules that reach each other. Siblings have the same parent; a module stands for
  everything below it. The circles of the root are those of the top-level modules, the others are those between files.
  Parents and children are not siblings: a folder's `mod.rs` may be used both ways. They are counted twice: by the
  paths as they are written, and with every name followed through the `pub use` that hands it on.
- An arrow leads from a module to a sibling that it uses, from a crate's root (`lib.rs`, `main.rs`) to a module that it
  uses, or from a crate to a crate of the workspace that its Cargo.toml names (not as a dev-dependency).
"""

import argparse
import collections
import json
import pathlib
import re
import statistics
import sys
import tomllib

# Files of these names hold tests or what only tests use.
TEST_FILE = re.compile(r"(^|_)(tests?|fuzz|samples|simulation)\.rs$")
TEST_FOLDERS = {"tests", "sqs_tests", "fuzz", "week", "simulation"}
# Members of the workspace that are tests as a whole.
TEST_MEMBERS = re.compile(r"^tests(/|$)")
ITEM = re.compile(
    r"pub\s+(?:(?:const|async|unsafe|extern\s+\"\")\s+)*(mod|struct|enum|union|trait|type|static|fn|use)\b"
)
CONST = re.compile(r"pub\s+(const|static)\s+(?:mut\s+)?(\w+)\s*:")
TYPE = re.compile(r"(?<![\w:])(struct|enum|union|trait)\s+([A-Z]\w*)")
LIMIT = 97


def masked(text: str) -> str:
    """`text` with comments, strings and characters blanked; every byte keeps its place and its line."""
    out, at, end = [], 0, len(text)
    blank = lambda piece: re.sub(r"[^\n]", " ", piece)
    raw = re.compile(r'b?r(#*)"')
    while at < end:
        char = text[at]
        if text.startswith("//", at):
            stop = text.find("\n", at)
            stop = end if stop < 0 else stop
            out.append(blank(text[at:stop]))
        elif text.startswith("/*", at):
            depth, stop = 1, at + 2
            while depth and stop < end:
                if text.startswith("/*", stop):
                    depth, stop = depth + 1, stop + 2
                elif text.startswith("*/", stop):
                    depth, stop = depth - 1, stop + 2
                else:
                    stop += 1
            out.append(blank(text[at:stop]))
        elif (found := raw.match(text, at)) and not (at and (text[at - 1].isalnum() or text[at - 1] == "_")):
            close = '"' + found[1]
            stop = text.find(close, found.end())
            stop = end if stop < 0 else stop + len(close)
            out.append('"' + blank(text[at + 1 : stop - 1]) + '"')
        elif char == '"':
            stop = at + 1
            while stop < end and text[stop] != '"':
                stop += 2 if text[stop] == "\\" else 1
            stop = min(stop + 1, end)
            out.append('"' + blank(text[at + 1 : stop - 1]) + '"')
        elif char == "'" and (found := re.compile(r"'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])'").match(text, at)):
            stop = found.end()
            out.append(blank(text[at:stop]))
        else:
            stop = at + 1
            out.append(char)
        at = stop
    return "".join(out)


def closing(code: str, at: int) -> int:
    """The place behind the bracket that closes the one at `at`."""
    pairs = {"{": "}", "(": ")", "[": "]"}
    opened, closed, depth = code[at], pairs[code[at]], 0
    for place in range(at, len(code)):
        depth += (code[place] == opened) - (code[place] == closed)
        if depth == 0:
            return place + 1
    return len(code)


def item_end(code: str, at: int) -> int:
    """The end of the item that begins at `at`: its closing brace, or its semicolon."""
    while at < len(code):
        if code[at] == ";":
            return at + 1
        if code[at] == "{":
            return closing(code, at)
        at = closing(code, at) if code[at] in "([" else at + 1
    return at


def without_tests(text: str) -> tuple[str, str]:
    """The source and its masked code without what is compiled for tests only."""
    code = masked(text)
    cuts, at = [], 0
    for found in re.finditer(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]", code):
        if found.start() < at:
            continue
        at = found.end()
        while attribute := re.compile(r"\s*#\[").match(code, at):
            at = closing(code, attribute.end() - 1)
        at = item_end(code, at)
        cuts.append((found.start(), at))
    for start, stop in reversed(cuts):
        start = text.rfind("\n", 0, start) + 1
        stop = stop + 1 if text[stop : stop + 1] == "\n" else stop
        text, code = text[:start] + text[stop:], code[:start] + code[stop:]
    return text.rstrip("\n") + "\n", code


class File:
    def __init__(self, path: pathlib.Path, module: tuple[str, ...]):
        self.path, self.module = path, module
        self.text, self.code = without_tests(path.read_text(encoding="utf-8"))
        self.lines = self.text.count("\n")

    def functions(self):
        """Name and length of every function that has a body, also of those inside of others."""
        for found in re.finditer(r"\bfn\s+(\w+)", self.code):
            at = found.end()
            while at < len(self.code) and self.code[at] not in "{;":
                at = closing(self.code, at) if self.code[at] in "([" else at + 1
            if at < len(self.code) and self.code[at] == "{":
                yield found[1], self.code.count("\n", found.start(), closing(self.code, at)) + 1

    def outer(self) -> str:
        """The code with the bodies of functions blanked, and those of impl blocks too."""
        code = self.bodiless()
        for found in list(re.finditer(r"^(?:unsafe\s+)?impl\b", code, re.MULTILINE)):
            at = code.find("{", found.end())
            if at >= 0:
                stop = closing(code, at)
                code = code[:at] + re.sub(r"[^\n]", " ", code[at:stop]) + code[stop:]
        return code

    def bodiless(self) -> str:
        code, at = self.code, 0
        pattern = re.compile(r"\bfn\s+\w+")
        while found := pattern.search(code, at):
            at = found.end()
            while at < len(code) and code[at] not in "{;":
                at = closing(code, at) if code[at] in "([" else at + 1
            if at < len(code) and code[at] == "{":
                stop = closing(code, at)
                code = code[:at] + re.sub(r"[^\n]", " ", code[at:stop]) + code[stop:]
                at = stop
        return code

    def types(self) -> list[str]:
        return [found[2] for found in TYPE.finditer(self.outer())]

    def public_items(self) -> int:
        code = self.bodiless()
        return len({found.start() for pattern in (ITEM, CONST) for found in pattern.finditer(code)})


class Crate:
    """One member of the workspace: its manifest, its product files, its modules."""

    def __init__(self, root: pathlib.Path, member: str):
        self.folder, self.member = root / member, member
        self.manifest = tomllib.loads((self.folder / "Cargo.toml").read_text(encoding="utf-8"))
        self.name = self.manifest["package"]["name"]
        source = self.folder / "src"
        self.files = [File(path, module_of(path, source)) for path in product_files(source)]
        modules = {file.module for file in self.files}
        self.modules = {module[:depth] for module in modules for depth in range(len(module) + 1)}

    def needs(self) -> list[str]:
        """The names of its dependencies, without those for tests and for build scripts."""
        return list(self.manifest.get("dependencies", {}))

    def graph(self, follow: bool) -> dict[tuple, dict[str, set[str]]]:
        """For each parent module: which of its children uses which. Without `follow` by the paths as they are written;
        re-exports, which hand names on and use nothing, are left out then."""
        graph = collections.defaultdict(lambda: collections.defaultdict(set))
        exports = {file.module: self.exports(file) for file in self.files} if follow else {}
        for file in self.files:
            for path in self.paths(file, with_exports=follow):
                target = self.resolve(path, exports)
                here = file.module
                shared = 0
                while shared < min(len(here), len(target)) and here[shared] == target[shared]:
                    shared += 1
                if shared < len(here) and shared < len(target):
                    graph[here[:shared]][here[shared]].add(target[shared])
                elif not here and target:
                    graph[()][file.path.stem].add(target[0])
        return graph

    def paths(self, file: File, with_exports: bool):
        """Every path of the file that stays in the crate, from its root."""
        for names in use_trees(file.code, private_only=not with_exports):
            if absolute := self.absolute(file, names):
                yield absolute
        rest = re.sub(r"(?:pub(?:\([^)]*\))?\s+)?\buse\s[^;]*;", " ", file.code)
        for found in re.finditer(r"(?<![\w:])(?:(?:crate|self|super)|[a-z_]\w*)(?:\s*::\s*\w+)+", rest):
            if absolute := self.absolute(file, re.split(r"\s*::\s*", found[0])):
                yield absolute

    def absolute(self, file: File, names: list[str]) -> tuple[str, ...] | None:
        first, rest = names[0], tuple(names[1:])
        if first == "crate":
            return rest
        if first == "self":
            return file.module + rest
        if first == "super":
            base = file.module[:-1]
            while rest[:1] == ("super",):
                base, rest = base[:-1], rest[1:]
            return base + rest
        # A child of this module, or a name that it has imported; the import itself is counted.
        return file.module + tuple(names) if file.module + (first,) in self.modules else None

    def exports(self, file: File) -> dict[str, tuple[str, ...]]:
        """What the file re-exports: the name that others see, and where it leads."""
        known = {}
        for names, alias in use_trees(file.code, with_alias=True, only_public=True):
            if absolute := self.absolute(file, names):
                known[alias or names[-1]] = absolute
        return known

    def resolve(self, path: tuple[str, ...], exports, depth: int = 0) -> tuple[str, ...]:
        """The module in which the last name of the path is defined, through re-exports."""
        module = ()
        for place, name in enumerate(path):
            if module + (name,) in self.modules:
                module += (name,)
                continue
            leads = exports.get(module, {}).get(name)
            if leads and depth < 8 and leads != path:
                return self.resolve(leads + path[place + 1 :], exports, depth + 1)
            break
        return module


def product_files(source: pathlib.Path):
    for path in sorted(source.rglob("*.rs")):
        inside = path.relative_to(source)
        if not TEST_FILE.search(path.name) and not TEST_FOLDERS.intersection(inside.parts[:-1]):
            yield path


def module_of(path: pathlib.Path, source: pathlib.Path) -> tuple[str, ...]:
    """The module that a file is; the crate's root has no name."""
    parts = path.relative_to(source).with_suffix("").parts
    if parts in (("lib",), ("main",)):
        return ()
    return parts[:-1] if parts[-1] == "mod" else parts


def use_trees(code: str, with_alias=False, only_public=False, private_only=False):
    """Every leaf of the `use` declarations, as a list of names."""
    for found in re.finditer(r"(?<!\w)(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", code):
        if (only_public and not found[1]) or (private_only and found[1]):
            continue
        for names, alias in leaves(re.findall(r"\w+|::|[{},*]", found[2])):
            if names:
                yield (names, alias) if with_alias else names


def leaves(tokens: list[str], prefix=()):
    """The leaves of one tree of a `use` declaration."""
    branches, depth, branch = [], 0, []
    for token in tokens:
        if token == "," and depth == 0:
            branches.append(branch)
            branch = []
            continue
        depth += (token == "{") - (token == "}")
        branch.append(token)
    branches.append(branch)
    for branch in filter(None, branches):
        names, at, alias = list(prefix), 0, None
        while at < len(branch):
            token = branch[at]
            if token == "{":
                yield from leaves(branch[at + 1 : -1], tuple(names))
                break
            if token == "as":
                alias = branch[at + 1]
                at += 1
            elif token not in ("::", "*", "self") or (token == "self" and not names):
                names.append(token)
            at += 1
        else:
            yield names, alias


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (Tarjan), without single ones."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def part(values: list[int], percent: int) -> int:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def members(root: pathlib.Path) -> list[str]:
    workspace = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]
    found = []
    for pattern in workspace["members"]:
        paths = sorted(root.glob(pattern)) if "*" in pattern else [root / pattern]
        found += [path.relative_to(root).as_posix() for path in paths if (path / "Cargo.toml").is_file()]
    return found


def circles_of(crates: list[Crate], follow: bool) -> tuple[list[str], list[str]]:
    """The circles between top-level modules, and those between files."""
    top, deep = [], []
    for crate in crates:
        for parent, edges in sorted(crate.graph(follow).items()):
            for group in circles({one: others - {one} for one, others in edges.items()}):
                where = "::".join(parent + ("",))
                (deep if parent else top).append(f"{crate.name} {where}{{{', '.join(group)}}}")
    return top, deep


def arrows_of(crate: Crate) -> list[str]:
    """The arrows between its top-level modules, those of its root among them."""
    edges = crate.graph(follow=True).get((), {})
    return sorted(f"{one} -> {other}" for one, others in edges.items() for other in others - {one})


def measure(root: pathlib.Path) -> tuple[list[tuple[str, object]], dict[str, list[str]]]:
    names = members(root)
    crates = [Crate(root, member) for member in names if not TEST_MEMBERS.match(member)]
    files = [file for crate in crates for file in crate.files]
    at = lambda file: file.path.relative_to(root).as_posix()
    functions = [(length, name, file) for file in files for name, length in file.functions()]
    count = lambda found: len(found[0]) + len(found[1])
    longest, longest_name, longest_in = max(functions, key=lambda function: function[0])
    largest = max(files, key=lambda file: file.lines)
    documented = sum(file.text.lstrip().startswith("//!") for file in files)
    defined = collections.defaultdict(list)
    for file in files:
        for name in set(file.types()):
            defined[name].append(at(file))
    twice = {name: where for name, where in defined.items() if len(where) > 1}

    written, followed = circles_of(crates, follow=False), circles_of(crates, follow=True)
    arrows = {crate.name: arrows_of(crate) for crate in crates}
    own = {crate.name for crate in crates}
    between = sorted(f"{crate.name} -> {need}" for crate in crates for need in crate.needs() if need in own)

    rows = [
        ("product lines", sum(file.lines for file in files)),
        ("product files", len(files)),
        ("lines of a file, median", int(statistics.median(file.lines for file in files))),
        ("lines of a file, longest", f"{largest.lines} ({at(largest)})"),
        ("functions", len(functions)),
        (f"lines of a function, {LIMIT} %", part([length for length, _, _ in functions], LIMIT)),
        ("lines of a function, longest", f"{longest} ({longest_name}, {at(longest_in)})"),
        ("files with a module doc", f"{100 * documented / len(files):.0f} %"),
        ("type names defined more than once", len(twice)),
        ("circles, as written", f"{count(written)} ({len(written[0])} top-level, {len(written[1])} between files)"),
        ("circles, through re-exports", f"{count(followed)} ({len(followed[0])} top-level, {len(followed[1])} between files)"),
        ("arrows between crates", len(between)),
    ]
    common = [crate for crate in crates if crate.member.split("/")[0] == "common"]
    items = {crate.name: sum(file.public_items() for file in crate.files) for crate in crates}
    rows.append(("public items, common", sum(items[crate.name] for crate in common)))
    rows += [(f"public items, {name}", number) for name, number in items.items()]
    rows += [(f"arrows at the top of {name}", len(found)) for name, found in arrows.items() if found]
    api = next((crate for crate in crates if crate.member == "api"), None)
    if api:
        source = api.folder / "src"
        every = [path for path in source.glob("*.rs")]
        product = [file for file in api.files if file.path.parent == source]
        rows.append(("files at the top of api/src", f"{len(product)}, {len(every)} with tests"))
    detail = {
        "type names defined more than once": [f"{name}: {', '.join(where)}" for name, where in sorted(twice.items())],
        "circles, as written": written[0] + written[1],
        "circles, through re-exports": followed[0] + followed[1],
        "arrows between crates": between,
        "arrows at the top of api": arrows.get("broker-api", []),
        "files without a module doc": [at(file) for file in files if not file.text.lstrip().startswith("//!")],
    }
    return rows, detail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", default=pathlib.Path(__file__).resolve().parents[1], type=pathlib.Path)
    parser.add_argument("--names", action="store_true", help="also the names behind the counts")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    sys.setrecursionlimit(10_000)
    rows, detail = measure(arguments.root.resolve())
    if arguments.json:
        print(json.dumps({"figures": dict(rows), "names": detail}, indent=2))
        return 0
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    if arguments.names:
        for name, lines in detail.items():
            print(f"\n{name}:")
            for line in lines:
                print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
