"""How good the tests of the domain and the store are: every mutant that cargo-mutants lists, each given to the tests.

    tests/mutation/run [--files GLOB]... [--only GLOB] [--jobs N]

`conditions.py` adds those that cargo-mutants does not know: each term of each condition of a write holds always, or never.
A build for each mutant would take half a minute, so all are compiled into one throwaway copy of the workspace
(`schemata.py`) and chosen by an environment variable. What does not compile is dropped (unviable). Then each test runs
alone once and notes the mutants that it reaches; a mutant is given to the tests that reach it, the quickest first, until
one fails. What no test fails on is a survivor: it must stand in `accepted.txt` with its reason, and what stands there and
is caught meanwhile is an error, too. The verdicts are kept in `target/mutation/results.json`.
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import json
import pathlib
import shutil
import sys

from judges import Test, endpoints, judge, tests
from tree import WORK, copy_workspace, drop_unviable, listed

ACCEPTED = pathlib.Path(__file__).with_name("accepted.txt")
FILES = ["common/domain/src/**", "common/store/src/**"]


def accepted() -> dict[str, str]:
    """The survivors that were argued: name and reason."""
    lines = [line for line in ACCEPTED.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(" :: ", 1) for line in lines)


def report(mutants: list[dict], results: dict[str, dict], whole: bool) -> bool:
    """Prints table and survivors; whether all is as it should be."""
    kinds = ["caught", "timeout", "survived", "uncovered", "unviable", "inexpressible"]
    print(f"{'':10}" + "".join(f"{kind:>14}" for kind in kinds) + f"{'score':>10}{'argued':>8}")
    argued = accepted()
    of_part = collections.defaultdict(list)
    for mutant in mutants:
        part = "conditions" if mutant["genre"] == "Condition" else mutant["file"].split("/")[1]
        of_part[part].append(mutant["name"])
    for part, names in sorted(of_part.items()):
        own = [results[name] for name in names if name in results]
        count = collections.Counter(each["verdict"] for each in own)
        killed = count["caught"] + count["timeout"]
        alive = count["survived"] + count["uncovered"]
        score = f"{100 * killed / max(1, killed + alive):.1f} %"
        print(f"{part:10}" + "".join(f"{count[kind]:14}" for kind in kinds) + f"{score:>10}{sum(n in argued for n in names):8}")
    alive = [name for name, each in results.items() if each["verdict"] in ("survived", "uncovered")]
    wrong = [f"{results[name]['verdict']}: {name}" for name in alive if name not in argued]
    wrong += [f"accepted, but caught: {name}: {results[name]['test']}" for name in argued if name in results and name not in alive]
    wrong += [f"accepted, but there is no such mutant: {name}" for name in argued if whole and name not in results]
    print("\n".join(wrong))
    return not wrong


def main() -> None:
    """Reads the arguments and does it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="append", help="only these files of common/ (as cargo-mutants' --file)")
    parser.add_argument("--only", default="*", help="only mutants whose name fits, with * and ?")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    mutants = listed(arguments.files or FILES)
    verdicts: dict[int, str] = {}
    print(f"{len(mutants)} mutants", flush=True)
    drop_unviable(copy_workspace(), mutants, verdicts)
    process, urls = endpoints()
    try:
        shutil.rmtree(WORK / "reached", ignore_errors=True)
        (WORK / "reached").mkdir()
        judges = tests(urls)
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            for test, problem in zip(judges, pool.map(Test.baseline, judges)):
                if problem is not None:
                    sys.exit(f"{test.name} fails on the original:\n{problem}")
            print(f"{len(judges)} tests pass on the original, in {sum(t.seconds for t in judges):.0f} s", flush=True)
            todo = [n for n, m in enumerate(mutants) if n not in verdicts and fnmatch.fnmatch(m["name"], arguments.only)]
            results = {mutants[number]["name"]: {"verdict": verdict} for number, verdict in verdicts.items()}
            for number, (verdict, test) in zip(todo, pool.map(lambda n: judge(n, judges), todo)):
                results[mutants[number]["name"]] = {"verdict": verdict, "test": test}
                print(f"   {verdict:10} {mutants[number]['name']}" + (f" [{test}]" if test else ""), flush=True)
    finally:
        process.terminate()
        process.wait()
    (WORK / "results.json").write_text(json.dumps(results, indent=1))
    whole = not arguments.files and arguments.only == "*"
    sys.exit(0 if report(mutants, results, whole) else 1)


main()
