"""How the command line shows plans to evaluate again. Asks nothing and decides nothing."""

from typing import Any

from orchestrator.program import program
from submissions import words
from submissions.cli.output import answer, answer_json, answer_table, chat


def answer_plans(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        answer_json(found)
        return
    if not found:
        answer(f"Nothing was planned yet. Begin with: {program()} rerun plan --suite open-llm-v2 --harness 0.4.14")
        return
    columns = [("id", "right"), ("suite", "left"), ("from", "left"), ("to", "left"), ("state", "left"), ("", "left")]
    rows = [
        (
            str(one["id"]),
            one["suite"],
            one["from_version"],
            one["to_version"] + (" (shown)" if one["is_shown"] else ""),
            one["state"],
            one["sentence"] or one["summary"],
        )
        for one in found
    ]
    answer_table(columns, rows)


def answer_plan(detail: dict[str, Any]) -> None:
    to = f"{detail['to_version']} ({detail['to_harness']})"
    answer(f"Re-run {detail['id']} of {detail['suite']}: {detail['from_version']} ({detail['from_harness']}) to {to}")
    answer(f"{detail['state']}: {detail['summary']} {detail['sentence']}".rstrip())
    if detail["verdicts"]:
        answer("")
        columns = [("benchmark", "left"), ("evaluations", "left"), ("new requests", "right"), ("", "left")]
        rows = [
            (
                one["benchmark"],
                ", ".join(f"{count} {verdict}" for verdict, count in one["evaluations"].items()),
                f"{one['new_requests']:,} of {one['requests']:,}" if one["requests"] else "nothing to compare",
                " ".join(one["sentences"]),
            )
            for one in detail["verdicts"]
        ]
        answer_table(columns, rows)
    if detail["estimate"]:
        answer("")
        for line in _estimate_lines(detail["estimate"]):
            answer(line)
    for failure in detail["failures"]:
        answer(f"  Evaluation {failure['evaluation']} {failure['model']}: {failure['sentence']}")
    shown = "new" if detail["is_shown"] else "old"
    if detail["started_at"]:
        goal = detail["coverage_goal"]
        by_itself = f", which switches by itself at {words.percent(goal)}" if goal else ""
        answer(f"\nThe board shows the {shown} version{by_itself}.")
    if detail["next_step"]:
        chat(f"Next: {detail['next_step']}")


def _estimate_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{words.count(found['evaluations'], 'evaluation')}: {found['carried']} carry over, {found['scored']} are only "
        f"scored, {found['inferred']} have new requests ({found['new_requests']:,})."
    ]
    measured = found["inferred"] - found["unmeasured"]
    if found["inferred"] and not measured:
        lines.append("Device time is not known: no speed was measured for such models.")
    elif found["inferred"]:
        more = f", without {found['unmeasured']} of sizes that were not measured" if found["unmeasured"] else ""
        lines.append(f"Device time {words.duration(found['device_seconds'])} from measured speeds{more}.")
    more = f", without {found['unmeasured_stages']} stages not measured" if found["unmeasured_stages"] else ""
    weights = found["weight_bytes"] / 1e9
    lines.append(f"CPU time {words.duration(found['cpu_seconds'])}{more}; {weights:.1f} GB of weights to load.")
    return lines
