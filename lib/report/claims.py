"""Claims: what the papers say, compared with what the notebooks measured.

A notebook records a quantity by name, ``claims.record("gossip.plain.final_accuracy", 0.1)``; the file
``data/claims.csv`` says what it should be, at which profiles, and how we know. :func:`check` compares and
writes ``results/<profile>/claims.md``. A claim that does not hold is reported, never tuned away: a row that
is known not to be reproduced says so in its column `expected`, with the reason in `evidence`.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib import folders
from lib.errors import InputError
from lib.report import context

if TYPE_CHECKING:
    from IPython.display import Markdown

RELATIONS: dict[str, Callable[[float, float, float], bool]] = {
    "<": lambda ours, value, _: ours < value,
    ">": lambda ours, value, _: ours > value,
    "within": lambda ours, value, tolerance: abs(ours - value) <= tolerance,
}
EXPECTED = ("reproduced", "not reproduced")
FAILURES = ("not reproduced", "not recorded", "as committed (does not hold)")

_recorded: dict[str, float | dict[str, float]] = {}


@dataclass(frozen=True)
class Claim:
    """One row of ``data/claims.csv``: at `profiles`, `quantity` is `relation` `value`."""

    id: str
    paper: str
    item: str
    sentence: str
    quantity: str
    relation: str
    value: float
    tolerance: float
    profiles: tuple[str, ...]
    source: str
    evidence: str
    expected: str = "reproduced"

    def __post_init__(self):
        for name, allowed in (("relation", RELATIONS), ("expected", EXPECTED)):
            if getattr(self, name) not in allowed:
                choices = ", ".join(allowed)
                raise InputError(f"claim {self.id}: {name}={getattr(self, name)!r}: expected one of {choices}")
        if not self.tolerance >= 0 or (self.tolerance > 0 and self.relation != "within"):
            raise InputError(f"claim {self.id}: tolerance={self.tolerance:g}: expected 0, or more for 'within'")
        if self.expected == "not reproduced" and not self.evidence:
            raise InputError(f"claim {self.id}: expected='not reproduced' needs its reason in the column evidence")

    @property
    def threshold(self) -> str:
        """What the quantity should be, for people."""
        if self.relation == "within":
            return f"{self.value:.12g} ± {self.tolerance:g}" if self.tolerance else f"exactly {self.value:.12g}"
        return f"{self.relation} {self.value:g}"


    @property
    def is_ours(self) -> bool:
        """Whether it is a check of our own; else a paper, its code or another publication says so."""
        return "ours" in (self.source, self.evidence)


@dataclass(frozen=True)
class Verdict:
    """A claim and what was measured; `result` says in words how they compare."""

    claim: Claim
    ours: float | dict[str, float] | None
    result: str

    @property
    def failed(self) -> bool:
        """True for a claim that should hold here and does not."""
        return self.result in FAILURES or self.result.startswith("failed")

    @property
    def kind(self) -> str:
        """In one word: "holds", "fails", "failed" (its notebook), "stale" or "open" (nothing was measured)."""
        kinds = {"reproduced": "holds", "as committed (holds": "holds", "not reproduced": "fails",
                 "as committed": "fails", "failed": "failed", "stale": "stale"}  # fmt: skip
        return next((kind for start, kind in kinds.items() if self.result.startswith(start)), "open")

    def __str__(self) -> str:
        """One line of markdown: what was claimed, what was measured, how they compare."""
        claim = self.claim
        return f"*{claim.sentence}* Expected {claim.threshold}, here {number(self.ours)}: **{self.result}**."


def record(quantity: str, value: float, *, at_least: bool = False) -> None:
    """Record a measured quantity of the running notebook, under ``results/<profile>/quantities``.

    Parameters
    ----------
    quantity : str
        Its name in ``data/claims.csv``; other names are kept too.
    value : float
        A number or bool; infinity and NaN are allowed ("never reached") and fail most claims.
    at_least : bool
        The value is only a lower bound, such as a ratio of ticks of which the larger was not reached within the run.
        It can show that a quantity is large, and nothing else.
    """
    try:
        _recorded[quantity] = {"at_least": float(value)} if at_least else float(value)
    except (TypeError, ValueError):
        raise InputError(f"claims.record({quantity!r}): value={value!r}: expected a number") from None
    path = context.results() / "quantities" / f"{context.notebook()}.json"
    context.write(path, json.dumps(_recorded, indent=1, sort_keys=True) + "\n")


def load(file: Path = folders.DATA / "claims.csv") -> list[Claim]:
    """All claims of `file`; `InputError` names the row that is not usable."""
    rows = read_rows(file)
    for row in rows:
        row["profiles"] = tuple(row["profiles"].split())
        row["expected"] = row.get("expected") or "reproduced"
        try:
            row["value"], row["tolerance"] = float(row["value"]), float(row["tolerance"] or 0)
        except ValueError:
            raise InputError(
                f"{file.name}: claim {row['id']}: value and tolerance must be numbers, "
                f"got {row['value']!r} and {row['tolerance']!r}"
            ) from None
    return [Claim(**row) for row in rows]


def read_rows(file: Path) -> list[dict[str, str]]:
    """Rows of a csv file with a header, as dictionaries of text; `InputError` names the line that does not fit."""
    with open(file, newline="", encoding="utf-8") as stream:
        reader, rows = csv.DictReader(stream), []
        for row in reader:
            if None in row or None in row.values():  # more fields than the header, or fewer
                count = len(reader.fieldnames)
                raise InputError(f"{file.name}, line {reader.line_num}: not {count} fields; quote commas")
            rows.append({name: text.strip() for name, text in row.items()})
        return rows


def judge(
    profile: str, *, states: dict[str, str], claims: list[Claim] | None = None, folder: Path | None = None
) -> list[Verdict]:
    """Compare the claims of `profile` with the quantities recorded in `folder` (default: its results).

    Parameters
    ----------
    states : dict of str to str
        State of each notebook's results, as :func:`lib.report.plan.states` finds it: only what is current counts as
        reproduced or not. A notebook that is not named has no results.
    """
    folder = folder or folders.RESULTS / profile
    recorded_by = _quantities(folder / "quantities")
    notebooks = {row["item"]: row["notebook"].split() for row in read_rows(folders.DATA / "items.csv")}
    verdicts = []
    for claim in load() if claims is None else claims:
        if profile in claim.profiles:
            notebook, ours = recorded_by.get(claim.quantity, (None, None))
            needed = [states.get(name, "not run") for name in notebooks.get(claim.item, ())]
            state = _without_value(needed) if notebook is None else states.get(notebook, "stale")
            verdicts.append(_verdict(claim, ours, state))
    return verdicts


def _quantities(folder):
    """Notebook and value by quantity."""
    return {
        quantity: (file.relative_to(folder).with_suffix("").as_posix(), value)
        for file in sorted(folder.rglob("*.json"))
        for quantity, value in json.loads(file.read_text()).items()
    }


def _without_value(needed):
    """State of a claim that no notebook has measured, from the states of the notebooks of its item."""
    failed = [state for state in needed if state.startswith("failed")]
    return (failed or ["not run" if "not run" in needed or not needed else "not recorded"])[0]


def _verdict(claim, ours, state):
    """`state` of the notebook that measured `ours`; only a current one makes a verdict of this run."""
    if state.startswith("failed: "):
        return Verdict(claim, None, f"failed ({state.removeprefix('failed: ')})")
    if ours is None:
        return Verdict(claim, None, state)
    if isinstance(ours, dict):  # a lower bound
        holds = claim.relation == ">" and ours["at_least"] > claim.value
    else:
        holds = RELATIONS[claim.relation](ours, claim.value, claim.tolerance)
    known = claim.expected == "not reproduced"
    if state == "stale":
        return Verdict(claim, ours, "stale (made by other code, parameters or data)")
    if state == "as committed":
        word = "holds" if holds else "does not hold, as known" if known else "does not hold"
        return Verdict(claim, ours, f"as committed ({word})")
    if known:
        return Verdict(claim, ours, "reproduced (unexpected)" if holds else f"not reproduced (known: {claim.evidence})")
    return Verdict(claim, ours, "reproduced" if holds else "not reproduced")


def conclusion(sentence: str) -> "Markdown":
    """The last words of a notebook: a sentence computed from its numbers, and the verdict of each claim it measured.

    Parameters
    ----------
    sentence : str
        Markdown, with the numbers of this run put in.

    Returns
    -------
    IPython.display.Markdown
        The sentence, then one line for each claim of ``data/claims.csv`` that this notebook has recorded.
    """
    from IPython.display import Markdown

    profile = context.profile().removesuffix("-custom")
    lines = [
        f"* {_verdict(claim, ours, 'current')}"
        for claim in load()
        if (ours := _recorded.get(claim.quantity)) is not None
        and (profile in claim.profiles or profile == "interactive")
    ]
    return Markdown("\n".join([sentence, "", *lines]))


def check(profile: str, *, states: dict[str, str], folder: Path | None = None) -> list[Verdict]:
    """Judge the claims of `profile`, write ``claims.md`` beside its results, and return the verdicts."""
    folder = folder or folders.RESULTS / profile
    verdicts = judge(profile, states=states, folder=folder)
    head = f"Claims of the papers at profile {profile}. Sources and evidence: data/claims.csv."
    context.write(folder / "claims.md", "\n\n".join([head, markdown(verdicts), summary(verdicts)]) + "\n")
    return verdicts


def markdown(verdicts: list[Verdict]) -> str:
    """Verdicts as a markdown table."""
    lines = ["| claim | paper, item | expected | ours | verdict |", "|---|---|---|---|---|"]
    for v in verdicts:
        cells = (
            v.claim.sentence,
            f"{v.claim.paper}, {v.claim.item}",
            v.claim.threshold,
            number(v.ours),
            v.result,
        )
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines)


def summary(verdicts: list[Verdict]) -> str:
    """How many claims hold, in one line."""
    counts = Counter(v.result.partition(" (")[0] for v in verdicts)
    holding = sum(v.result == "as committed (holds)" for v in verdicts)
    notes = {"as committed": f" ({holding} hold)"}
    reproduced = counts.pop("reproduced", 0)
    others = "".join(f", {count} {result}{notes.get(result, '')}" for result, count in sorted(counts.items()))
    return f"{reproduced} of {len(verdicts)} claims reproduced{others}."


def show(verdicts: list[Verdict]) -> int:
    """Print a table of what was run; returns the exit code, 1 if a claim fails that should hold."""
    shown = [v for v in verdicts if v.result != "not run"]
    width = max((len(v.claim.id) for v in shown), default=0)
    for v in shown:
        print(f"{v.claim.id:{width}}  {v.claim.threshold:>16}  {number(v.ours):>10}  {v.result}")
    print(summary(verdicts))
    failed = [v.claim.id for v in verdicts if v.failed]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return int(bool(failed))


def number(value: float | dict[str, float] | None) -> str:
    """A measured value for people; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"≥ {number(value['at_least'])}"
    if value != value:
        return "not within the run"
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    """Say which claims hold, from the results that are there; nothing is run or written."""
    from lib.report.plan import plan, states  # which imports much; the notebooks need only what stands above

    parser = argparse.ArgumentParser(prog="claims", description=main.__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        folder = folders.RESULTS / options.profile
        jobs = plan(options.profile, "*", {}, device=options.device)
        if not folder.is_dir():
            raise InputError(f"profile={options.profile}: no results; run: make reproduce PROFILE={options.profile}")
        return show(judge(options.profile, states=states(jobs, folder)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
