"""Compiles every mutant into one program: rewrites a source file so that the environment chooses at run time.

What cargo-mutants lists (`--list --json`), and conditions.py, becomes `if crate::mutation::active(N) { mutant } else { original }` in place of
the expression, the body, the guard or the arm. Each alternative stands between `/*<N*/` and `/*N>*/`, so that a compiler's
error tells which mutant it is about. In an alternative everything else is the original: one mutant is active at a time.
"""
import re

import tree_sitter_rust
from tree_sitter import Language, Node, Parser, Query, QueryCursor

LANGUAGE = Language(tree_sitter_rust.language())
PARSER = Parser(LANGUAGE)

# The module that the rewritten crate is given. A test that is asked to, notes which mutants it reached.
CHOICE = """//! Which mutant this process is.
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static SEEN: [AtomicBool; 4096] = [const { AtomicBool::new(false) }; 4096];

/// Whether this process is mutant `number`.
pub fn active(number: usize) -> bool {
    static CHOSEN: OnceLock<(Option<usize>, Option<String>)> = OnceLock::new();
    let (chosen, notes) = CHOSEN.get_or_init(|| {
        let told = |name: &str| std::env::var(name).ok();
        (told("MUTANT").map(|number| number.parse().unwrap()), told("MUTANTS_REACHED"))
    });
    if let Some(notes) = notes && !SEEN[number].swap(true, Ordering::Relaxed) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(notes).unwrap();
        file.write_all(format!("{number}\\n").as_bytes()).unwrap();
    }
    *chosen == Some(number)
}
"""


class Inexpressible(Exception):
    """The mutant cannot be chosen at run time by this rewriting."""


class Source:
    """One file, and the mutants that are to be compiled into it."""

    def __init__(self, text: str):
        self.bytes = text.encode()
        self.lines = text.split("\n")
        self.functions: set[str] = set()
        self.not_const: set[int] = set()
        self.root = PARSER.parse(self.bytes).root_node
        self.of_node: dict[int, list[tuple[int, dict]]] = {}

    def add(self, number: int, mutant: dict) -> None:
        """Attaches a mutant to the node that it replaces, or raises Inexpressible."""
        node = PLACES[mutant["genre"]](self._leaf(mutant["span"]["start"]))
        if node is None:
            raise Inexpressible(mutant["name"])
        self.of_node.setdefault(node.id, []).append((number, mutant))
        function = climb(node, lambda each: each.type == "function_item")
        if function is not None:
            self.not_const.add(function.id)

    def names_not_const(self, called: set[str]) -> set[str]:
        """The functions that cannot be `const`: they hold a mutant, or call one of those."""
        query = QueryCursor(Query(LANGUAGE, "(function_item (function_modifiers) name: (identifier) @name) @function"))
        names = set()
        for _, captures in query.matches(self.root):
            function, name = captures["function"][0], self._text(captures["name"][0])
            if not re.search(r"\bconst fn\b", self._text(function)):
                continue
            if called & set(re.findall(r"\b(\w+)\(", self._text(function.child_by_field_name("body")))):
                self.not_const.add(function.id)
            if function.id in self.not_const:
                names.add(name)
        return names

    def constants(self, wanted) -> set[str]:
        """The names of the constants whose value is wanted."""
        query = QueryCursor(Query(LANGUAGE, "(const_item name: (identifier) @name value: (_) @value)"))
        found = (captures for _, captures in query.matches(self.root))
        return {self._text(each["name"][0]) for each in found if wanted(self._text(each["value"][0]))}

    def rewritten(self, functions: set[str]) -> str:
        """The file with every mutant in it. The constants named are functions."""
        self.functions = functions
        return self._render(self.root)

    def _leaf(self, start: dict) -> Node:
        row = start["line"] - 1
        column = len(self.lines[row][: start["column"] - 1].encode())
        return self.root.descendant_for_point_range((row, column), (row, column + 1))

    def _text(self, node: Node) -> str:
        return node.text.decode()

    def _render(self, node: Node) -> str:
        rendered, at = "", node.start_byte
        for child in node.children:
            rendered += self.bytes[at : child.start_byte].decode() + self._render(child)
            at = child.end_byte
        rendered += self.bytes[at : node.end_byte].decode()
        if node.type == "function_modifiers" and node.parent.id in self.not_const:
            rendered = re.sub(r"\bconst\b", "", rendered)
        if node.type == "identifier" and rendered in self.functions and not climb(node, lambda n: n.type == "use_declaration"):
            rendered += "()"
        if node.type == "const_item" and (name := self._text(node.child_by_field_name("name"))) in self.functions:
            rendered = re.sub(rf"\bconst {name}\(\)\s*:\s*(.*?)\s*=\s*(.*);", rf"fn {name}() -> \1 {{ \2 }}", rendered, flags=re.S)
            rendered = rendered.replace(f"fn {name}() -> &str", f"fn {name}() -> &'static str")
        for genre, rewrite in REWRITES:
            own = [(number, mutant) for number, mutant in self.of_node.get(node.id, []) if mutant["genre"] == genre]
            if own:
                rendered = rewrite(self, node, rendered, own)
        return rendered

    def _operator(self, node: Node, rendered: str, own: list) -> str:
        operator = node.children[0] if node.type == "unary_expression" else node.child_by_field_name("operator")
        before = self.bytes[node.start_byte : operator.start_byte].decode()
        after = self.bytes[operator.end_byte : node.end_byte].decode()
        choices = "".join(
            f"if {active(number)} {{ {marked(number, before + mutant['replacement'] + after)} }} else "
            for number, mutant in own
        )
        return f"({choices}{{ {rendered} }})"

    def _body(self, _node: Node, rendered: str, own: list) -> str:
        choices = "".join(
            f"\nif {active(number)} {{ return {marked(number, mutant['replacement'])}; }}" for number, mutant in own
        )
        return "{" + choices + "\n" + rendered[1:]

    def _guard(self, _node: Node, rendered: str, own: list) -> str:
        for number, mutant in own:
            rendered = {
                "true": f"({active(number)} || ({marked(number, rendered)}))",
                "false": f"(!{active(number)} && ({marked(number, rendered)}))",
            }[mutant["replacement"]]
        return rendered

    def _arm(self, node: Node, rendered: str, own: list) -> str:
        [(number, _)] = own
        guard = node.child_by_field_name("condition")
        if guard is None:
            return f"{rendered} if {marked(number, '!' + active(number))}"
        return f"{rendered} && {marked(number, '!' + active(number))}"

    def _text_literal(self, _node: Node, rendered: str, own: list) -> str:
        for number, mutant in own:
            rendered = f"(if {active(number)} {{ {marked(number, mutant['replacement'])} }} else {{ {rendered} }})"
        return rendered

    def _field(self, node: Node, rendered: str, own: list) -> str:
        [(number, _)] = own
        base = next(each for each in node.parent.children if each.type == "base_field_initializer")
        name, _, value = rendered.partition(":")
        mutant = marked(number, f"({self._text(base.children[1])}).{name}")
        return f"{name}: if {active(number)} {{ {mutant} }} else {{ {value or name} }}"


def active(number: int) -> str:
    """The question whether this mutant is the chosen one, in Rust."""
    return f"crate::mutation::active({number})"


def marked(number: int, text: str) -> str:
    """Text that a compiler's error can be traced to its mutant by."""
    return f"/*<{number}*/{text}/*{number}>*/"


def mutants_at(text: bytes, start: int, end: int) -> set[int]:
    """The mutants whose marked text the bytes from `start` to `end` lie in."""
    opened = []
    for mark in re.finditer(rb"/\*(?:<(\d+)|(\d+)>)\*/", text[:end]):
        if mark[1]:
            opened.append((int(mark[1]), mark.start()))
        elif mark.end() <= start:
            opened = [(number, at) for number, at in opened if number != int(mark[2])]
    return {number for number, at in opened if at <= start}


def climb(node: Node | None, wanted) -> Node | None:
    """The first of a node and those around it that is wanted."""
    while node is not None and not wanted(node):
        node = node.parent
    return node


def _operation(leaf: Node) -> Node | None:
    kinds = ("binary_expression", "compound_assignment_expr", "unary_expression")
    return leaf.parent if leaf.parent and leaf.parent.type in kinds else None


def _function_body(leaf: Node) -> Node | None:
    function = climb(leaf, lambda each: each.type == "function_item")
    return function and function.child_by_field_name("body")


def _match_guard(leaf: Node) -> Node | None:
    guard = climb(leaf, lambda each: each.parent is not None and each.parent.type == "match_pattern")
    return None if guard is None or guard.type.startswith("let_") else guard


def _arm_pattern(leaf: Node) -> Node | None:
    arm = climb(leaf, lambda each: each.type == "match_arm")
    return arm and arm.child_by_field_name("pattern")


def _string(leaf: Node) -> Node | None:
    return climb(leaf, lambda each: each.type == "string_literal")


def _field_of_struct(leaf: Node) -> Node | None:
    return climb(leaf, lambda each: each.type in ("field_initializer", "shorthand_field_initializer"))


# Where a mutant of each genre has its place, found from the token at which it begins.
PLACES = {
    "BinaryOperator": _operation,
    "UnaryOperator": _operation,
    "FnValue": _function_body,
    "MatchArmGuard": _match_guard,
    "MatchArm": _arm_pattern,
    "StructField": _field_of_struct,
    "Condition": _string,
}
# In this order: an operator may be the whole of a guard.
REWRITES = [
    ("BinaryOperator", Source._operator),
    ("UnaryOperator", Source._operator),
    ("MatchArmGuard", Source._guard),
    ("MatchArm", Source._arm),
    ("FnValue", Source._body),
    ("StructField", Source._field),
    ("Condition", Source._text_literal),
]
