"""Commands that only look: `status`, `queue`, `board`, `suites`."""

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import typer

from orchestrator.program import FIRST_SUBMISSION, program
from submissions import words
from submissions.cli.client import Client, segment
from submissions.cli.follow import exit_code, follow, outcome_sentence
from submissions.cli.numbers import evaluation_number
from submissions.cli.output import answer, answer_json, answer_table, chat, paused_line
from submissions.request import none_of

commands = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]
SuiteName = Annotated[str | None, typer.Option(help="Name of the suite; the one with most results by default.")]


LOG_LINES = 20
"""Of a failed job's log; the page and --json have all that is kept."""


@commands.command()
def status(
    evaluation: Annotated[
        int | None,
        typer.Argument(metavar="ID", help="Number of an evaluation; else the latest ones.", parser=evaluation_number),
    ] = None,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how an evaluation stands, or list the latest ones.

    \b
    evalyard status
    evalyard status 41 --follow
    """
    if follow_it and evaluation is None:
        raise typer.BadParameter(f"Name the evaluation to follow, e.g. {program()} status 41 --follow.")
    client = Client()
    if evaluation is None:
        listed = client.get("/evaluations", limit=20)
        if as_json:
            answer_json(listed)
        elif not listed["evaluations"]:
            answer(f"Nothing has been submitted yet. Begin with: {program()} {FIRST_SUBMISSION}")
        else:
            _answer_rows(listed["evaluations"])
        return
    record = follow(client, evaluation) if follow_it else client.get(f"/evaluations/{evaluation}")
    if as_json:
        answer_json(record)
    else:
        _answer_detail(record, page=client.page(f"/evaluations/{evaluation}"))
    if follow_it:
        raise typer.Exit(exit_code(record))


@commands.command()
def queue(as_json: AsJson = False) -> None:
    """Show what runs, what waits and why, what failed lately, and the workers."""
    found = Client().get("/queue")
    if as_json:
        answer_json(found)
        return
    unfinished = found["running"] + found["waiting"]
    if unfinished:
        _answer_rows(unfinished)
    else:
        answer("The queue is empty.")
    if found["failed"]:
        answer("\nFailed lately:")
        for row in found["failed"]:
            answer(f"  {row['id']} {row['model']}: {row['sentence']} {row['next_step']}".rstrip())
    answer("\nWorkers:" if found["workers"] else "\nNo worker has reported yet.")
    for worker in found["workers"]:
        answer(f"  {_worker_line(worker)}")
        if worker.get("mode_since"):
            how = paused_line(f"worker resume {worker['name']}", by=worker["mode_by"], since=worker["mode_since"])
            answer(f"    {how}")
        if worker["warm"] and worker["is_up"]:
            answer(f"    warm: {', '.join(worker['warm'])}")
        for gpu in worker["gpus"] if worker["is_up"] else ():
            answer(f"    GPU {gpu['index']}: {gpu['sentence']}")
    if found["workers"] and not any(worker["is_up"] for worker in found["workers"]):
        chat(
            "No worker was heard of lately. Where their hosts are up, the hub does not hear them: see at the end of "
            "DATA/logs/control.log whether control process and broker run (docs/faults.md)."
        )


def _worker_line(worker: dict[str, Any]) -> str:
    """`gpu-7 (engine, vllm 0.32.0 NVIDIA H100, 2 of 8 GPUs free to use): up, infer of evaluation 41 (12 %)`."""
    doing = ", ".join(worker["doing"])
    detail = [worker["kind"], " ".join(filter(None, [worker["engine"], worker["device"]]))]
    if not worker["is_up"]:
        heard = words.ago(datetime.fromisoformat(worker["last_heartbeat"]), datetime.now(UTC))
        state = f"down, last heard of {heard}" + (f" with {doing}" if doing else "")
    else:
        state = "up, stopping, " if worker["stopping"] else "up, "
        state += doing or worker["sentence"] or "idle"
        if doing and worker["sentence"]:
            state += f" ({worker['sentence']})"
        if worker["devices"]:
            detail.append(f"{worker['slots']} of {words.count(worker['devices'], 'GPU')} free to use")
    return f"{worker['name']} ({', '.join(filter(None, detail))}): {state}"


@commands.command()
def board(
    suite: SuiteName = None,
    suite_version: Annotated[
        str | None, typer.Option("--suite-version", metavar="VERSION", help="Another version than the shown one.")
    ] = None,
    search: Annotated[str, typer.Option(help="Part of a name; several with ;, fields as @type:chat.")] = "",
    sort: Annotated[str, typer.Option(help="rank, average, model, parameters, date or another column.")] = "rank",
    descending: Annotated[bool, typer.Option("--descending", help="The other way round.")] = False,
    link: Annotated[str, typer.Option(metavar="URL", help="Address of a board's page: show what it shows.")] = "",
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Answer with CSV on standard output.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Answer with a Markdown table.")] = False,
) -> None:
    """Show the board of a suite: who leads, by how much, and what is not ranked.

    \b
    evalyard board --suite open-llm-v2
    evalyard board --csv > board.csv
    evalyard board --link 'http://127.0.0.1:8765/?suite=open-llm-v2&type=chat&max=7'
    """
    if as_json + as_csv + as_markdown > 1:
        raise typer.BadParameter("Choose one of --json, --csv and --markdown.")
    client = Client()
    query: dict[str, Any] = {}
    for name, value in parse_qsl(urlsplit(link).query):
        query.setdefault(name, []).append(value)
    given = {"suite": suite, "version": suite_version, "q": search or None, "order": "down" if descending else None}
    query |= {name: value for name, value in given.items() if value is not None}
    if sort != "rank":
        columns = client.get("/board", suite=query.get("suite"), version=query.get("version"), rows=1)["columns"]
        if sort not in columns:
            raise typer.BadParameter(none_of(sort, columns), param_hint="--sort")
        query["sort"] = sort
    if as_csv or as_markdown:
        text = client.get_text("/board", **query, format="csv" if as_csv else "markdown")
        answer(text.replace("\r\n", "\n").removesuffix("\n") if as_markdown else text.replace("\r\n", "\n"))
        return
    found = client.get("/board", **query)
    if as_json:
        answer_json(found)
        return
    _answer_board(found)


@commands.command()
def suites(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One suite with its benchmarks.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the suites that models can be evaluated under, or show one.

    \b
    evalyard suites
    evalyard suites open-llm-v2
    """
    client = Client()
    if name is None:
        found = client.get("/suites")
        if as_json:
            answer_json(found)
            return
        columns = [("suite", "left"), ("version", "left"), ("benchmarks", "left")]
        rows = [(s["name"], s["version"], ", ".join(b["name"] for b in s["benchmarks"])) for s in found]
        answer_table(columns, rows)
        return
    suite = client.get(f"/suites/{segment(name)}")
    if as_json:
        answer_json(suite)
        return
    answer(
        f"{suite['title']} ({suite['name']} version {suite['version']}, {suite['harness']})\n{suite['description']}\n"
    )
    columns = [("benchmark", "left"), ("harness tasks", "left"), ("shots", "right")]
    rows = [
        (b["name"], ", ".join(b["tasks"]), "" if b["num_fewshot"] is None else str(b["num_fewshot"]))
        for b in suite["benchmarks"]
    ]
    answer_table(columns, rows)
    if len(suite["versions"]) > 1:
        answer("")
        columns = [("version", "left"), ("harness", "left"), ("with an average", "right"), ("", "left")]
        answer_table(
            columns,
            [
                (one["version"], one["harness"], str(one["evaluations"]), "shown" if one["is_shown"] else "")
                for one in suite["versions"]
            ],
        )


def _answer_rows(rows: list[dict[str, Any]]) -> None:
    columns = [
        ("id", "right"),
        ("model", "left"),
        ("suite", "left"),
        ("state", "left"),
        ("average", "right"),
        ("", "left"),
    ]
    answer_table(
        columns,
        [
            (
                str(row["id"]),
                row["model"],
                row["suite"] + (f" (limit {row['limit']})" if row["limit"] else ""),
                words.state(row["state"], row["is_waiting"]),
                words.score(row["average"]),
                row["waiting_because"] or row["progress"]["text"] or row["sentence"],
            )
            for row in rows
        ],
    )


def _answer_detail(record: dict[str, Any], *, page: str) -> None:
    answer(f"Evaluation {record['id']}: {record['model']} at {record['revision']}")
    template = "with" if record["chat_template"] else "without"
    answer(
        f"{record['suite']} version {record['suite_version']}, {record['precision']}, {record['engine']}, "
        f"{template} chat template"
    )
    if imported := record["facts"].get("imported"):
        read_at = words.moment(datetime.fromisoformat(imported["read_at"]))
        answer(f"Imported from {words.shown(imported['source'])}, read {read_at}: these numbers were not made here.")
    if record["state"] in ("finished", "failed", "cancelled"):
        answer(outcome_sentence(record))
    else:
        text = ". ".join(filter(None, [record["progress"]["text"], record["waiting_because"]]))
        answer(f"{words.state(record['state'], record['is_waiting'])}{': ' + text if text else ''}")
    columns = [
        ("benchmark", "left"),
        ("state", "left"),
        ("value", "right"),
        ("± stderr", "right"),
        ("raw", "right"),
        ("samples", "right"),
        ("", "left"),
    ]
    answer("")
    answer_table(
        columns,
        [
            (
                benchmark["name"],
                words.job_state(benchmark["state"]),
                words.score(benchmark["value"]),
                words.score(benchmark["stderr"]),
                words.score(benchmark["raw"]),
                str(benchmark["samples"] or ""),
                benchmark["sentence"],
            )
            for benchmark in record["benchmarks"]
        ],
    )
    if record["state"] == "finished":
        for step in dict.fromkeys(filter(None, (benchmark["next_step"] for benchmark in record["benchmarks"]))):
            answer(f"Next: {step}")
    if record["cost"]["text"]:
        answer(f"\n{record['cost']['text']}")
    for job in record["jobs"]:
        _answer_disturbances(job)
    for job in record["jobs"]:
        _answer_log(job)
    chat(page)


def _answer_log(job: dict[str, Any]) -> None:
    """The end of the log of a job that failed for good."""
    if job["state"] == "failed" and job["log_tail"]:
        answer(f"\nThe log's end of {job['stage']} {job['benchmark']}".strip() + ":")
        for line in job["log_tail"].rstrip().splitlines()[-LOG_LINES:]:
            answer(f"  {line}")


def _answer_disturbances(job: dict[str, Any]) -> None:
    """What went wrong in a job before it ended, or so far: attempts that died and engines that were started again."""
    name = f"{job['stage']} {job['benchmark']}".strip()
    for attempt in job["history"]:
        for sentence in attempt["restarts"]:
            answer(f"  {name} on {attempt['worker']}, within the attempt: {sentence}")
        if attempt["outcome"] not in ("", "completed"):
            began, ended = (datetime.fromisoformat(attempt[one]) for one in ("dispatched_at", "ended_at"))
            when = f"{words.moment(began)}, {words.duration((ended - began).total_seconds())}"
            answer(f"  {name} on {attempt['worker']}, {when}, {attempt['outcome']}: {attempt['sentence']}")


def _answer_board(found: dict[str, Any]) -> None:
    names = found["benchmarks"]
    title = f"{found['title']} (version {found['suite_version']})"
    for note in found["notes"]:
        chat(note)
    if not found["ranked"]:
        command = f"{program()} submit org/name --suite {found['suite']} --wait"
        answer(f"{title}: nothing is ranked yet. Submit a model: {command}")
    else:
        columns = [("#", "right"), ("model", "left"), ("average", "right"), ("±", "right")]
        columns += [(name, "right") for name in names]
        answer_table(
            [*columns, ("size", "right"), ("precision", "left")],
            [
                (
                    str(row["rank"]),
                    row["model"] + "".join(f" [{flag['kind']}]" for flag in row["flags"]),
                    words.score(row["average"]),
                    words.score(row["average_stderr"]),
                    *(words.score(row["benchmarks"].get(name, {}).get("value")) for name in names),
                    words.parameters(row["parameters"]),
                    row["precision"],
                )
                for row in found["ranked"]
            ],
            title=title,
        )
    if found["apart"]:
        answer("\nNot ranked:")
        for row in found["apart"]:
            answer(f"  {row['evaluation']} {row['model']}: {row['apart_because']}")
