"""Whether an evaluation is significantly worse than another one: paired over the documents that both have.

A gate fails closed: what cannot be compared is never a pass. The statistics are pure; files are read by `read_strata`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from sqlmodel import Session

from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import NotFound, Refused, WrongState
from orchestrator.statistics import Estimate, chance_of_less, holm, mcnemar_worse, mean, paired_difference
from orchestrator.suite_versions import find_version
from orchestrator.suites import Part, Suite, SuiteBenchmark
from orchestrator.words import count
from submissions.diff import read_entries
from submissions.kept_samples import fetch
from submissions.pairing import Entry, pair
from submissions.reading import evaluations
from submissions.records import EvaluationRecord
from submissions.samples import reading, results_key, sample_files
from submissions.verdicts import Counted

LEAST_DOCUMENTS = 10
"""Of numbers that are not right or wrong: with fewer their mean is not distributed as the test takes it to be."""
Z_95 = 1.959963984540054


class Verdict(StrEnum):
    PASSED = "passed"
    """Not significantly worse, which is not the same as proven as good."""
    REGRESSED = "regressed"
    UNKNOWN = "unknown"
    """It cannot be compared; `sentence` says why."""


class Stratum(NamedTuple):
    """The pairs of one counted number: of each document what it scored now and what in the baseline, 0 to 1."""

    task: str
    weight: float
    """Of its mean in the benchmark's."""
    ours: Sequence[float]
    theirs: Sequence[float]


class Compared(NamedTuple):
    """One benchmark of both, in percentage points, not normalised."""

    benchmark: str
    verdict: Verdict
    sentence: str = ""
    documents: int = 0
    only_ours: int = 0
    """Documents that the baseline has not, and the reverse: they do not count."""
    only_theirs: int = 0
    ours: float | None = None
    theirs: float | None = None
    difference: float | None = None
    low: float | None = None
    """Of the difference's 95 % interval."""
    high: float | None = None
    chance: float | None = None
    """One-sided p of a difference this low where there is none."""
    corrected: float | None = None
    """The same, by Holm for all benchmarks that were compared."""


class Side(NamedTuple):
    """One of the two, as far as the database tells."""

    record: EvaluationRecord
    suite: Suite | None
    keys: Mapping[str, str]
    """Where each benchmark's results are kept."""


class Unpaired(Exception):
    """The two cannot be compared in this benchmark; the text is a sentence."""


def read_side(session: Session, number: int, *, known: Mapping[str, Suite], wanted: Sequence[str]) -> Side:
    """What the database knows of an ended evaluation; `wanted` are benchmarks, all of its suite's where none is named.

    Raises:
        NotFound: there is none of this number, or its suite has no such benchmark.
        WrongState: it has not ended.
    """
    record = evaluations.read_evaluation(session, number)
    if not record.state.is_final:
        raise WrongState(f"Evaluation {number} is {record.state.value}: wait until it has ended (--wait).")
    suite = find_version(session, known, record.suite, record.suite_version)
    if suite is not None:
        for name in wanted:
            suite.benchmark(name)
    keys = {}
    for name in wanted or ([one.name for one in suite.benchmarks] if suite else ()):
        try:
            # Of a confidential data set the statistics are told as its scores are; no sample is.
            keys[name] = results_key(session, number, name, to_show=False)
        except NotFound:
            continue
    return Side(record, suite, keys)


@reading.taken()
def judge(
    store: ArtifactStore, ours: Side, theirs: Side, *, scratch: Path, wanted: Sequence[str], alpha: float
) -> list[Compared]:
    """Every benchmark of the evaluation, or those wanted, against the baseline.

    Raises:
        Refused: there is nothing to compare.
        Busy: too many read samples at this moment.
    """
    suite = ours.suite
    names = list(dict.fromkeys(wanted)) or ([one.name for one in suite.benchmarks] if suite else [])
    if suite is None or not names:
        raise Refused(f"Nothing is known of the suite of evaluation {ours.record.id}, so it cannot be compared.")
    if ours.record.id == theirs.record.id:
        raise Refused("An evaluation is no worse than itself. Name another one as the baseline.")
    found = []
    for name in names:
        try:
            strata, alone = read_strata(store, ours, theirs, suite.benchmark(name), scratch=scratch)
            found.append(compare(name, strata)._replace(only_ours=alone[0], only_theirs=alone[1]))
        except (Unpaired, NotFound) as error:
            found.append(Compared(name, Verdict.UNKNOWN, str(error)))
    return decide(found, alpha=alpha)


def decide(found: Sequence[Compared], *, alpha: float) -> list[Compared]:
    """The verdicts, corrected for being several. Pure."""
    chances = [one.chance for one in found if one.chance is not None]
    corrected = iter(holm(chances))
    decided = []
    for one in found:
        if one.chance is None:
            decided.append(one)
            continue
        p = next(corrected)
        decided.append(one._replace(corrected=p, verdict=Verdict.REGRESSED if p < alpha else Verdict.PASSED))
    return decided


def compare(benchmark: str, strata: Sequence[Stratum]) -> Compared:
    """The statistics of one benchmark's pairs; the verdict is `decide`'s. Pure.

    Right or wrong in a single task is tested exactly (McNemar), all else by the weighted mean of the differences:
    tasks are independent, so that their errors add in quadrature; two numbers of one task see the same documents, so
    theirs add up plainly, which is never too small.

    Raises:
        Unpaired: there is too little to compare.
    """
    pairs = [one for one in strata if one.ours]
    documents = sum(len(one.ours) for one in pairs)
    is_plain = all(value in (0.0, 1.0) for one in pairs for values in (one.ours, one.theirs) for value in values)
    if not pairs or (documents < LEAST_DOCUMENTS and not (is_plain and len(pairs) == 1)):
        raise Unpaired(f"Both have {documents} documents with a number for each, which is too few to compare.")
    by_task: dict[str, float] = defaultdict(float)
    for one in pairs:
        by_task[one.task] += one.weight * (_difference(one).stderr or 0.0)
    stderr = math.hypot(*by_task.values())
    difference = math.fsum(one.weight * _difference(one).value for one in pairs)
    if len(pairs) == 1 and is_plain:
        outcomes = list(zip(pairs[0].ours, pairs[0].theirs, strict=True))
        chance = mcnemar_worse(outcomes.count((1.0, 0.0)), outcomes.count((0.0, 1.0)))
    else:
        chance = chance_of_less(difference, stderr)
    left_out = len(strata) - len(pairs)
    return Compared(
        benchmark=benchmark,
        verdict=Verdict.UNKNOWN,
        sentence=f"{count(left_out, 'counted number')} that no single document has left out." if left_out else "",
        documents=documents,
        ours=100 * math.fsum(one.weight * mean(one.ours).value for one in pairs),
        theirs=100 * math.fsum(one.weight * mean(one.theirs).value for one in pairs),
        difference=100 * difference,
        low=100 * (difference - Z_95 * stderr),
        high=100 * (difference + Z_95 * stderr),
        chance=chance,
    )


def read_strata(
    store: ArtifactStore, ours: Side, theirs: Side, benchmark: SuiteBenchmark, *, scratch: Path
) -> tuple[list[Stratum], tuple[int, int]]:
    """The pairs of each number that the benchmark counts, and how many documents only one of the two has.

    Numbers that no single document has, such as a mean over instructions, are left out where there are others.

    Raises:
        Unpaired: one of the two has no score of it, or not the tasks that it counts.
    """
    for side in (ours, theirs):
        if benchmark.name not in side.keys:
            raise Unpaired(f"Evaluation {side.record.id} has no score of {benchmark.name}.")
    files = tuple(sample_files(store, side.keys[benchmark.name]) for side in (ours, theirs))
    strata: list[Stratum] = []
    alone = [0, 0]
    for part in benchmark.parts:
        counted = Counted(part.metric, part.filter)
        sides = [
            {task: read_entries(fetch(store, key, scratch), counted) for task, key in of_side.items()}
            for of_side in ({task: found[task] for task in _tasks(part, found)} for found in files)
        ]
        if sides[0].keys() != sides[1].keys() or not sides[0]:
            raise Unpaired(f"The two have not the same tasks of {benchmark.name}, so its means are not comparable.")
        is_group = not any(_matches(part, task) for task in sides[0])
        paired = [(task, *_pairs(sides[0][task], sides[1][task], counted)) for task in sides[0]]
        for index in (0, 1):
            alone[index] += sum(one[2][index] for one in paired)
        if is_group:
            # A group's own number weighs its tasks by their documents.
            values = [one for _, found, _ in paired for one in found]
            strata.append(Stratum(part.task, 1.0, *_apart(values)))
        else:
            strata += [Stratum(task, 1.0, *_apart(found)) for task, found, _ in paired]
    known = sum(1 for one in strata if one.ours) or 1
    return [one._replace(weight=1 / known) for one in strata], (alone[0], alone[1])


def _tasks(part: Part, files: Mapping[str, str]) -> list[str]:
    """Tasks whose samples a part counts: those that it names, or all where it names their group."""
    return [task for task in files if _matches(part, task)] or list(files)


def _matches(part: Part, task: str) -> bool:
    return fnmatchcase(task, part.task) and task not in part.except_tasks


def _pairs(
    ours: Sequence[Entry], theirs: Sequence[Entry], counted: Counted
) -> tuple[list[tuple[float, float]], tuple[int, int]]:
    found = pair(
        [one for one in ours if one.filter == counted.filter], [one for one in theirs if one.filter == counted.filter]
    )
    if not found.pairs:
        raise Unpaired("The two have no document in common.")
    values = [(one.a.value, one.b.value) for one in found.pairs]
    return [(a, b) for a, b in values if a is not None and b is not None], (found.only_a, found.only_b)


def _apart(values: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in values], [b for _, b in values]


def _difference(stratum: Stratum) -> Estimate:
    return paired_difference(stratum.ours, stratum.theirs)
