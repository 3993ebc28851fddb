"""Set-up: one source of truth for versions, make targets that work, a clear word on a wrong Python."""

import importlib.metadata
import os
import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lib import folders

TARGETS = [
    "help",
    "env",
    "reproduce",
    "test",
    "check",
    "lab",
    "report",
    "figures",
    "cache",
    "clean",
    "clean-cache",
    "survive",
    "bench",
]


def pins():
    lines = (folders.ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def installed(name):
    return importlib.metadata.version(name).partition("+")[0]


def test_every_requirement_is_one_exact_version_and_is_what_runs_here():
    wanted = {pin.name: str(pin.specifier) for pin in pins()}
    assert wanted == {name: f"=={installed(name)}" for name in wanted}


def test_what_the_requirements_need_is_pinned_too():
    """But the nvidia packages and triton, which a CUDA build of torch brings in the versions it wants."""
    pinned = {canonicalize_name(pin.name) for pin in pins()}
    needed = {
        canonicalize_name(requirement.name)
        for pin in pins()
        for requirement in map(Requirement, importlib.metadata.requires(pin.name) or ())
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
    assert {name for name in needed - pinned if not re.match(r"nvidia-|cuda-|triton", name)} == set()


def test_conda_and_pip_install_the_same_pins():
    environment = yaml.safe_load((folders.ROOT / "environment.yml").read_text())
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.txt"]}]
    project = tomllib.loads((folders.ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert project["project"]["requires-python"] == ">=3.11"


def test_binder_installs_the_same_pins_and_lib():
    environment = yaml.safe_load((folders.ROOT / "binder/environment.yml").read_text())
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": ["-r ../requirements.txt", "-e .."]}]


def test_one_version_in_all_places():
    version = tomllib.loads((folders.ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((folders.ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"\n## {version}\n" in (folders.ROOT / "CHANGELOG.md").read_text()


def test_workflows_are_yaml_and_call_targets_that_exist():
    targets = re.findall(r"^([a-z-]+):", (folders.ROOT / "Makefile").read_text(), re.MULTILINE)
    for file in (folders.ROOT / ".github/workflows").glob("*.yml"):
        steps = [step for job in yaml.safe_load(file.read_text())["jobs"].values() for step in job["steps"]]
        called = [step["run"].split()[1] for step in steps if step.get("run", "").startswith("make ")]
        assert called
        assert set(called) <= set(targets)


def test_all_packages_are_listed():
    project = tomllib.loads((folders.ROOT / "pyproject.toml").read_text())
    packages = {file.parent.relative_to(folders.ROOT) for file in (folders.ROOT / "lib").rglob("*.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == {".".join(package.parts) for package in packages}


def make(*arguments, **environment):
    given = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "PYTHON")}
    return subprocess.run(
        ["make", "-C", str(folders.ROOT), "--no-print-directory", *arguments],
        env={**given, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_lists_every_target():
    out = make("help").stdout
    assert [target for target in TARGETS if not re.search(rf"^  {target} +\w", out, re.MULTILINE)] == []


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_there(target):
    assert make("--dry-run", target, "PYTHON=python").returncode == 0


@pytest.mark.parametrize(("flags", "jobs"), [([], 2), (["-j1"], 1), (["-j", "3"], 3)])
def test_make_hands_its_jobs_to_the_runner(flags, jobs):
    assert f"--jobs {jobs}\n" in make("--dry-run", "reproduce", "PYTHON=python", *flags).stdout


def test_python_too_old_or_missing_is_one_line(tmp_path):
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    search = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    venv = f"{tmp_path}/venv"
    done = make("env", f"VENV={venv}", PATH=search)
    assert done.returncode != 0
    assert done.stderr.startswith("error: no Python >= 3.11 found")
    assert not os.path.exists(venv)


def test_ci_runs_the_tests():
    script = folders.ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("make test")


def test_the_code_of_the_readme_runs(capsys):
    text = (folders.ROOT / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    exec(example, {})
    max_loss, accuracy = map(float, capsys.readouterr().out.split())
    assert max_loss < 0.1
    assert accuracy > 0.85


@pytest.mark.parametrize("file", ["README.md", *(f"docs/{each.name}" for each in (folders.ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(file):
    text = (folders.ROOT / file).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text)]
    pages = {"figures.md", "claims.md", "map.md", "index.md"}  # the report's build writes them
    at = (folders.ROOT / file).parent
    missing = [each for each in targets if each not in pages and not at.joinpath(each).exists()]
    assert missing == []
