"""Takes the README's picture of a board: `python -m deploy.picture docs/images/board.png`. Needs Chromium.

The board is a real one: rows that the Open LLM Leaderboard published (its first version), brought in by `evalyard
import` and shown by the site itself. That leaderboard published no standard errors: those here are what so many rights
and wrongs have, and the README says so.
"""

import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

from orchestrator.exchange.importer import import_board
from orchestrator.settings import HubSettings
from submissions.context import open_hub
from submissions.site import make_site

COLUMNS = ("Average ⬆️", "ARC", "HellaSwag", "MMLU", "TruthfulQA", "Winogrande", "GSM8K")
DOCUMENTS = {"ARC": 1172, "HellaSwag": 10042, "MMLU": 14042, "TruthfulQA": 817, "Winogrande": 1267, "GSM8K": 1319}
"""Of the data sets' test splits, or of the validation splits that the leaderboard used."""
PUBLISHED = {
    "mistralai/Mistral-7B-Instruct-v0.2": (65.71, 63.14, 84.88, 60.78, 68.26, 77.19, 40.03),
    "01-ai/Yi-34B-Chat": (65.32, 65.44, 84.16, 74.9, 55.37, 80.11, 31.92),
    "Qwen/Qwen1.5-14B-Chat": (62.37, 58.79, 82.33, 68.52, 60.38, 73.32, 30.86),
    "01-ai/Yi-6B": (54.08, 55.55, 76.57, 64.11, 41.96, 74.19, 12.13),
    "KoRWKV-6B": (28.19, 22.1, 32.18, 24.69, 39.05, 51.14, 0.0),
    "dolly-v2-3b": (22.83, 25.26, 26.55, 24.7, 0.0, 59.43, 1.06),
}
KINDS = {
    "mistralai/Mistral-7B-Instruct-v0.2": ("chat", 7),
    "01-ai/Yi-34B-Chat": ("chat", 34),
    "Qwen/Qwen1.5-14B-Chat": ("chat", 14),
    "01-ai/Yi-6B": ("pretrained", 6),
    "KoRWKV-6B": ("pretrained", 6.53),
    "dolly-v2-3b": ("fine-tuned", 3),
}
"""Type and billions of parameters, mostly as the names say."""
PRECISION = "float16"
"""The excerpt at hand does not say it; an import needs one."""
WINDOW = {"width": 1360, "height": 940}


def main() -> int:
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        hub = open_hub(HubSettings(data=Path(folder) / "data"))
        source = Path(folder) / "contents.jsonl"
        rows = [_row(name, dict(zip(COLUMNS, told, strict=True))) for name, told in PUBLISHED.items()]
        source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        done = import_board(hub.engine, hub.suites, str(source), scratch=Path(folder) / "cache")
        assert not done.refused, done.refused
        server = uvicorn.Server(uvicorn.Config(make_site(hub), host="127.0.0.1", port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        _take(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", target)
        server.should_exit = True
        thread.join()
    print(f"{target}: {target.stat().st_size / 1024:.0f} KiB")
    return 0


def _row(name: str, told: dict[str, float]) -> dict[str, object]:
    """A published row; the standard error of a share p of n documents is sqrt(p (1 - p) / (n - 1))."""
    errors = {
        f"{column} stderr": 100 * (told[column] / 100 * (1 - told[column] / 100) / (documents - 1)) ** 0.5
        for column, documents in DOCUMENTS.items()
    }
    kind, size = KINDS[name]
    return {"fullname": name, "Precision": PRECISION, "Type": kind, "#Params (B)": size} | told | errors


def _take(url: str, target: Path) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]  # width and height, as it wants
        page.goto(
            f"{url}/?suite=open-llm-v1&cols=rank&cols=model&cols=average&cols=ARC&cols=HellaSwag&cols=MMLU"
            "&cols=TruthfulQA&cols=WinoGrande&cols=GSM8K"
        )
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
