"""Set up an environment and run the example or the tests in it. Needs nothing but Python.

    python3 dev.py example    crawl the example site with the shipped model
    python3 dev.py test       lint, types, directions of imports, tests

The environment is the folder .venv beside this file, or the one that --venv names. It is made the
first time; later runs install again only when pyproject.toml has changed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
WINDOWS = os.name == "nt"
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("lint-imports",),
    ("pytest",),
)


def run(*command: str | Path) -> int:
    """Run a command in the project's folder; its exit code."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=ROOT, check=False).returncode  # noqa: S603  # our own words


def prepare(venv: Path, extra: str) -> Path:
    """The folder of the environment's scripts; makes it and installs the project if need be."""
    scripts = venv / ("Scripts" if WINDOWS else "bin")
    python = scripts / ("python.exe" if WINDOWS else "python")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for installed in (venv / "installed-dev", venv / f"installed-{extra}"):
        if installed.exists() and installed.read_text(encoding="utf-8") == project:
            return scripts
    if not python.exists():
        print(f"Making the environment {venv}", flush=True)
        if run(sys.executable, "-m", "venv", venv):
            sys.exit("python -m venv failed (on Debian and Ubuntu: apt install python3-venv)")
    print(f"Installing scrapy-captcha[{extra}], which may take minutes", flush=True)
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if run(*install, "--editable", f".[{extra}]"):
        sys.exit("pip install failed")
    (venv / f"installed-{extra}").write_text(project, encoding="utf-8")
    return scripts


def example(venv: Path) -> int:
    """Crawl the example site."""
    return run(prepare(venv, "example") / "python", "example_project/run.py")


def test(venv: Path) -> int:
    """Run every check, whichever of them fail; 1 if one did."""
    scripts = prepare(venv, "dev")
    failed = []
    for name, *options in CHECKS:
        command = " ".join([name, *options])
        print(f"\n$ {command}", flush=True)
        if run(scripts / name, *options):
            failed.append(command)
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    """Run the command that was asked for."""
    commands = {"example": example, "test": test}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=commands)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", metavar="DIR")
    arguments = parser.parse_args()
    return commands[arguments.command](arguments.venv.resolve())


if __name__ == "__main__":
    sys.exit(main())
