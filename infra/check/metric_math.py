"""CloudWatch's metric math and alarms over series, as far as the alarms and the scaling rule of this repository use them.

A series is a value a period; a point arrives some periods after its own, or never. What is late or lost is simply not
there yet, and a result is there only where all that it is made of is there, unless FILL makes it up.

Not modelled: anomaly detection, periods of different lengths in one expression.
"""

import re

# CloudWatch looks at some more points than an alarm's N, to find N that exist.
MORE_POINTS = 2


class Series:
    """The points of one metric: `values[i]` is of period i, and arrives `late(i)` periods later (None: never)."""

    def __init__(self, values, late=lambda _: 0):
        self.values, self.late = list(values), late

    def known(self, now: int) -> dict[int, float]:
        """The points that have arrived when period `now` is over."""
        points = {}
        for at, value in enumerate(self.values[: now + 1]):
            late = self.late(at)
            if value is not None and late is not None and at + late <= now:
                points[at] = value
        return points


def parsed(expression: str, names: set[str]) -> str:
    tokens = re.findall(r"[A-Za-z_]\w*|\d+(?:\.\d+)?|>=|<=|[()+\-*/,<>]", expression)
    if "".join(tokens) != expression.replace(" ", ""):
        raise ValueError(f"not understood: {expression}")
    words = {token for token in tokens if re.match(r"[A-Za-z_]", token)}
    if unknown := words - names - {"FILL", "IF", "REPEAT"}:
        raise ValueError(f"unknown names in {expression}: {unknown}")
    return " ".join(tokens)


def filled(expression: str) -> set[str]:
    """The metrics whose missing points the expression makes up by a number."""
    return set(re.findall(r"FILL\(\s*(\w+)\s*,\s*(?!REPEAT)", expression))


def evaluate(expression: str, series: dict[str, Series], now: int, first: int = 0) -> dict[int, float]:
    """The expression's points of the periods `first` to `now`, by what is known after period `now`."""
    code = compile(parsed(expression, set(series)), expression, "eval")
    known = {name: one.known(now) for name, one in series.items()}
    results = {}
    for at in range(max(0, first), now + 1):

        class Missing(Exception):
            pass

        class Value:
            """A metric at one period; FILL looks at it before anybody needs its number."""

            def __init__(self, name):
                self.name = name

            def number(self):
                if at not in known[self.name]:
                    raise Missing
                return known[self.name][at]

        def number(value):
            return value.number() if isinstance(value, Value) else value

        def operator(function):
            return lambda a, b: function(number(a), number(b))

        for name, function in {
            "__add__": lambda a, b: a + b, "__sub__": lambda a, b: a - b, "__mul__": lambda a, b: a * b, "__truediv__": lambda a, b: a / b,
            "__radd__": lambda a, b: b + a, "__rsub__": lambda a, b: b - a, "__rmul__": lambda a, b: b * a, "__rtruediv__": lambda a, b: b / a,
            "__gt__": lambda a, b: a > b, "__lt__": lambda a, b: a < b, "__ge__": lambda a, b: a >= b, "__le__": lambda a, b: a <= b,
        }.items():
            setattr(Value, name, operator(function))

        def fill(value, default):
            points = known[value.name]
            if at in points:
                return points[at]
            if default == "REPEAT":
                before = [t for t in points if t < at]
                if not before:
                    raise Missing
                return points[max(before)]
            return default

        def choose(condition, yes, no):
            # Both sides are looked at, as CloudWatch does: a missing one makes the result missing.
            yes, no = number(yes), number(no)
            return yes if number(condition) else no

        names = {name: Value(name) for name in series} | {"FILL": fill, "IF": choose, "REPEAT": "REPEAT"}
        try:
            results[at] = number(eval(code, {"__builtins__": {}}, names))  # only the tokens checked above
        except (Missing, ZeroDivisionError):
            continue
    return results


def breaching(points: dict[int, float], now: int, of: tuple[int, int], breaches, missing: str) -> str:
    """The state of an M-of-N alarm after period `now`: ALARM, OK, or INSUFFICIENT."""
    least, periods = of
    seen = [points[at] for at in range(now, now - periods - MORE_POINTS, -1) if at in points][:periods]
    found = [breaches(value) for value in seen]
    if missing == "missing":
        if not found:
            return "INSUFFICIENT"
        # As AWS documents it: too few points, all of them breaching, are an alarm.
        if all(found):
            return "ALARM"
    made_up = max(0, periods - len(found)) if missing == "breaching" else 0
    return "ALARM" if sum(found) + made_up >= least else "OK"
