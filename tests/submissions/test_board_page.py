"""The board's page: what it says when empty, in which order, and what its links and filters do."""

from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.testclient import TestClient

from orchestrator.board.keeping import freshen
from orchestrator.lifecycle import EvaluationState
from orchestrator.program import program
from submissions.context import Hub
from tests.submissions.factories import DEMO, NOON, add_evaluation
from tests.submissions.pages import page


def test_an_empty_board_guides_to_the_first_submission(client: TestClient) -> None:
    found = page(client, "/?suite=demo")
    assert "Nothing is ranked here yet" in found.text
    assert f"{program()} submit org/name --suite demo --wait" in found.text
    assert "/submit?suite=demo" in found.links


def test_a_board_that_is_still_being_read_comes_by_itself(hub: Hub, client: TestClient) -> None:
    hub.boards.is_kept = True  # but its keeper has not come to it
    answer = client.get("/", headers={"accept-language": "en"})
    assert (answer.status_code, answer.headers["refresh"], answer.headers["retry-after"]) == (503, "2", "2")
    assert "This site has just been started and reads its board" in answer.text
    freshen(hub.boards, hub.engine, hub.suites)
    assert client.get("/").status_code == 200


def test_the_front_page_is_the_suite_with_scores_else_the_one_with_most_to_come(hub: Hub, client: TestClient) -> None:
    demo, v1 = hub.suites["demo"], hub.suites["open-llm-v1"]
    with hub.writing() as session:
        add_evaluation(session, demo, state=EvaluationState.RUNNING)
        add_evaluation(session, demo, state=EvaluationState.RUNNING, waits=True)
        add_evaluation(session, demo, state=EvaluationState.FAILED)
        add_evaluation(session, v1, state=EvaluationState.RUNNING)
    found = page(client, "/")
    assert "Nothing is ranked here yet For this board: 1 running, 1 waiting. See the queue" in found.text
    assert "<title>Evalyard demo" in client.get("/").text
    assert "For other boards: 2 running, 1 waiting. See the queue" in page(client, "/?suite=open-llm-v2").text
    with hub.writing() as session:
        add_evaluation(session, v1, values={"ARC": 1.0})
    assert "<title>Open LLM Leaderboard v1" in client.get("/").text
    assert client.get("/api/v1/board").json()["suite"] == "open-llm-v1"


def test_the_board_shows_ranks_errors_and_what_is_apart(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/second", values={**DEMO, "Sums": 10.0})
        add_evaluation(session, hub.suites["demo"], model="acme/first", values=DEMO)
        add_evaluation(session, hub.suites["demo"], model="acme/trial", values=DEMO, limit=3)
    found = page(client, "/")
    assert found.text.index("acme/first") < found.text.index("acme/second") < found.text.index("Not ranked")
    assert found.text.index("Not ranked") < found.text.index("acme/trial")
    assert "60.00 ±0.58" in found.text
    assert "A trial: at most 3 documents of each task." in found.text
    assert "/evaluations/2#Letters" in found.links
    assert any("format=csv" in link for link in found.links)
    assert "Every number links to its evidence" in found.text
    assert "Every number" not in page(client, "/?suite=open-llm-v2").text


def test_the_board_is_sorted_and_filtered_by_links_alone(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/a", values=DEMO, model_type="chat")
        add_evaluation(session, hub.suites["demo"], model="acme/b", values={**DEMO, "Letters": 90.0, "Sums": 0.0})
    by_letters = page(client, "/?suite=demo&sort=Letters&order=down").text
    assert by_letters.index("acme/b") < by_letters.index("acme/a")
    assert "acme/b" not in page(client, "/?suite=demo&type=chat").text
    assert "No row fits these filters" in page(client, "/?suite=demo&q=zzz").text
    assert "acme/a" in page(client, "/?suite=demo&min=1&max=2,5").text
    links = page(client, "/?suite=demo&q=acme&sort=Letters&order=down").links
    assert "/?suite=demo&q=acme&sort=Letters" in links


def test_an_applied_form_with_nothing_chosen_shows_every_row(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/a", values=DEMO, model_type="chat")
        add_evaluation(session, hub.suites["demo"], model="acme/b", values=DEMO)
    form = "/?suite=demo&q={}&type={}&precision={}&min=&max=&show="
    everything = page(client, form.format("", "", "")).text
    assert "2 of 2 ranked evaluations" in everything
    assert "Clear" not in everything
    searched = page(client, form.format("acme/b", "", "")).text
    assert "acme/b" in searched
    assert "acme/a" not in searched
    assert "1 of 2 ranked evaluations" in page(client, form.format("", "chat", "bfloat16")).text


def test_the_api_takes_the_pins_that_a_page_takes(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        for number in range(3):
            add_evaluation(session, hub.suites["demo"], model=f"acme/m{number}", values=DEMO)
    for query in ("pin=3,1", "pin=3&pin=1&pin=3", "pin=&pin=3,,1"):
        assert client.get(f"/?{query}").text.count('<tr class="pinned">') == 2
        assert [row["evaluation"] for row in client.get(f"/api/v1/board?{query}").json()["pinned"]] == [3, 1]
    assert client.get("/api/v1/board?pin=3,x").json()["detail"] == "pin: 'x' is no whole number."


def test_a_result_of_the_future_makes_no_link_to_a_board_that_still_changes(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/past", values=DEMO, at=NOON.replace(year=2020))
        add_evaluation(session, hub.suites["demo"], model="acme/misdated", values=DEMO, at=NOON.replace(year=2900))
    (link,) = (one for one in page(client, "/").links if "&at=" in one)
    assert datetime.fromisoformat(parse_qs(link)["at"][0]) <= datetime.now(UTC)
    assert "acme/past" in page(client, link).text


def test_filters_are_folded_away_unless_one_is_set(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    assert '<details class="more"><summary>Filters</summary>' in client.get("/?suite=demo&q=acme").text
    set_some = client.get("/?suite=demo&type=chat&min=1&precision=").text
    assert '<details class="more" open><summary>Filters <span class="count">2</span></summary>' in set_some
