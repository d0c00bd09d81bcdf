"""Makes the project's own virtual environment from the pinned requirements, and says what it does while it does it.

    python3 deploy/environment.py [--dev] [--set auto|cpu|cuda] [--folder .venv]

Plain Python, run by `make` before anything is installed. It never installs into the Python that runs it, and never
puts the CUDA build of torch on a machine without an NVIDIA GPU. A finished step is remembered by the digest of what it
installed, so a second run starts nothing; an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.narrator import Narrator, every_second, telling  # noqa: E402  # it imports the standard library alone

REQUIREMENTS = ROOT / "deploy" / "requirements"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index: the only one that has the CPU build for Linux."""

GIGABYTE = 1024**3


class Need(NamedTuple):
    """What a set costs: measured with Python 3.11 on x86-64 for `cpu`, added up from published sizes for `cuda`."""

    disk: int
    download: str
    what: str


NEEDS = {
    "cpu": Need(7 * GIGABYTE, "about 1.3 GB", "vLLM for the CPU"),
    "cuda": Need(20 * GIGABYTE, "about 6 GB", "vLLM for NVIDIA GPUs (CUDA 13)"),
}
MEMORY = 6 * GIGABYTE
PROCESSES = ("orchestrator.control", "submissions.entry", "submissions.cli.look", "submissions.site", "workers.app")
"""What commands and processes of the hub begin with."""


class Missing(Exception):
    """Something that this machine lacks; the text is a sentence with the next step."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Make Evalyard's virtual environment.")
    parser.add_argument("--dev", action="store_true", help="with what tests and checks need")
    parser.add_argument("--set", choices=("auto", "cpu", "cuda"), default="auto", help="which vLLM (default: by GPU)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv")
    options = parser.parse_args()
    try:
        which = nvidia_set() if options.set == "auto" else options.set
        environment = Environment(options.folder.absolute(), which)
        steps = environment.steps(dev=options.dev)
        if all(environment.has(name) for name, _ in steps):
            return 0
        requirements(which, environment)
        environment.make(steps)
    except Missing as missing:
        print(f"evalyard: {missing}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nevalyard: stopped. Run the same command again to go on from here.", file=sys.stderr)
        return 130
    return 0


def nvidia_set() -> str:
    """`cuda` where the driver shows a GPU, else `cpu`."""
    try:
        seen = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if seen.returncode == 0 and "GPU 0" in seen.stdout else "cpu"


def requirements(which: str, environment: Environment) -> None:
    """Say what is needed and what was found; raise Missing at the first thing that is not there."""
    need = NEEDS[which]
    print("Evalyard sets up an environment of its own. It needs:")
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    require("Python 3.11 or newer", python, sys.version_info >= (3, 11), "Install it and run PYTHON=python3.11 make ….")
    system = f"{platform.system()} {platform.machine()}"
    machines = ("x86_64",) if which == "cuda" else ("x86_64", "aarch64")
    require(
        f"Linux on {' or '.join(machines)}", system,
        platform.system() == "Linux" and platform.machine() in machines,
        "vLLM has no packages for this platform: use a Linux machine or a Linux container.",
    )  # fmt: skip
    libc, version = platform.libc_ver()
    known = libc == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= (2, 28)
    require(
        "glibc 2.28 or newer", f"{libc or 'another libc'} {version}", known, "Use a newer Linux, such as Debian 12."
    )
    if which == "cpu" and platform.machine() == "x86_64":
        flags = cpu_flags()
        shown = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "neither"
        require(
            "a CPU with AVX2 or AVX-512", shown, "avx2" in flags or "avx512f" in flags, "Use a CPU of 2013 or later."
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    require(f"{size(MEMORY)} of memory", size(memory), memory >= MEMORY, "Use a machine with more memory.")
    folder = environment.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    done = used(environment.folder)
    disk = max(need.disk - done, GIGABYTE)
    require(f"{size(disk)} free on disk", size(free), free >= disk, f"Make room on the disk of {environment.folder}.")
    try:
        import ensurepip
        import venv

        del ensurepip, venv
        complete = True
    except ImportError:
        complete = False
    require(
        "Python's venv and pip", "found" if complete else "not found", complete,
        "Install the package that carries them (on Debian and Ubuntu: python3-venv).",
    )  # fmt: skip
    if which == "cuda":
        compiler, headers = compiler_found()
        require(
            "a C compiler and Python's header files",
            f"{compiler or 'no compiler'}, {headers or 'no Python.h'}",
            bool(compiler and headers),
            "vLLM compiles kernels for GPUs: install them (on Debian and Ubuntu: gcc python3-dev).",
        )
    print(f"  It downloads {need.download} with pip: {need.what}. Nothing outside {environment.folder} changes.")


def compiler_found() -> tuple[str, str]:
    """The C compiler that Triton would call, and Python.h of the Python that runs this; empty where there is none."""
    wanted = filter(None, (os.environ.get("CC"), "clang", "gcc", "cc"))
    compiler = next((found for name in wanted if (found := shutil.which(name))), "")
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    return compiler, str(header) if header.is_file() else ""


def require(what: str, found: str, fulfilled: bool, advice: str) -> None:
    print(f"  {'ok' if fulfilled else '--'}  {what} ({found})", flush=True)
    if not fulfilled:
        raise Missing(f"this machine lacks {what}: found {found}. {advice}")


def say(line: str) -> None:
    print(line, flush=True)


def cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def size(bytes_: int) -> str:
    return f"{bytes_ / GIGABYTE:.0f} GB"


def used(folder: Path) -> int:
    """Bytes already in the environment, cheaply: a finished torch says that most of it is there."""
    return 3 * GIGABYTE if any(folder.glob("lib/python*/site-packages/torch")) else 0


class Environment:
    """A virtual environment and the steps that fill it; `stamp.json` inside says which are done."""

    def __init__(self, folder: Path, which: str) -> None:
        self.folder = folder
        self.which = which
        self.python = folder / "bin" / "python"
        self.stamp = folder / "evalyard-stamp.json"
        self.digests: dict[str, str] = {}

    def steps(self, *, dev: bool) -> list[tuple[str, list[Path]]]:
        """Names of the steps in order, with the files that each installs."""
        steps = [("torch", [REQUIREMENTS / "torch-cpu.txt"])] if self.which == "cpu" else []
        steps.append(("packages", [REQUIREMENTS / f"{self.which}.txt"]))
        if dev:
            steps.append(("tools for tests", [REQUIREMENTS / "dev.txt"]))
        steps.append(("evalyard", [ROOT / "pyproject.toml"]))
        for name, files in steps:
            digest = hashlib.sha256(f"{self.which} {sys.version_info[:2]} {ROOT}".encode())
            for file in files:
                digest.update(file.read_bytes())
            self.digests[name] = digest.hexdigest()
        return steps

    def has(self, step: str) -> bool:
        if not self.python.exists() or not self.stamp.exists():
            return False
        done: dict[str, str] = json.loads(self.stamp.read_text(encoding="utf-8"))
        return done.get(step) == self.digests[step]

    def remember(self, step: str) -> None:
        done = json.loads(self.stamp.read_text(encoding="utf-8")) if self.stamp.exists() else {}
        done[step] = self.digests[step]
        temporary = self.stamp.with_suffix(".tmp")
        temporary.write_text(json.dumps(done, indent=2), encoding="utf-8")
        temporary.replace(self.stamp)

    def make(self, steps: list[tuple[str, list[Path]]]) -> None:
        if not self.python.exists() or not self.same_python():
            with telling(f"Creating {self.folder}", say):
                made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.folder)], check=False)
                if made.returncode:
                    raise Missing(
                        f"Python could not make a virtual environment in {self.folder}, and says why above. Mend that "
                        "(a full disk, a folder of another user) and run the same command again."
                    )
        for name, files in steps:
            if self.has(name):
                continue
            if name == "torch":
                self.install_torch(files[0])
            elif name == "evalyard":
                self.pip("evalyard itself", ["--no-build-isolation", "--editable", str(ROOT)], total=1)
            else:
                # A few old packages are built here: with setuptools of the environment, not one fetched for each.
                pinned = next((line for line in lines(files[0]) if line.startswith("setuptools==")), None)
                if pinned:
                    self.pip("setuptools", [pinned], total=1)
                options = ["--no-build-isolation", "--requirement", str(files[0])]
                self.pip(name, options, total=len(lines(files[0])))
            self.remember(name)
        self.compile(PROCESSES)
        print(f"The environment is ready: {self.folder}", flush=True)

    def compile(self, modules: Sequence[str]) -> None:
        """Have Python keep these modules and all that they import compiled, whatever the shell says.

        Many images set PYTHONDONTWRITEBYTECODE: each command would compile for seconds what it imports. Programs of the
        stages, which import most, are started without that variable.

        Raises:
            Missing: one of them cannot be imported, with the end of Python's own words.
        """
        allowed = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [str(self.python), "-c", f"import {', '.join(modules)}"]
        with telling("Compiling what the commands import", say, quiet_start=True):
            done = subprocess.run(command, cwd=ROOT, env=allowed, capture_output=True, text=True, check=False)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise Missing(
                f"the environment is installed, and Evalyard does not start in it: {why} "
                f"Remove {self.folder} and run the same command again."
            )

    def same_python(self) -> bool:
        ask = [str(self.python), "-c", "import sys; print(sys.version_info[:2])"]
        answer = subprocess.run(ask, capture_output=True, text=True, check=False)
        return answer.stdout.strip() == str(tuple(sys.version_info[:2]))

    def install_torch(self, file: Path) -> None:
        """The pinned CPU build: from what pip is configured with, and only where that has none from PyTorch's index."""
        pinned = lines(file)[0]
        try:
            self.pip(f"{pinned} as pip is configured", [pinned], total=1)
        except NotThere:
            print(f"  {pinned} is not there; asking PyTorch's index of CPU builds.", flush=True)
            try:
                self.pip(f"{pinned} from PyTorch's index", ["--index-url", TORCH_CPU_INDEX, pinned], total=1)
            except NotThere as error:
                raise Missing(
                    f"{pinned} was found neither by pip's configuration nor in PyTorch's index of CPU builds. "
                    "Put its wheel where pip looks (`pip config set global.find-links FOLDER`) and run again."
                ) from error

    def pip(self, what: str, arguments: list[str], *, total: int) -> None:
        """Run pip quietly, with a line that says how far it is.

        Raises:
            NotThere: no index has the package.
            Missing: any other failure, with the end of pip's own words.
        """
        # Python compiles a module when it is first imported: of 30,000 that are installed few ever are.
        command = [str(self.python), "-m", "pip", "install", "--no-deps", "--no-compile", "--no-input",
                   "--disable-pip-version-check", "--progress-bar", "off", *arguments]  # fmt: skip
        log = self.folder / "evalyard-pip.log"
        started = time.monotonic()
        progress = Progress(what, total, self.folder)
        with log.open("a", encoding="utf-8") as out:
            print("$", *command, file=out, flush=True)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert process.stdout is not None
            words: list[str] = []
            try:
                for line in process.stdout:
                    out.write(line)
                    words = [*words[-30:], line.strip()]
                    progress.heard(line)
                process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                progress.end()
        if process.returncode == 0:
            print(f"  {what}: done in {time.monotonic() - started:.0f} s", flush=True)
            return
        told = "\n".join(f"    {line}" for line in words if not line.startswith("WARNING"))
        if "No matching distribution found" in told or "Could not find a version" in told:
            raise NotThere(f"pip found no {what}.\n{told}")
        raise Missing(f"pip could not install {what}. Mend what it says and run again:\n{told}\n  (whole log: {log})")


class NotThere(Missing):
    """No index that pip asked has the package."""


class Progress:
    """One line on a terminal, or one after each silence elsewhere: fetched x of y, installed x of y."""

    def __init__(self, what: str, total: int, folder: Path) -> None:
        self.what, self.total, self.folder = what, total, folder
        self.fetched = 0
        self.name = ""
        self.installing = 0
        self.there_before = 0
        self.over = threading.Event()
        self.live = sys.stdout.isatty()
        self.thread = threading.Thread(target=self.show, daemon=True)
        self.thread.start()

    def heard(self, line: str) -> None:
        if line.startswith(("Collecting ", "Requirement already satisfied: ")):
            self.fetched += 1
            self.name = line.split(": " if ": " in line else " ", 1)[1].split()[0]
        elif line.startswith("Installing collected packages: "):
            self.there_before = self.count()
            self.installing = line.count(",") + 1

    def count(self) -> int:
        return sum(1 for _ in self.folder.glob("lib/python*/site-packages/*.dist-info"))

    def stand(self) -> str:
        if self.installing:
            done = min(max(self.count() - self.there_before, 0), self.installing)
            return f"installed {done} of {self.installing}"
        return f"fetched {min(self.fetched, self.total)} of {self.total} {self.name}"

    def show(self) -> None:
        if not self.live:
            narrator, line = Narrator(say), f"  {self.what}: "
            narrator.tell({0: line}, details={0: self.stand()})
            with every_second(lambda: narrator.tell({0: line}, at_work=0, details={0: self.stand()})):
                self.over.wait()
            return
        while not self.over.wait(0.5):
            print(f"\r{f'  {self.what}: {self.stand()}'[:100]:<100}", end="", flush=True)

    def end(self) -> None:
        self.over.set()
        self.thread.join()
        if self.live:
            print(f"\r{'':<100}\r", end="", flush=True)


def lines(file: Path) -> list[str]:
    """The requirements of a file, without comments."""
    content = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in content if line and not line.startswith("#")]


if __name__ == "__main__":
    sys.exit(main())
