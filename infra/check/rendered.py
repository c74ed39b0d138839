"""Reads what `terraform test -json -verbose` printed: outputs and resources, or why it failed."""

import json
import sys


def main() -> int:
    wanted, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    if wanted == "failures":
        for line in lines:
            if line["@level"] == "error" or line.get("test_run", {}).get("status") in ("fail", "error"):
                detail = line.get("diagnostic", {})
                print(line["@message"], detail.get("detail", ""), json.dumps(detail.get("snippet", {}).get("code", "")))
        return 0
    # The run `rendered` is applied first, with the module's defaults.
    for line in lines:
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
