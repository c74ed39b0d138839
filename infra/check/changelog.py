"""Checks the form of CHANGELOG.md, or prints the section of one version: the notes of its release.

    changelog.py [VERSION]

The first section is `Unreleased`. A release has a section `## 1.2.3 - 2026-12-31`, newer ones first, and in it `### Upgrade`, what whoever comes from
the version before has to do (or that there is nothing to do).
"""

import pathlib
import re
import sys

PAGE = pathlib.Path(__file__).parents[2] / "CHANGELOG.md"
HEADING = re.compile(r"^(\d+)\.(\d+)\.(\d+) - \d{4}-\d{2}-\d{2}$")


def sections(text: str) -> list[tuple[str, str]]:
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def problems(found: list[tuple[str, str]]) -> list[str]:
    told = [] if found and found[0][0] == "Unreleased" else ["the first section must be Unreleased"]
    versions = []
    for title, text in found:
        if title != "Unreleased":
            if not (numbers := HEADING.match(title)):
                told.append(f"{title!r} is no heading of a version: 1.2.3 - 2026-12-31")
                continue
            versions.append(tuple(map(int, numbers.groups())))
        if "### Upgrade\n" not in text:
            told.append(f"{title} says nothing under ### Upgrade")
    if versions != sorted(set(versions), reverse=True):
        told.append("newer versions come first, each once")
    return told


def main() -> int:
    found = sections(PAGE.read_text(encoding="utf-8"))
    told = problems(found)
    for problem in told:
        print(f"  CHANGELOG.md: {problem}", file=sys.stderr)
    if told or len(sys.argv) == 1:
        return 1 if told else 0
    wanted = [text for title, text in found if title.split(" ")[0] == sys.argv[1]]
    if not wanted:
        print(f"  CHANGELOG.md has no section of {sys.argv[1]}: a release without notes", file=sys.stderr)
        return 1
    print(wanted[0].strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
