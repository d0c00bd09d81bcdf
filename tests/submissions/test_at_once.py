"""Many submissions of few models at the same moment: one evaluation for each, and everybody is told which."""

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from sqlmodel import select

from orchestrator.tables import Evaluation
from submissions.context import Hub


def test_of_equal_submissions_at_the_same_moment_one_is_queued(server: str, hub: Hub, model: Path) -> None:
    folders = [model]
    for number in range(1, 6):
        folders.append(shutil.copytree(model, model.parent / f"m{number}"))
        config = folders[-1] / "config.json"
        config.write_text(config.read_text().replace("{", f'{{"number": {number},', 1))

    def submit(number: int) -> tuple[int, str, int]:
        folder = str(folders[number % len(folders)])
        answer = httpx.post(
            f"{server}/api/v1/evaluations", json={"model": folder, "suite": "demo"}, trust_env=False, timeout=60
        )
        return answer.status_code, folder, answer.json()["evaluation"]["id"]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(submit, range(36)))
    assert Counter(status for status, _, _ in answers) == {201: 6, 200: 30}
    assert len({(folder, number) for _, folder, number in answers}) == 6
    with hub.reading() as session:
        assert len(session.exec(select(Evaluation)).all()) == 6
