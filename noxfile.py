"""What the tests must pass in, and what is known of the packages that come along.

``nox -s minimum`` runs the tests with the oldest versions that pyproject.toml allows;
``nox -s audit`` looks up known vulnerabilities, of the newest versions and of the oldest.
"""

from __future__ import annotations

from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
#: What a user may install; the tests' own tools may be the newest.
EXTRAS = ("train", "serve", "example")
#: Advisories that do not concern this package: SECURITY.md says why.
EXPLAINED = ("GHSA-h7wm-ph43-c39p", "PYSEC-2017-83")


def lowest() -> list[str]:
    """The oldest version of each dependency that is named, those of the extras included."""
    extras = PROJECT["optional-dependencies"]
    named = [*PROJECT["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]
    return [dependency.replace(">=", "==") for dependency in named if ">=" in dependency]


@nox.session(python="3.11")
def minimum(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml allows."""
    session.install("--editable", ".[dev]", *lowest())
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
@nox.parametrize("versions", ["newest", "oldest"])
def audit(session: nox.Session, versions: str) -> None:
    """Look up known vulnerabilities of what an installation with all extras brings.

    It asks PyPI's vulnerability service. What cannot be looked up is an error, not a pass.
    """
    session.install(f".[{','.join(EXTRAS)}]", *(lowest() if versions == "oldest" else ()))
    installed = session.run(
        "python", "-m", "pip", "freeze", "--exclude", PROJECT["name"], silent=True
    )
    requirements = Path(session.create_tmp()) / "installed.txt"
    requirements.write_text(str(installed), encoding="utf-8")
    session.install("pip-audit")
    ignored = [word for advisory in EXPLAINED for word in ("--ignore-vuln", advisory)]
    given = ("--strict", "--no-deps", "--disable-pip", *ignored, *session.posargs)
    session.run("pip-audit", "--requirement", str(requirements), *given)
