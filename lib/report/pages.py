"""What the pages of the report show: verdicts, figures and times, the profiles side by side.

Text and layout stand in ``docs``; its templates (``*.md.j2``) get what :func:`content` gathers.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lib import folders
from lib.report import claims, times
from lib.report.claims import Claim, Verdict

DOCS = folders.ROOT / "docs"
DATA = {"laptop": "digits", "cifar": "CIFAR-10", "paper": "MNIST"}  # what a profile's committed results are of
FIRST = ("failed", "fails", "stale", "open", "holds")  # bad news first


@dataclass(frozen=True)
class Profile:
    """The results of a profile: state of each notebook's results, and verdict of each claim by its id."""

    name: str
    folder: Path
    states: dict[str, str]
    verdicts: dict[str, Verdict]

    @classmethod
    def of(cls, name: str, folder: Path, states: dict[str, str]) -> "Profile":
        """The profile `name`, whose results lie in `folder`, maybe with parameters of the user's own."""
        verdicts = claims.judge(name, states=states, folder=folder)
        return cls(folder.name, folder, states, {verdict.claim.id: verdict for verdict in verdicts})

    @property
    def data(self) -> str:
        """The data set for people; the profile's name where that says more."""
        return DATA.get(self.name, self.name)

    @property
    def counts(self) -> Counter:
        """Number of claims by kind of verdict."""
        return Counter(verdict.kind for verdict in self.verdicts.values())

    def has(self, file: str) -> bool:
        """Whether there is `file`, such as "figures/continuity.png"."""
        return (self.folder / file).is_file()

    def caption(self, figure: str) -> str:
        """Caption of a figure, in Markdown; nothing where it has none."""
        file = self.folder / "figures" / f"{figure}.md"
        return file.read_text(encoding="utf-8") if file.is_file() else ""


def committed() -> list[Profile]:
    """The profiles of which there are results, all taken as committed."""
    found = []
    for name in DATA:
        folder = folders.RESULTS / name
        names = [file.relative_to(folder / "quantities").with_suffix("").as_posix()
                 for file in (folder / "quantities").rglob("*.json")]  # fmt: skip
        if names:
            found.append(Profile.of(name, folder, dict.fromkeys(names, "as committed")))
    return found


def content(own: Profile, notebooks: dict[str, str]) -> dict:
    """What the templates are filled with.

    Parameters
    ----------
    own : Profile
        The profile whose report this is.
    notebooks : dict of str to str
        Source of each notebook's first cell, by name.
    """
    every = [own, *(each for each in committed() if each.name != own.name)]
    all_claims = sorted(claims.load(), key=lambda claim: _rank(claim, every))
    return {
        "own": own,
        "profiles": every,
        "items": _items(every),
        "claims": all_claims,
        "failures": [failure for claim in all_claims if (failure := _failure(claim, every))["verdicts"]],
        "headlines": sorted(headlines(every), key=lambda row: FIRST.index(row["kinds"][0])),
        "notebooks": [
            {"name": name, "title": _title(source), "command": command(name, own.name),
             "state": own.states.get(name, "not run"),
             "seconds": {each.name: times.read(each.folder).get(name) for each in every}}
            for name, source in notebooks.items()
        ],
        "groups": sorted({name.partition("/")[0] for name in notebooks}, key=lambda group: (group == "explore", group)),
        "machines": {each.name: machine for each in every if (machine := times.machine(each.folder))},
    }  # fmt: skip


def _items(every):
    """Rows of ``data/items.csv``, each with its figures as (name, profiles that have it); last what is of no item."""
    items = claims.read_rows(folders.DATA / "items.csv")
    listed = {file for item in items for file in item["files"].split()}
    there = {f"figures/{png.name}" for each in every for png in (each.folder / "figures").glob("*.png")}
    items.append({"item": "more", "paper": "ours", "content": "figures that belong to no item of the papers",
                  "notebook": "", "evidence": "ours", "files": " ".join(sorted(there - listed))})  # fmt: skip
    for item in items:
        files = [file for file in item["files"].split() if file.endswith(".png")]
        item["figures"] = [(Path(file).stem, [each for each in every if each.has(file)]) for file in files]
    return items


def _rank(claim: Claim, every: list[Profile]) -> int:
    kinds = [each.verdicts[claim.id].kind for each in every if claim.id in each.verdicts]
    return min((FIRST.index(kind) for kind in kinds), default=len(FIRST))


def headlines(every: list[Profile]) -> list[dict]:
    """Rows of ``data/headlines.csv``, each with the verdicts of the profiles."""
    return [_headline(row, every) for row in claims.read_rows(folders.DATA / "headlines.csv")]


def _headline(row, every):
    """A row of ``data/headlines.csv`` with a verdict for each profile that has measured one of its quantities."""
    known = []
    for each in every:
        verdicts = {v.claim.quantity: v for v in each.verdicts.values() if v.kind != "open"}
        known += [(each, verdicts[name]) for name in row["quantity"].split() if name in verdicts][:1]
    kinds = sorted((verdict.kind for _, verdict in known), key=FIRST.index)
    return row | {"verdicts": known, "kinds": kinds or ["open"]}


def _failure(claim, every):
    """A claim with the verdicts of the profiles where it does not hold, by data set."""
    verdicts = [(each.data, each.verdicts[claim.id]) for each in every if claim.id in each.verdicts]
    return {"item": claim.item, "sentence": claim.sentence, "threshold": claim.threshold,
            "reason": claim.evidence or "reason not known",
            "verdicts": [pair for pair in verdicts if pair[1].kind in ("fails", "failed")]}  # fmt: skip


def _title(source):
    return next((line.lstrip("# ") for line in source.splitlines() if line.startswith("# ")), "")


def measured(own: Profile, name: str) -> list[Verdict]:
    """Verdicts of the claims whose quantities a notebook has recorded."""
    file = own.folder / "quantities" / f"{name}.json"
    quantities = json.loads(file.read_text()) if file.is_file() else {}
    return [verdict for verdict in own.verdicts.values() if verdict.claim.quantity in quantities]


def command(name: str, profile: str) -> str:
    """The command that runs one notebook."""
    short = re.sub(r"(/\d+)-.*", r"\1*", name)
    of_profile = "" if profile == "laptop" else f" PROFILE={profile}"
    return f'make reproduce{of_profile} NOTEBOOKS="{short}"'
