"""Environments that the tests must pass in: ``nox -s minimum``."""

from __future__ import annotations

import nox

PROJECT = nox.project.load_toml("pyproject.toml")["project"]


@nox.session(python="3.11")
def minimum(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml allows."""
    lowest = [dependency.replace(">=", "==") for dependency in PROJECT["dependencies"]]
    session.install("--editable", ".[dev]", *lowest)
    session.run("pytest", *session.posargs)
