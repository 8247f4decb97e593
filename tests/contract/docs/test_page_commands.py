"""What pages tell people to type for hosts, proxies and cards: the words are true.

The rest of the blocks is run by tests/integration/test_guide_commands.py; a block that neither of
both knows fails here. What comes of these is proven where the tables say.
"""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from rockiln.cli.main import app
from support.pages import ROOT, blocks, commands, kind_of, of_kind, pages, spans

# What makes a host takes one that is fresh, or a network: option → who runs it, by what words.
HOSTS = {
    "": ("molecule/default/converge.yml", "bootstrap.sh"),
    "--make-bundle": ("molecule/default/converge.yml", "--make-bundle"),
    "--offline": ("molecule/default/converge.yml", "--offline"),
    "--inventory": ("molecule/default/verify.yml", "--inventory"),
    "--runtime": ("tests/integration/test_runtime_process.py", "--runtime"),
}
PLAYBOOKS = {
    "site": "molecule/shared/create_kiln.yml",
    "upgrade": "molecule/upgrade/converge.yml",
    "rollback": "molecule/rollback/converge.yml",
    "reset": "molecule/interrupted/verify.yml",
}


def text_of(path: str) -> str:
    return (ROOT / path).read_text()


@pytest.mark.parametrize("page", pages())
def test_somebody_runs_each_block(page: str) -> None:
    nobodys = [block for block in blocks(page) if kind_of(block) is None]
    assert not nobodys, "support/pages.py says who runs what; a test has to run it"


@of_kind("host")
def test_what_hosts_run(block: str) -> None:
    for command in commands(block):
        program, *words = shlex.split(command)
        following = dict(itertools.pairwise(words))
        if program == "./bootstrap.sh":
            options = [word for word in words if word.startswith("--")]
            usage = subprocess.run(
                [ROOT / program, "--help"], capture_output=True, text=True, check=True
            ).stdout
            assert all(f"  {option} " in usage for option in options)
            path, said = HOSTS[options[0] if options else ""]
            assert said in text_of(path)
        elif program == ".venv/bin/ansible-playbook":
            (playbook,) = [word for word in words if word.endswith(".yml")]
            name = Path(playbook).stem
            assert f"playbook: {name}" in text_of(PLAYBOOKS[name])
            ran = subprocess.run(
                [Path(sys.prefix, "bin", "ansible-playbook"), *words, "--syntax-check"],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert ran.returncode == 0, ran.stdout + ran.stderr
        elif program == "nox":
            session = following.get("-s")
            assert session is None or f"def {session}(" in text_of("noxfile.py")
            if session == "bench":
                function = words[-1].replace("-", "_")
                assert f"def {function}(" in text_of("service/benchmarks/__main__.py")
        elif program == "molecule":
            assert (ROOT / "molecule" / following.get("-s", "default") / "molecule.yml").exists()
        else:
            assert all((ROOT / word).exists() for word in (program, *words) if "/" in word)


@of_kind("inventory")
def test_inventories_set_what_there_is(block: str) -> None:
    known = "\n".join(path.read_text() for path in ROOT.glob("ansible/**/*.yml"))
    for name in yaml.safe_load(block):
        assert re.search(rf"\b{name}\b", known), name


@of_kind("proxy")
def test_what_the_tests_of_https_run(block: str) -> None:
    """nginx takes this very block there, before a service that is set as the line says."""
    tests = text_of("tests/integration/test_tls.py")
    assert "GUIDE.read_text()" in tests
    for value in re.findall(r"ROCKILN_\w+=(\S+)", block):
        assert f'"{value}"' in tests


@of_kind("renewal")
def test_what_a_host_with_https_runs(block: str) -> None:
    """The scenario takes these lines out of the page."""
    pattern = "sed -n '/^    install \\|^    docker exec rockiln-proxy/p' ansible/docs/tls.md"
    assert pattern in text_of("molecule/interrupted/verify.yml")
    assert all(
        line.startswith(("install ", "docker exec rockiln-proxy")) for line in commands(block)
    )


@of_kind("training")
def test_what_takes_a_card_and_an_hour(block: str) -> None:
    if block.startswith("from diffusers"):  # tests/unit/engine compares with such a pipeline
        compile(block, "README.md", "exec")
        return
    found = re.findall(r"python -m training\.(\w+)((?:\\\n|[^\n&])*)", block)
    assert found
    source = "\n".join(path.read_text() for path in ROOT.glob("service/training/*.py"))
    for module, words in found:
        assert (ROOT / "service" / "training" / f"{module}.py").exists()
        for option in re.findall(r"--[a-z-]+", re.sub(r"#.*", "", words)):
            assert f'"{option}"' in source, f"{module} {option}"


@pytest.mark.parametrize("page", pages())
def test_commands_in_the_text_are_commands(page: str) -> None:
    typed = [span.replace("\\|", "|") for span in spans(page) if span.startswith("rockiln ")]
    for span in typed:
        command: Any = typer.main.get_command(app)
        words = shlex.split(span.replace("…", ""))[1:]
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            first, *words = words
            names = first.split("|")
            assert set(names) <= set(command.commands), span
            command = command.commands[names[-1]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in words:
            if word.strip("[]").startswith("-"):
                assert word.strip("[]") in known, span
