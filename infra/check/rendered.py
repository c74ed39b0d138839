"""Reads what `terraform test -json -verbose` printed of the run `rendered`: outputs and resources, as one JSON object.

Resources of the module's parts stand under their address in the part: the name of a resource is unique in all parts.
"""

import json
import re
import sys


def resources(module: dict) -> dict:
    found = {re.sub(r"^(module\.\w+\.)+", "", r["address"]): r["values"] for r in module.get("resources", [])}
    for child in module.get("child_modules", []):
        for address, values in resources(child).items():
            # tags and regions of data sources are no resource of one part alone
            if address in found and not address.startswith("data."):
                raise ValueError(f"{address} is in two parts")
            found[address] = values
    return found


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        for line in map(json.loads, file):
            if line.get("type") == "test_state" and line.get("@testrun") == "rendered":
                state = line["test_state"]
                rendered = {name: output["value"] for name, output in state["outputs"].items()}
                rendered["resources"] = resources(state["root_module"])
                json.dump(rendered, sys.stdout, indent=1)
                return 0
    print("terraform test printed no state of the run `rendered`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
