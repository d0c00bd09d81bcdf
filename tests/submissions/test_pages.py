"""The pages' facts: what a reader finds on each, with no JavaScript and whatever strangers wrote."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.program import program
from orchestrator.tables import Job, Score
from orchestrator.wire import FailureKind
from submissions import words
from submissions.context import Hub
from submissions.sample import present
from tests.submissions.factories import add_evaluation, add_worker, choice_sample, keep_samples

DEMO = {"Letters": 80.0, "Stories": 60.0, "Sums": 40.0}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Text, links and form fields of a page; stops at a tag that is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.labels: set[str] = set()
        self.inputs: list[dict[str, str | None]] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag == "a":
            self.links.append(facts.get("href") or "")
        if tag == "label" and facts.get("for"):
            self.labels.add(facts["for"] or "")
        if tag in ("input", "select") and facts.get("type") != "hidden":
            self.inputs.append(facts)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def page(client: TestClient, path: str, *, status: int = 200) -> Page:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


def test_an_empty_board_guides_to_the_first_submission(client: TestClient) -> None:
    found = page(client, "/?suite=demo")
    assert "Nothing is ranked here yet" in found.text
    assert f"{program()} submit org/name --suite demo --wait" in found.text
    assert "/submit?suite=demo" in found.links


def test_the_front_page_is_the_suite_with_scores_else_the_one_with_most_to_come(hub: Hub, client: TestClient) -> None:
    demo, v1 = hub.suites["demo"], hub.suites["open-llm-v1"]
    with hub.writing() as session:
        add_evaluation(session, demo, state=EvaluationState.RUNNING)
        add_evaluation(session, demo, state=EvaluationState.RUNNING, waits=True)
        add_evaluation(session, demo, state=EvaluationState.FAILED)
        add_evaluation(session, v1, state=EvaluationState.RUNNING)
    found = page(client, "/")
    assert (
        "Nothing is ranked here yet 1 evaluation is running and 1 waits for this board: see the queue ." in found.text
    )
    assert "<title>Evalyard demo" in client.get("/").text
    assert "2 evaluations are running and 1 waits for other boards" in page(client, "/?suite=open-llm-v2").text
    with hub.writing() as session:
        add_evaluation(session, v1, values={"ARC": 1.0})
    assert "<title>Open LLM Leaderboard v1" in client.get("/").text
    assert client.get("/api/v1/board").json()["suite"] == "open-llm-v1"


@pytest.mark.parametrize(
    ("running", "waiting", "said"),
    [
        (0, 0, ""),
        (1, 0, "1 evaluation is running"),
        (2, 1, "2 evaluations are running and 1 waits"),
        (1, 2, "1 evaluation is running and 2 wait"),
        (0, 1, "1 evaluation waits"),
        (0, 3, "3 evaluations wait"),
    ],
)
def test_what_is_under_way_is_a_sentence(running: int, waiting: int, said: str) -> None:
    assert words.under_way(running, waiting) == said


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


def test_the_form_has_a_label_for_every_field_and_works_without_scripts(client: TestClient) -> None:
    found = page(client, "/submit?model=acme%2Fx")
    fields = {str(facts["id"]) for facts in found.inputs}
    assert fields == found.labels
    assert fields == {
        "model", "revision", "suite", "model_type", "precision", "chat_template", "limit", "weight_type", "base_model",
        "base_revision",
    }  # fmt: skip
    assert {facts["value"] for facts in found.inputs if facts["id"] == "model"} == {"acme/x"}
    assert "<script" not in client.get("/submit").text


def test_the_form_has_the_cheapest_suite_chosen_unless_another_was_asked_for(client: TestClient) -> None:
    assert re.search(r'<option value="demo" selected>', client.get("/submit").text)
    assert re.search(r'<option value="open-llm-v1" selected>', client.get("/submit?suite=open-llm-v1").text)


def test_a_refused_form_keeps_the_input_and_puts_each_error_at_its_field(client: TestClient, model: Path) -> None:
    given = {"model": str(model), "revision": "v2", "suite": "demo", "limit": "3", "chat_template": "yes"}
    answer = client.post("/submit", data=given)
    assert answer.status_code == 422
    assert re.search(r'id="revision-error">The folder tiny has no revision', answer.text)
    assert 'aria-describedby="revision-error"' in answer.text
    kept = {facts["id"]: facts.get("value") for facts in Page(answer.text).inputs}
    assert (kept["model"], kept["revision"], kept["limit"]) == (str(model), "v2", "3")
    assert client.get("/api/v1/evaluations").json()["evaluations"] == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "Name a model: a Hub id such as org/name"),
        ({"model": "x", "limit": "many"}, "The limit is a whole number of documents"),
        ({"model": "x", "limit": "-1"}, "The limit is a whole number of documents"),
        ({"model": "x", "extra": "1"}, "There is no field &#39;extra&#39;"),
    ],
)
def test_the_form_says_what_a_field_wants(client: TestClient, given: dict[str, str], says: str) -> None:
    answer = client.post("/submit", data=given)
    assert answer.status_code == 422
    assert says in answer.text


def test_an_accepted_form_leads_to_the_evaluation_and_an_equal_one_says_so(client: TestClient, model: Path) -> None:
    given = {"model": str(model), "suite": "demo", "chat_template": "", "limit": ""}
    assert "tiny" in client.post("/submit", data=given).text
    again = client.post("/submit", data=given)
    assert str(again.url).endswith("/evaluations/1?existing=yes")
    assert "An equal evaluation was there already" in again.text


def test_a_waiting_evaluation_says_why_and_can_be_cancelled(client: TestClient, model: Path) -> None:
    client.post("/submit", data={"model": str(model), "suite": "demo"})
    found = client.get("/evaluations/1").text
    assert "No harness worker is connected" in found
    assert '<noscript><meta http-equiv="refresh"' in found
    cancelled = client.post("/evaluations/1/cancel")
    assert "The evaluation is cancelled" in cancelled.text
    assert "Cancel this evaluation" not in cancelled.text


def test_a_cancelled_submission_is_made_again_by_its_link(client: TestClient, model: Path) -> None:
    given = {"model": str(model), "suite": "demo", "precision": "float32", "model_type": "chat", "limit": "7"}
    client.post("/submit", data=given)
    client.post("/evaluations/1/cancel")
    link = next(link for link in page(client, "/evaluations/1").links if link.startswith("/submit?"))
    form = client.get(link).text
    kept = {facts["id"]: facts.get("value") for facts in Page(form).inputs}
    revision = client.get("/api/v1/evaluations/1").json()["revision"]
    assert (kept["model"], kept["revision"], kept["limit"]) == (str(model), revision, "7")
    chosen = set(re.findall(r'<option value="([\w-]+)" selected>', form))
    assert chosen == {"demo", "float32", "chat", "no", "original"}
    again = client.post("/submit", data=dict(parse_qsl(link.partition("?")[2])))
    assert str(again.url).endswith("/evaluations/2")
    first, second = (client.get(f"/api/v1/evaluations/{number}").json() for number in (1, 2))
    same = ("model", "folder", "revision", "precision", "model_type", "chat_template", "limit", "suite")
    assert [first[name] for name in same] == [second[name] for name in same]


def test_a_cancelled_adapter_of_a_mirror_is_submitted_again_on_its_base(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session,
            hub.suites["demo"],
            model="acme/lora",
            state=EvaluationState.CANCELLED,
            sentence="Stopped.",
            folder="/models/acme/lora",
            weight_type="adapter",
            base_model="base",
            base_folder="/somewhere/base",
            base_revision="sha256-b",
            chat_template=True,
        )
    link = next(link for link in page(client, "/evaluations/1").links if link.startswith("/submit?"))
    found = dict(parse_qsl(link.partition("?")[2]))
    assert (found["model"], found["base_model"], found["base_revision"]) == ("acme/lora", "/somewhere/base", "sha256-b")
    assert (found["weight_type"], found["chat_template"]) == ("adapter", "yes")


def test_an_evaluation_whose_infer_job_no_worker_has_is_waiting_everywhere(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], model="acme/moves", state=EvaluationState.RUNNING, requests=(1, 4))
        add_evaluation(session, hub.suites["demo"], model="acme/waits", state=EvaluationState.RUNNING, waits=True)
    queue = page(client, "/queue").text
    assert "1 running, 1 waiting" in queue
    assert queue.index("acme/moves") < queue.index(" Waiting ") < queue.index("acme/waits")
    assert "Running 1 Waiting 1" in page(client, "/submit").text
    waits = client.get("/evaluations/2").text
    assert '<span class="badge waiting">waiting</span>' in waits
    assert "No vllm engine worker is connected" in waits
    assert '<span class="badge running">running</span>' in client.get("/evaluations/1").text


def test_what_failed_is_not_counted_as_prepared_or_scored(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        for number, state in enumerate((EvaluationState.PREPARING, EvaluationState.SCORING), start=1):
            add_evaluation(session, hub.suites["demo"], model=f"acme/m{number}", state=state)
        for job in session.exec(select(Job).where(Job.benchmark == "Sums")):
            job.state, job.failure, job.sentence = JobState.FAILED, FailureKind.DATASET, "It is missing."
            session.add(job)
    assert "0 of 3 benchmarks prepared, 1 failed (0 %)" in page(client, "/evaluations/1").text
    assert "0 of 3 benchmarks scored, 1 failed (0 %)" in page(client, "/evaluations/2").text


def test_a_failed_evaluation_says_why_what_next_and_shows_the_log(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session,
            hub.suites["demo"],
            state=EvaluationState.FAILED,
            failure=FailureKind.OUT_OF_MEMORY,
            sentence="The weights need 20 GB and the device has 8 GB.",
            log_tail="torch.OutOfMemoryError <b>",
        )
    found = page(client, "/evaluations/1").text
    assert "It failed: out of memory" in found
    assert "The weights need 20 GB and the device has 8 GB." in found
    assert "Next: Retry on a worker with more memory" in found
    assert "torch.OutOfMemoryError <b>" in found
    assert "Retry what failed" in found
    assert "The weights need 20 GB" in page(client, "/queue").text
    assert found.count("The weights need 20 GB and the device has 8 GB.") <= 3
    assert "Why Letters, Stories, Sums have no score (out of memory)" in found


def test_a_finished_evaluation_links_every_score_to_its_evidence(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    found = page(client, "/evaluations/1")
    assert "Average60.00" in found.text.replace(" ", "")
    assert {f"/evaluations/1/samples/{name}" for name in DEMO} <= set(found.links)
    assert "lm eval version 0.4.13" in found.text
    assert "lm_eval run --model vllm" in found.text


def test_an_evaluation_without_one_benchmark_says_so_and_can_be_retried(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session, hub.suites["demo"], values={"Letters": 1.0, "Stories": 2.0}, sentence="No score for Sums."
        )
    found = page(client, "/evaluations/1").text
    assert "No score for Sums." in found
    assert "The dataset of Sums is missing." in found
    assert "Retry what failed" in found


def test_provenance_is_words_and_no_dump(hub: Hub, client: TestClient) -> None:
    provenance = {"seed": None, "truncated": False, "gen_kwargs": {}, "identity": {"base": None, "quantised": True}}
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
        for score in session.exec(select(Score).where(Score.metric == "value")):
            score.provenance = provenance
            session.add(score)
    found = page(client, "/evaluations/1").text
    assert "gen kwargs none identity base none quantised yes seed none truncated no" in found
    assert "False" not in found


def test_an_unfinished_evaluation_is_not_spoken_of_as_done(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], state=EvaluationState.RUNNING)
        add_evaluation(session, hub.suites["demo"], model="acme/done", values=DEMO)
    assert "What is evaluated" in page(client, "/evaluations/1").text
    assert "What was evaluated" in page(client, "/evaluations/2").text


def test_a_missing_evaluations_page_leads_on_by_links(client: TestClient) -> None:
    found = page(client, "/evaluations/9", status=404)
    assert "There is no evaluation 9." in found.text
    assert "evalyard " not in found.text
    assert {"/", "/queue"} <= set(found.links)


def test_a_suites_page_names_the_task_of_each_counted_number(client: TestClient) -> None:
    found = page(client, "/suites/open-llm-v2").text
    assert "leaderboard_bbh_navigate : acc_norm, baseline 0.5" in found
    assert "leaderboard_musr_team_allocation : acc_norm, baseline 0.333" in found
    assert "exact_match (strict-match), baseline 0.0021" in page(client, "/suites/open-llm-v1").text


def test_samples_are_browsed_page_by_page(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    records = [choice_sample(number, right=number % 2 == 0) for number in range(12)]
    keep_samples(hub, 1, "Letters", task="demo_letters", records=records)
    first = page(client, "/evaluations/1/samples/Letters")
    assert "Document 0 right" in first.text
    assert "Document 1 wrong" in first.text
    assert "Document 10" not in first.text
    assert "1 to 10 of 12" in first.text
    later = next(link for link in first.links if "offset=10" in link)
    assert "Document 11 wrong" in page(client, f"/evaluations/1/samples/Letters{later}").text


def test_right_and_wrong_samples_are_told_apart_by_links_alone(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    records = [choice_sample(number, right=number % 3 == 0) for number in range(16)]
    keep_samples(hub, 1, "Letters", task="demo_letters", records=records)
    first = page(client, "/evaluations/1/samples/Letters")
    assert "All 16 Right 6 Wrong 10" in first.text
    wrong = page(client, "/evaluations/1/samples/Letters" + next(link for link in first.links if "wrong" in link))
    assert re.findall(r"Document (\d+) (\w+)", wrong.text) == [
        (str(number), "wrong") for number in range(16) if number % 3
    ]
    assert "1 to 10 of 10" in wrong.text
    answer = client.get("/api/v1/evaluations/1/samples/Letters?right=true&offset=2").json()
    assert (answer["total"], [record["doc_id"] for record in answer["records"]]) == (6, [6, 9, 12, 15])


def test_a_sample_is_judged_by_the_metric_that_the_suite_counts(hub: Hub, client: TestClient) -> None:
    suite = hub.suites["open-llm-v1"]
    with hub.writing() as session:
        add_evaluation(session, suite, values={benchmark.name: 1.0 for benchmark in suite.benchmarks})
    endings = ["stay", "a much longer ending of the same story"]
    record = {
        "doc_id": 0,
        "target": "1",
        "arguments": [["He began to", f" {ending}"] for ending in endings],
        "resps": [[["-4.0", "False"]], [["-5.0", "False"]]],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": 0.0,
        "acc_norm": 1.0,
    }
    keep_samples(hub, 1, "HellaSwag", task="hellaswag", records=[record])
    found = page(client, "/evaluations/1/samples/HellaSwag").text
    assert "Document 0 right acc_norm 1.0 (counted) · acc 0.0" in found
    assert "B a much longer ending of the same story target chosen -5.0000 -0.1316" in found
    assert "Target B: a much longer ending of the same story" in found


def test_of_several_filters_the_counted_one_is_shown_and_the_other_is_a_link(hub: Hub, client: TestClient) -> None:
    suite = hub.suites["open-llm-v1"]
    with hub.writing() as session:
        add_evaluation(session, suite, values={benchmark.name: 1.0 for benchmark in suite.benchmarks})
    records = [
        {"doc_id": n, "arguments": [["2 + 2", {}]], "resps": [["It is 4"]], "metrics": ["exact_match"],
         "filter": name, "filtered_resps": [said], "exact_match": right, "target": "#### 4"}
        for name, said, right in [("flexible-extract", "4", 1.0), ("strict-match", "[invalid]", 0.0)] for n in (0, 1)
    ]  # fmt: skip
    keep_samples(hub, 1, "GSM8K", task="gsm8k", records=records)
    found = page(client, "/evaluations/1/samples/GSM8K")
    assert re.findall(r"Document (\d+) (\w+)", found.text) == [("0", "wrong"), ("1", "wrong")]
    assert "read in 2 ways, by filter: flexible-extract , strict-match (the suite counts it)" in found.text
    other = page(client, "/evaluations/1/samples/GSM8K" + next(link for link in found.links if "filter=flex" in link))
    assert re.findall(r"Document (\d+) (\w+)", other.text) == [("0", "right"), ("1", "right")]
    assert "Judged as 4" in other.text
    assert client.get("/api/v1/evaluations/1/samples/GSM8K").json()["total"] == 4


def test_the_end_of_a_long_prompt_is_what_is_seen_first(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    examples = "\n".join(f"Example {number}: yes" for number in range(300))
    record = {"doc_id": 0, "arguments": [[f"{examples}\nThe question?", {}]], "resps": [["yes"]]}
    keep_samples(hub, 1, "Letters", task="demo_letters", records=[record])
    found = page(client, "/evaluations/1/samples/Letters").text
    assert found.index("The question?") < found.index("The whole prompt") < found.index("Example 0: yes")


def test_samples_of_a_filter_that_is_not_there_are_a_404(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(session, hub.suites["demo"], values=DEMO)
    keep_samples(hub, 1, "Letters", task="demo_letters", records=[choice_sample(0)])
    assert "There are: none." in page(client, "/evaluations/1/samples/Letters?filter=x", status=404).text


def test_a_generated_sample_shows_response_target_and_what_was_judged() -> None:
    sample = present(
        {
            "doc_id": 3,
            "target": "7",
            "arguments": [["3 plus 4 equals", {"until": ["\n"]}]],
            "resps": [[" 7 it is"]],
            "filtered_resps": ["7"],
            "filter": "strict",
            "metrics": ["exact_match"],
            "exact_match": 1.0,
        }
    )
    assert (sample.prompt, sample.responses, sample.target) == ("3 plus 4 equals", (" 7 it is",), "7")
    assert (sample.filtered, sample.is_right, sample.choices) == ("7", True, ())


@pytest.mark.parametrize(
    ("target", "choices", "right", "marked"),
    [
        ("1", [" A", " B", " C"], True, 1),  # lm-eval counts choices from zero
        ("2", [" A", " B", " C"], False, 2),
        ("(C)", [" (A)", " (B)", " (C)"], False, 2),
        ("2", [" 2", " 7", " 9"], False, None),  # the text of one choice and the number of another
        ("2", [" 9", " 2", " 7"], True, 1),
        (" left", [" ran", " ran"], False, 0),  # contexts differ: of two choices the one not chosen
        ("unclear", [" A", " B", " C"], False, None),
    ],
)
def test_the_targets_choice_is_marked_where_the_record_says_which(
    target: str, choices: list[str], right: bool, marked: int | None
) -> None:
    record = {
        "target": target,
        "arguments": [["Which?", choice] for choice in choices],
        "resps": [[[str(-0.1 if place == 1 else -2.0), "False"]] for place in range(len(choices))],
        "metrics": ["acc"],
        "acc": float(right),
    }
    found = present(record).choices
    assert [place for place, choice in enumerate(found) if choice.is_target] == ([] if marked is None else [marked])
    assert [choice.is_chosen for choice in found].index(True) == 1


def test_a_metrics_noise_is_rounded_away() -> None:
    record = {"metrics": ["acc", "f1"], "acc": 0.9999999999999994, "f1": [0.12345678, True]}
    assert [(metric.name, metric.value) for metric in present(record).metrics] == [
        ("acc", "1.0"),
        ("f1", "[0.1235, true]"),
    ]


def test_a_record_of_nothing_is_shown_as_nothing() -> None:
    assert present({}).is_right is None
    assert present({"resps": None, "arguments": None, "metrics": None}).prompt == ""


def test_whatever_strangers_wrote_is_escaped_everywhere(hub: Hub, client: TestClient) -> None:
    with hub.writing() as session:
        add_evaluation(
            session, hub.suites["demo"], model=HOSTILE, values=DEMO, licence=HOSTILE, architecture=HOSTILE,
            base_model=HOSTILE, weight_type="adapter", model_type=HOSTILE,
        )  # fmt: skip
        add_evaluation(
            session, hub.suites["demo"], model=HOSTILE, state=EvaluationState.FAILED, failure=FailureKind.ENGINE,
            sentence=HOSTILE, log_tail=HOSTILE,
        )  # fmt: skip
        add_worker(session, HOSTILE, kind="engine", now=datetime.now(UTC), device=HOSTILE)
    record = {**choice_sample(1), "target": HOSTILE, "arguments": [[HOSTILE, HOSTILE]], "resps": [[[HOSTILE]]]}
    keep_samples(hub, 1, "Letters", task="demo_letters", records=[record])
    paths = [
        "/",
        "/evaluations/1",
        "/evaluations/2",
        "/queue",
        "/evaluations/1/samples/Letters",
        "/submit?model=%3Cscript%3Ealert(1)",
    ]
    paths += [f"/?q={HOSTILE}&sort={HOSTILE}&min={HOSTILE}", f"/suites/{HOSTILE}", f"/?suite={HOSTILE}"]
    for path in paths:
        assert "<script>alert" not in client.get(path).text, path
    answer = client.post("/submit", data={"model": HOSTILE, "revision": HOSTILE, "suite": HOSTILE})
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("path", ["/nowhere", "/evaluations/9", "/evaluations/nine", "/suites/none", "/?suite=none"])
def test_what_is_not_there_is_a_page_with_a_way_back(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert "/" in Page(answer.text).links


@pytest.mark.parametrize("path", ["/", "/submit", "/queue", "/suites", "/suites/open-llm-v2", "/api/v1/docs"])
def test_every_page_has_its_landmarks_and_no_inline_style_or_script(client: TestClient, path: str) -> None:
    html = client.get(path).text
    assert html.count("<h1") == 1
    assert '<html lang="en">' in html
    assert 'href="#main"' in html
    assert '<main id="main"' in html
    assert not re.search(r"\sstyle=|\son\w+=|<script>", html)
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
