"""The interface in another language: which one a reader gets, and that catalogues hold all that pages say."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from gettext import GNUTranslations
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from starlette.testclient import TestClient

from deploy import languages as catalogues
from orchestrator.board.columns import columns_of
from orchestrator.board.request import SIZES
from orchestrator.lifecycle import EvaluationState, JobState, RerunState
from orchestrator.people import Role, Scope, Visibility
from orchestrator.reruns.compare import VerdictKind
from orchestrator.tables.flags import FlagKind
from orchestrator.wire import FailureKind, Stage
from submissions.context import Hub
from submissions.languages import LANGUAGES, gettext
from submissions.languages.choosing import choose
from submissions.languages.present import Spoken, set_present
from submissions.pages import telling
from submissions.pages.board import HIDING
from submissions.pages.rendering import TEMPLATES
from submissions.request import ModelType
from tests.submissions.factories import add_evaluation
from tests.submissions.wording import unwrapped

OTHERS = [code for code in LANGUAGES if code != "en"]
FILES = [path for folder in catalogues.TEMPLATES for path in (Path(catalogues.SUBMISSIONS) / folder).glob("*.html")]


@pytest.fixture(autouse=True)
def _english_after() -> Iterable[None]:
    yield
    set_present(Spoken())


def test_every_text_of_a_template_is_wrapped() -> None:
    found = {str(path): unwrapped(TEMPLATES, path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: texts for name, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("<p>Queue</p>", ["Queue"]),
        ('<p title="Queue">{{ _("Queue") }}</p>', ["Queue"]),
        ('<p class="{{ "on" if x }}">{{ "yes" if x else _("no") }}</p>', ["yes￼"]),
        ('{{ button("pause", "Pause") }}', ["Pause"]),
        ("{% if x %}<p>{{ x }} of 3</p>{% endif %}", ["￼ of 3"]),
        ("{{ _(x) }}", ["_() of what is not constant, which is not escaped"]),
        ('<code>evalyard</code><pre>up</pre>{% trans %}Queue{% endtrans %}<a href="/queue">JSON</a>{{ x }}', []),
    ],
)
def test_what_is_not_wrapped_is_found(source: str, found: list[str]) -> None:
    assert unwrapped(TEMPLATES, source) == found


@pytest.mark.parametrize("code", OTHERS)
def test_every_message_is_translated_with_the_same_places_for_what_is_put_in(code: str) -> None:
    catalogue = catalogues.brought_up_to_date(code)
    assert [message.id for message in catalogues.untranslated(catalogue)] == []
    for message in catalogue:
        if message.id:
            english = message.id if isinstance(message.id, str) else message.id[-1]
            for text in [message.string] if isinstance(message.string, str) else message.string:
                assert _places(text) == _places(english), f"{english!r}: {text!r}"


def _places(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)s|\{\w+\}|<[^>]+>|%%", text))


def test_a_message_without_a_translation_is_found_and_shown_in_english() -> None:
    lacking = Catalog(locale="zh")
    lacking.add("Queue", "队列")
    lacking.add("Board")
    assert [message.id for message in catalogues.untranslated(lacking)] == ["Board"]
    said = GNUTranslations(BytesIO(catalogues.compiled(lacking)))
    assert (said.gettext("Queue"), said.gettext("Board"), said.gettext("never heard")) == (
        "队列",
        "Board",
        "never heard",
    )


@pytest.mark.parametrize("code", OTHERS)
def test_the_catalogues_in_the_repository_are_those_that_the_tool_makes(code: str) -> None:
    source = catalogues.source_of(code)
    assert source.read_bytes() == catalogues.as_text(catalogues.brought_up_to_date(code)), "python -m deploy.languages"
    assert source.with_suffix(".mo").read_bytes() == catalogues.compiled(catalogues.read(code))


def test_every_word_that_pages_take_from_elsewhere_is_in_the_catalogues(hub: Hub) -> None:
    known = {message.id for message in catalogues.messages()}
    columns = [column for column in columns_of(hub.suites["demo"]).values() if not column.benchmark]
    said = {kind.value for kinds in (EvaluationState, JobState, RerunState, Stage, VerdictKind) for kind in kinds}
    said |= {kind.value for kinds in (ModelType, Role, Scope, Visibility) for kind in kinds}
    said |= {kind.value.replace("_", " ").replace("-", " ") for kinds in (FailureKind, FlagKind) for kind in kinds}
    said |= {label for _, _, label in SIZES.values()} | set(HIDING.values())
    said |= {column.title for column in columns if column.key != "rank"}
    said |= {column.hint for column in columns if column.hint and "g/kWh" not in column.hint}
    assert said - known == set()


@pytest.mark.parametrize(
    ("asked", "before", "accepted", "answered"),
    [
        ("", "", "", "en"),
        ("", "", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "", "en-US,en;q=0.9,zh;q=0.8", "en"),
        ("", "", "fr-FR,zh;q=0.5,en;q=0.9", "en"),
        ("", "", "zh;q=0", "en"),
        ("", "", "zh;q=nonsense,*", "en"),
        ("", "en", "zh", "en"),
        ("zh", "en", "en", "zh"),
        ("xx", "", "zh", "zh"),
    ],
)
def test_the_address_wins_over_the_choice_before_and_that_over_the_browser(
    asked: str, before: str, accepted: str, answered: str
) -> None:
    assert choose(asked, before, accepted).code == answered


def test_the_switch_is_a_link_that_keeps_the_page_and_is_remembered(client: TestClient) -> None:
    english = client.get("/queue?said=a%26b")
    assert '<html lang="en">' in english.text
    assert 'href="?said=a%26b&amp;lang=zh"' in english.text
    chosen = client.get("/queue?said=a%26b&lang=zh")
    assert '<html lang="zh-Hans">' in chosen.text
    assert ">队列</" in chosen.text
    assert 'href="?said=a%26b&amp;lang=en"' in chosen.text
    assert "HttpOnly; SameSite=Lax" in chosen.headers["set-cookie"]
    assert {"accept-language", "cookie"} <= set(chosen.headers["vary"].lower().split(", "))
    assert '<html lang="zh-Hans">' in client.get("/suites").text
    back = client.get("/suites?lang=en", headers={"accept-language": "zh"})
    assert '<html lang="en">' in back.text


def test_a_browser_that_asks_for_chinese_gets_the_board_with_its_columns_and_notes_in_chinese(
    hub: Hub, client: TestClient
) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values={one.name: 50.0 for one in hub.suites["demo"].benchmarks})
    found = client.get("/?suite=demo", headers={"accept-language": "zh-CN"})
    assert "set-cookie" not in found.headers
    for text in ("排名", "平均分", "参数量", "共 1 个参与排名的评测"):
        assert text in found.text
    # The language is nothing that the board is asked for.
    assert "已忽略" not in client.get("/?suite=demo&lang=zh").text


def test_the_api_is_english_and_does_not_know_the_parameter(client: TestClient) -> None:
    answer = client.get("/api/v1/evaluations/99?lang=zh", headers={"accept-language": "zh"})
    assert answer.json()["detail"].startswith("There is no evaluation")
    assert "set-cookie" not in answer.headers


def test_times_are_told_in_the_readers_language() -> None:
    now = datetime(2026, 3, 4, tzinfo=UTC)
    assert [telling.ago(now - timedelta(seconds=passed), now) for passed in (1, 700)] == ["just now", "12 min ago"]
    set_present(Spoken(LANGUAGES["zh"]))
    assert [telling.ago(now - timedelta(seconds=passed), now) for passed in (1, 700)] == ["刚刚", "12 分钟前"]
    assert telling.event("job_requeued") == "作业重新入队"
    assert gettext("what nobody has translated") == "what nobody has translated"
