"""Looking at a page as it is drawn: what axe finds, what is cut off, what a board lists, what the console said."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Locator, Page

SHOTS = Path(__file__).resolve().parents[3] / "artifacts" / "pages"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
SERIOUS = ("serious", "critical")


def findings(page: Page, *rules: str) -> list[tuple[str, str]]:
    """What axe finds serious, with the first element that has it; by some rules alone, or all.

    Only that is fetched from the browser: to fetch all that passed takes longer than to find it.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"]} | ({"runOnly": {"type": "rule", "values": rules}} if rules else {})
    found: list[tuple[str, str, str]] = page.evaluate(
        """(options) => axe.run(options).then(
            ({violations}) => violations.map((one) => [one.id, one.impact, one.nodes[0].html]))""",
        options,
    )
    return [(rule, html) for rule, impact, html in found if impact in SERIOUS]


def cut_off(page: Page) -> list[str]:
    """The page itself and every table in it, where it is wider than what is seen of it; but models side by side, which
    scroll beside their names."""
    found: list[str] = page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll(".scroll:not(:has(.compared))")]
            .filter((part) => part.scrollWidth > part.clientWidth + 1)
            .map((part) => part.getAttribute("aria-label") || part.tagName)"""
    )
    return found


def listen(page: Page, said: list[str]) -> None:
    """Add to the list what the page says to the console from now on, errors that nobody caught too."""
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))


def names(page: Page) -> list[str]:
    """The models of the board, in its order."""
    return page.locator("table.board").first.locator("tbody th .named > a:first-of-type").all_inner_texts()


def follow(page: Page, target: str | Locator) -> None:
    """Click what leads to another page, and go on once that is there: a click may return before the way begins."""
    with page.expect_navigation():
        page.click(target) if isinstance(target, str) else target.click()


def unfold(page: Page, part: str) -> None:
    """What is folded on a phone lies open on a desk, or is folded on both."""
    page.wait_for_load_state()  # before its style sheets are there, all is unfolded and folded by the browser's own
    summary = page.locator(f"{part} > summary")
    if summary.is_visible() and page.get_attribute(part, "open") is None:
        summary.click()


def keep(page: Page, name: str) -> None:
    """A picture of what is seen, among the artifacts."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


@dataclass(frozen=True)
class Reader:
    """Somebody at a board."""

    page: Page
    site: str
    has_scripts: bool
    is_phone: bool

    def open(self, path: str) -> None:
        self.page.goto(self.site + path)

    def choose(self, part: str, choice: Callable[[Page], None]) -> None:
        """Change something in a folded part of the form: it applies by itself, or without scripts by its button."""
        unfold(self.page, part)
        if not self.has_scripts:
            choice(self.page)
        with self.page.expect_navigation():
            choice(self.page) if self.has_scripts else self.page.click("text=Apply")

    def look_for(self, text: str) -> list[str]:
        """The models that a search finds."""
        self.page.fill("input[name=q]", text)
        with self.page.expect_navigation():
            self.page.press("input[name=q]", "Enter")
        return self.names

    @property
    def names(self) -> list[str]:
        return [name.rsplit("/", 1)[-1] for name in names(self.page)]

    def column(self, title: str) -> list[str]:
        """What stands in a column, row by row, without the small print."""
        head = self.page.locator("table.board").first.locator("thead th").all_text_contents()
        place = next(number for number, text in enumerate(head, 1) if text.split(" ")[0] == title)
        cells = self.page.locator("table.board").first.locator(f"tbody tr > :nth-child({place})").all_text_contents()
        return [cell.split(" ")[0].split("±")[0] for cell in cells]
