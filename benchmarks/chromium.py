"""How soon a board can be read in a browser, on a laptop that is neither new nor near: used by `benchmarks.board`.

Chromium, headless, with nothing in its cache: a processor 4 times slower than this one, 10 Mbit/s, 40 ms. Readable is
when the largest part of what is first seen has been painted (largest contentful paint), with rows of the board in it.
"""

import shutil
from collections.abc import Sequence
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

SLOWER = 4
BITS_PER_SECOND = 10e6
LATENCY_MILLISECONDS = 40
LOOKS = 100
WINDOWS = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
WATCH = """
window.painted = 0;
new PerformanceObserver((list) => { for (const one of list.getEntries()) window.painted = one.startTime; })
  .observe({ type: "largest-contentful-paint", buffered: true });
"""
MEASURED = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const all = [page, ...performance.getEntriesByType("resource")];
  return [
    window.painted, page.domContentLoadedEventEnd, all.reduce((sum, one) => sum + one.encodedBodySize, 0),
    document.querySelectorAll("table.board tbody tr").length,
  ];
}"""


class View(NamedTuple):
    """One page as one reader first sees it."""

    readable: float
    """Seconds since it was asked for."""
    loaded: float
    """Seconds until its document and scripts were there."""
    size: int
    """Bytes as they came, compressed, of the page and all it loads."""


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


def look(base: str, addresses: Sequence[str], *, rounds: int) -> dict[str, list[View]]:
    """Views of each address in each window, by `window address`; the first of each is not counted."""
    found: dict[str, list[View]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for number in range(rounds + 1):
            for window in WINDOWS:
                for address in addresses:
                    view = _view(browser, base + address, window)
                    if number:
                        found.setdefault(f"{window} {address}", []).append(view)
        browser.close()
    return found


def _view(browser: Browser, url: str, window: str) -> View:
    context = browser.new_context(viewport=WINDOWS[window])  # type: ignore[arg-type]  # width and height, as it wants
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    rate = BITS_PER_SECOND / 8
    devtools.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": LATENCY_MILLISECONDS, "downloadThroughput": rate, "uploadThroughput": rate},
    )
    page.add_init_script(WATCH)
    page.goto(url, wait_until="networkidle")
    for _ in range(LOOKS):  # what was painted is told a little later
        painted, loaded, size, rows = page.evaluate(MEASURED)
        if painted:
            break
        page.wait_for_timeout(100)
    context.close()
    assert rows > 0, f"{url} shows no rows"
    assert painted > 0, f"{url} was never painted"
    return View(painted / 1000, loaded / 1000, int(size))
