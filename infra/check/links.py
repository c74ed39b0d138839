"""Checks that every link between the pages of this repository leads to a page, and to a section of it.

    links.py
"""

import pathlib
import re
import sys

from alerts import anchors

ROOT = pathlib.Path(__file__).parents[2]


def main() -> int:
    pages = [page for page in ROOT.rglob("*.md") if not {"target", "node_modules", ".terraform"} & set(page.parts)]
    problems, links = [], 0
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            links += 1
            path, _, section = link.partition("#")
            target = (page.parent / path) if path else page
            if not target.exists():
                problems.append(f"{page.relative_to(ROOT)}: {link} is nowhere")
            elif section and target.suffix == ".md" and section not in anchors(target):
                problems.append(f"{page.relative_to(ROOT)}: {link} is no section")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    print(f"  {len(pages)} pages, {links} links, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
