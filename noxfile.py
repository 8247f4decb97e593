"""The menu of checks: ``nox -l`` lists it. tests/run makes the environment that they run in."""

from __future__ import annotations

import os

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "unit"]

RUFF = ("--config", ".config/ruff.toml")
BY_FILE = ("--dist=loadfile", "--no-loadscope-reorder")


@nox.session
def lint(session: nox.Session) -> None:
    """Every check of .pre-commit-config.yaml over the whole tree."""
    session.run("pre-commit", "run", "--all-files", *session.posargs)


@nox.session
def format(session: nox.Session) -> None:  # noqa: A001 (what people type)
    """Rewrites Python files in the house format."""
    session.run("ruff", "check", *RUFF, "--fix", ".")
    session.run("ruff", "format", *RUFF, ".")


@nox.session
def unit(session: nox.Session) -> None:
    """The inner loop: no process of ours, no picture; ``-- -m slow`` for the rest."""
    spread = ("--numprocesses=auto", *BY_FILE)
    session.run("pytest", "tests/unit", "-m", "not slow", *spread, *session.posargs)


@nox.session
def contract(session: nox.Session) -> None:
    """What must agree with what: documents, specs, schemas, the tree."""
    session.run("pytest", "tests/contract", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Real processes on loopback."""
    session.run("pytest", "tests/integration", "tests/browser", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Every fault, injected; ``-- --long`` (or ROCKILN_LONG=1) for the long forms."""
    session.run("pytest", "tests/faults", *session.posargs)


@nox.session
def infra(session: nox.Session) -> None:
    """Fresh hosts in containers, two at a time."""
    session.run("pytest", "tests/infra", "--numprocesses=2", *BY_FILE, *session.posargs)


@nox.session
def interrupted_all(session: nox.Session) -> None:
    """Upgrades killed after every task, each by itself; some hours, or ROCKILN_INTERRUPT=17-40."""
    session.run(
        "molecule",
        "test",
        "--scenario-name",
        "interrupted",
        *session.posargs,
        env={"ROCKILN_INTERRUPT": os.environ.get("ROCKILN_INTERRUPT", "1-")},
    )


@nox.session
def lock(session: nox.Session) -> None:
    """Writes the locks anew; ``nox -s lock -- --upgrade`` moves versions."""
    session.run("containers/locks/lock.sh", *session.posargs, external=True)


@nox.session
def config_keys(session: nox.Session) -> None:
    """Writes what a model's configs may say, after the libraries' versions have moved."""
    for module in ("support.config_keys", "support.checkpoint_shapes"):
        session.run("python", "-m", module, env={"PYTHONPATH": "service/src:tests"})


@nox.session
def catalogue(session: nox.Session) -> None:
    """Reads package versions and digests that rows leave open, where the vendor can be reached."""
    session.run(
        "python",
        "ansible/catalogue/refresh.py",
        *session.posargs,
        env={"PYTHONPATH": "ansible/collections"},
        success_codes=[0, 1],
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Figures with hardware and versions; see service/benchmarks/README.md."""
    session.run(
        "python",
        "-m",
        "benchmarks",
        *session.posargs,
        env={"PYTHONPATH": "service:service/src:tests:ansible/collections"},
    )
