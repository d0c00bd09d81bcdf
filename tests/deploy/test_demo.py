"""What the demo says while it works, and when it takes its models for built."""

import subprocess
import sys
from pathlib import Path

from deploy.demo import TRAINED, UNTRAINED, are_built
from deploy.environment import Progress
from orchestrator.narrator import SILENCE_SECONDS, Narrator


class Told:
    """A narrator's lines, and the clock that it looks at."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 100.0
        self.narrator = Narrator(self.lines.append, now=lambda: self.now)

    def after(self, seconds: float, lines: dict[int, str], at_work: int | None) -> list[str]:
        """What is said this long after the last look."""
        self.now += seconds
        before = len(self.lines)
        self.narrator.tell(lines, at_work=at_work)
        return self.lines[before:]


def test_a_line_is_said_once_and_again_with_its_seconds_after_a_silence() -> None:
    told = Told()
    stand = {1: "1 a: running, loading", 2: "2 b: waiting"}
    assert told.after(0, stand, 1) == ["1 a: running, loading", "2 b: waiting"]
    assert told.after(SILENCE_SECONDS - 1, stand, 1) == []
    assert told.after(1, stand, 1) == ["1 a: running, loading (10 s)"]
    assert told.after(1, stand, 1) == []
    assert told.after(SILENCE_SECONDS, stand, 1) == ["1 a: running, loading (21 s)"]


def test_whatever_is_said_breaks_the_silence() -> None:
    told = Told()
    told.after(0, {1: "1 a: running", 2: "2 b: queued"}, 1)
    assert told.after(9, {1: "1 a: running", 2: "2 b: preparing"}, 1) == ["2 b: preparing"]
    assert told.after(9, {1: "1 a: running", 2: "2 b: preparing"}, 1) == []
    assert told.after(1, {1: "1 a: running", 2: "2 b: preparing"}, 2) == ["2 b: preparing (10 s)"]


def test_when_nothing_is_at_work_nothing_is_repeated() -> None:
    told = Told()
    told.after(0, {1: "1 a: finished"}, None)
    assert told.after(60, {1: "1 a: finished"}, None) == []


def test_details_follow_a_line_and_are_no_news_by_themselves() -> None:
    told = Told()
    told.narrator.tell({1: "loading"}, at_work=1, details={1: ", 1 of 9"})
    told.now += SILENCE_SECONDS - 1
    told.narrator.tell({1: "loading"}, at_work=1, details={1: ", 2 of 9"})
    told.now += 1
    told.narrator.tell({1: "loading"}, at_work=1, details={1: ", 3 of 9"})
    assert told.lines == ["loading, 1 of 9", "loading, 3 of 9 (10 s)"]


def test_an_installation_says_how_many_packages_are_there(tmp_path: Path) -> None:
    progress = Progress("packages", 2, tmp_path)
    progress.heard("Collecting one==1")
    assert progress.stand() == "fetched 1 of 2 one==1"
    progress.heard("Installing collected packages: one, two")
    assert progress.stand() == "installed 0 of 2"
    for name in ("one", "two"):
        (tmp_path / f"lib/python3.11/site-packages/{name}-1.dist-info").mkdir(parents=True)
    assert progress.stand() == "installed 2 of 2"
    progress.end()


def test_the_set_up_starts_where_nothing_is_installed() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-I", "-S", str(root / "deploy/environment.py"), "--help"]
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_models_are_built_once_both_have_their_card(tmp_path: Path) -> None:
    for name in (UNTRAINED, TRAINED):
        assert not are_built(tmp_path)
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text("# A model")
    assert are_built(tmp_path)


def test_the_demo_speaks_before_it_loads_anything_heavy() -> None:
    program = "import sys, deploy.demo.run; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0
