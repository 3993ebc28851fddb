"""The report: a web site from the executed notebooks, with claims, items and pictures on its first page.

``make report`` builds ``results/<profile>/report`` by Sphinx; notebooks are not run again. It needs no
network to build or to read, and is built anew only if something that it shows has changed.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

import nbformat

from lib import paths
from lib.errors import InputError
from lib.report import claims, coverage

SPHINX_SECONDS = 900
STYLE = """
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.gallery figure { margin: 0; }
.gallery figcaption { font-size: .8rem; text-align: center; overflow-wrap: anywhere; }
.gallery img { background: white; width: 100%; height: 11rem; object-fit: contain; }
table { font-size: .85rem; }
"""


def build(profile: str, *, states: dict[str, str], folder: Path | None = None) -> Path:
    """Build the report of a profile, unless it is up to date.

    Parameters
    ----------
    profile : str
    states : dict of str to str
        State of each notebook's results, as of :func:`lib.report.plan.states`.
    folder : Path, optional
        The profile's results; default ``results/<profile>``.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    InputError
        If no notebook has been executed, or Sphinx refuses a page.
    """
    folder = folder or paths.RESULTS / profile
    notebooks = executed(folder)
    if not notebooks:
        raise InputError(f"profile={profile}: no executed notebooks; run: make reproduce PROFILE={profile}")
    report, index = folder / "report", _index(profile, folder, notebooks, states)
    inputs = _digest(index, [*notebooks.values(), *_figures(folder)])
    stamp = report / ".inputs"
    if not stamp.is_file() or stamp.read_text() != inputs:
        with tempfile.TemporaryDirectory(prefix="report-", dir=folder) as work:
            source, built = Path(work, "source"), Path(work, "built")
            _lay_out(source, index, folder, notebooks)
            _sphinx(source, built)
            (built / stamp.name).write_text(inputs)
            shutil.rmtree(report, ignore_errors=True)
            built.rename(report)
    return report / "index.html"


def executed(folder: Path) -> dict[str, Path]:
    """Executed notebooks below ``folder/executed``, by name."""
    files = sorted(path for path in (folder / "executed").rglob("*.ipynb") if ".partial" not in path.name)
    return {path.relative_to(folder / "executed").with_suffix("").as_posix(): path for path in files}


def _figures(folder):
    return sorted((folder / "figures").glob("*.png"))


def _digest(index, files):
    parts = [index, STYLE, Path(__file__).with_name("sphinx_conf.py").read_text()]
    parts += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _index(profile, folder, notebooks, states):
    """Source of the first page, in MyST markdown."""
    verdicts = claims.judge(profile, states=states, folder=folder)
    groups = dict.fromkeys(name.partition("/")[0] for name in sorted(notebooks, key=_last_explore))
    parts = [
        f"# Results at profile {folder.name}",
        "Figures and tables of two papers: *Connecting Independently Trained Modes via Layer-Wise "
        "Connectivity* (arXiv 2505.02604) and *Vanishing Variance Problem in Fully Decentralized "
        "Neural-Network Systems* (arXiv 2404.04616).",
        "## Claims",
        claims.summary(verdicts),
        claims.markdown(verdicts) if verdicts else "",
        "## Figures",
        _gallery(_figures(folder)),
        "## Items of the papers",
        coverage.table(link=lambda name: f"[{name}]({name}.ipynb)" if name in notebooks else name, states=states),
        *(_contents(group, [name for name in notebooks if name.startswith(f"{group}/")]) for group in groups),
    ]
    return "\n\n".join(parts) + "\n"


def _last_explore(name):
    return name.startswith("explore/"), name


def _gallery(figures):
    cells = [
        f'<figure><a href="figures/{name}.pdf"><img src="figures/{name}.png" alt="{name}" loading="lazy"></a>'
        f'<figcaption>{name} · <a href="figures/{name}.csv">csv</a></figcaption></figure>'
        for name in (escape(figure.stem) for figure in figures)
    ]
    return "\n".join(["```{raw} html", '<div class="gallery">', *cells, "</div>", "```"])


def _contents(group, names):
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {group.capitalize()}", "", *names, "```"])


def _lay_out(source, index, folder, notebooks):
    """Write the pages, their style and the files to download where Sphinx looks for them."""
    (source / "static").mkdir(parents=True)
    (source / "extra").mkdir()
    (source / "static" / "report.css").write_text(STYLE)
    (source / "index.md").write_text(index, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("sphinx_conf.py"), source / "conf.py")
    for kind in ("figures", "tables"):
        if (folder / kind).is_dir():
            shutil.copytree(folder / kind, source / "extra" / kind)
    for name, path in notebooks.items():
        page = source / f"{name}.ipynb"
        page.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.read(path, as_version=4), page)


def _sphinx(source, built):
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(source.parent / "doctrees")]
    try:
        done = subprocess.run(
            [*command, str(source), str(built)], capture_output=True, text=True, check=False, timeout=SPHINX_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"report: Sphinx did not end within {SPHINX_SECONDS} seconds and was ended") from None
    if done.returncode:
        raise InputError(f"report: {(done.stderr.strip().splitlines() or ['Sphinx failed'])[-1]}")


def main(arguments: list[str] | None = None) -> int:
    """Build the report of a profile from its executed notebooks."""
    from lib.report.plan import plan, states

    parser = argparse.ArgumentParser(prog="report", description=main.__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        jobs = plan(options.profile, "*", {}, device=options.device)
        known = states(jobs, paths.RESULTS / options.profile)
        print(f"report: {build(options.profile, states=known).relative_to(paths.ROOT)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
