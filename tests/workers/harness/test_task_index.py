"""Which of lm-eval's tasks may run here, judged from their files alone."""

import re
from pathlib import Path

import pytest

from workers.harness import task_index
from workers.stage import StageFailure

RUNS_TEXT = re.compile(r"^[^#\n]*(?<![\w.])(?:eval|exec|parse_expr|sympify)\(", re.MULTILINE)
KNOWN = {"longproc/metrics.py", "score/math/math_grader.py", "cruxeval/utils.py"}


@pytest.mark.parametrize("name", ["longproc_countdown_2k", "prompt_robustness_math_algebra", "score_robustness_math"])
def test_a_task_that_evaluates_the_answer_of_a_model_is_refused(name: str) -> None:
    index = task_index.read(())
    with pytest.raises(StageFailure, match="runs code that the model generates"):
        task_index.check([name], index)


def test_a_task_that_only_compares_formulas_is_not_refused() -> None:
    index = task_index.read(())
    task_index.check(["minerva_math_algebra"], index)


def test_no_other_task_of_this_lm_eval_evaluates_text() -> None:
    """A new lm-eval may bring more of them: each is looked at, and refused if what it evaluates is an answer."""
    root = task_index.LM_EVAL_TASKS
    found = {
        Path(file).relative_to(root).as_posix() for file in root.rglob("*.py") if RUNS_TEXT.search(file.read_text())
    }
    assert found == KNOWN
