"""Reads what `terraform test -json -verbose` printed of the run `rendered`: outputs and resources, as one JSON object."""

import json
import sys


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        for line in map(json.loads, file):
            if line.get("type") == "test_state" and line.get("@testrun") == "rendered":
                state = line["test_state"]
                rendered = {name: output["value"] for name, output in state["outputs"].items()}
                rendered["resources"] = {r["address"]: r["values"] for r in state["root_module"]["resources"]}
                json.dump(rendered, sys.stdout, indent=1)
                return 0
    print("terraform test printed no state of the run `rendered`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
