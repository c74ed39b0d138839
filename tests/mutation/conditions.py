"""Mutants of conditions, which cargo-mutants does not know: texts in the table's own language.

Each term of a condition is made to hold always; in one with alternatives also never. The term stays in the text, so that
the table does not refuse it for a value that nothing uses.
"""

import pathlib
import re

# A comparison, `in`, or a function, as far as our conditions use them.
TERM = re.compile(r"[#\w]+\([^()]*\)|[#\w]+ (?:=|<>|<=|<) :\w+|[#\w]+ in \([^()]*\)")
# A text given as a condition, or a constant that is one.
CONSTANT = re.compile(r'const (\w+): &str\s*=\s*("(?:[^"\\]|\\.)*");', re.S)
INLINE = re.compile(r'\.condition_expression\(\s*("(?:[^"\\]|\\.)*")', re.S)
ALWAYS = "({} or attribute_exists(PK) or attribute_not_exists(PK))"
NEVER = "({} and attribute_exists(PK) and attribute_not_exists(PK))"


def of_file(root: pathlib.Path, name: str) -> list[dict]:
    """The mutants of the conditions in one file, in the form of cargo-mutants."""
    text = (root / name).read_text()
    found = [(each[1], each.start(2), each[2]) for each in CONSTANT.finditer(text)]
    found += [(None, each.start(1), each[1]) for each in INLINE.finditer(text)]
    mutants = []
    for constant, at, literal in found:
        if constant and not re.search(rf"condition(?:_expression\(|: ){constant}\b|, {constant}\)|= {constant};|\{{ {constant} \}}", text):
            continue
        for term in TERM.finditer(literal):
            for word, wrong in [("always", ALWAYS)] + ([("never", NEVER)] if " or " in literal else []):
                replacement = literal[: term.start()] + wrong.format(term[0]) + literal[term.end() :]
                line = text.count("\n", 0, at) + 1
                column = at - text.rfind("\n", 0, at)
                mutants.append({
                    "name": f"{name}: {term[0]} holds {word} in {constant or literal}",
                    "file": name, "genre": "Condition", "package": "broker-common", "replacement": replacement,
                    "span": {"start": {"line": line, "column": column}}, "function": None, "constant": constant,
                })  # fmt: skip
    return mutants
