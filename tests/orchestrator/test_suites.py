"""Suites: files are checked with sentences, and scores add up as the published boards say."""

import math
from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestrator.results.values import BenchmarkValue, MissingScore, average, evaluate_benchmark, normalise
from orchestrator.suites import (
    SuiteBenchmark,
    SuiteError,
    UnknownSuite,
    find_suite,
    load_suites,
    read_suite,
)
from orchestrator.wire import ScoreValue

SHIPPED = load_suites()
V1 = SHIPPED["open-llm-v1"]
V2 = SHIPPED["open-llm-v2"]

HEADER = 'name = "ours"\nversion = "1"\ntitle = "Ours"\nharness = "lm_eval 0.4.13"\n'
BENCHMARK = '[[benchmarks]]\nname = "ARC"\ntasks = ["arc_easy"]\nparts = [{ task = "arc_easy", metric = "acc" }]\n'


def score(
    task: str, value: float, *, metric: str = "acc_norm", filter: str = "none", stderr: float | None = 0.01
) -> ScoreValue:
    return ScoreValue(task=task, metric=metric, filter=filter, value=value, stderr=stderr, samples=100)


def suite_file(folder: Path, content: str, *, name: str = "ours.toml") -> Path:
    file = folder / name
    file.write_text(content, encoding="utf-8")
    return file


def sentence_of(folder: Path, content: str) -> str:
    with pytest.raises(SuiteError) as caught:
        read_suite(suite_file(folder, content))
    return str(caught.value)


def test_module_and_folder_of_the_same_name_live_side_by_side() -> None:
    assert set(SHIPPED) == {"demo", "open-llm-v1", "open-llm-v2"}


def test_gpqa_of_sixty_percent_is_46_67() -> None:
    value = evaluate_benchmark(V2.benchmark("GPQA"), [score("leaderboard_gpqa", 0.6)])
    assert round(value.value, 2) == 46.67
    assert value.raw == pytest.approx(60.0)


def test_musr_is_normalised_for_each_subtask_before_the_mean() -> None:
    value = evaluate_benchmark(
        V2.benchmark("MuSR"),
        [
            score("leaderboard_musr", 0.5661),
            score("leaderboard_musr_murder_mysteries", 0.7),
            score("leaderboard_musr_object_placements", 0.4),
            score("leaderboard_musr_team_allocation", 0.6),
        ],
    )
    assert value.value == pytest.approx(35.0)
    assert value.raw == pytest.approx(56.61)


def test_mmlu_pro_of_a_published_model_is_47_88() -> None:
    value = evaluate_benchmark(V2.benchmark("MMLU-Pro"), [score("leaderboard_mmlu_pro", 0.53092, metric="acc")])
    assert round(value.value, 2) == 47.88


def test_ifeval_is_the_mean_of_its_two_strict_metrics() -> None:
    value = evaluate_benchmark(
        V2.benchmark("IFEval"),
        [
            score("leaderboard_ifeval", 0.5, metric="prompt_level_strict_acc"),
            score("leaderboard_ifeval", 0.7, metric="inst_level_strict_acc", stderr=None),
            score("leaderboard_ifeval", 0.9, metric="inst_level_loose_acc"),
        ],
    )
    assert value == BenchmarkValue(value=pytest.approx(60.0), raw=pytest.approx(60.0), stderr=None)


def test_bbh_at_guessing_is_zero_and_perfect_is_a_hundred() -> None:
    bbh = V2.benchmark("BBH")
    assert len(bbh.parts) == 24
    guessing = [score(part.task, part.baseline) for part in bbh.parts]
    perfect = [score(part.task, 1.0) for part in bbh.parts]
    assert evaluate_benchmark(bbh, [*guessing, score("leaderboard_bbh", 0.3)]).value == pytest.approx(0.0)
    assert evaluate_benchmark(bbh, [*perfect, score("leaderboard_bbh", 1.0)]).value == pytest.approx(100.0)


def test_bbh_baselines_are_one_over_the_published_number_of_choices() -> None:
    choices = {part.task.removeprefix("leaderboard_bbh_"): 1 / part.baseline for part in V2.benchmark("BBH").parts}
    assert choices["object_counting"] == pytest.approx(19)
    assert choices["reasoning_about_colored_objects"] == pytest.approx(18)
    assert choices["geometric_shapes"] == pytest.approx(11)
    assert all(abs(count - round(count)) < 1e-9 for count in choices.values())
    assert sum(round(count) for count in choices.values()) == 130


def test_below_guessing_is_zero_and_never_negative() -> None:
    assert normalise(0.1, 0.25) == 0.0
    value = evaluate_benchmark(V2.benchmark("GPQA"), [score("leaderboard_gpqa", 0.2)])
    assert value.value == 0.0


def test_mmlu_of_v1_counts_every_subject_alike_and_no_group() -> None:
    subjects = [score(f"mmlu_subject_{n}", n / 56, metric="acc") for n in range(57)]
    groups = [score(name, 0.9, metric="acc") for name in ("mmlu", "mmlu_stem", "mmlu_other", "mmlu_humanities")]
    value = evaluate_benchmark(V1.benchmark("MMLU"), [*groups, *subjects])
    assert value.value == pytest.approx(50.0)
    assert value.stderr == pytest.approx(100 * math.sqrt(57 * 0.01**2) / 57)


def test_v1_shows_plain_percentages() -> None:
    value = evaluate_benchmark(V1.benchmark("WinoGrande"), [score("winogrande", 0.7719, metric="acc")])
    assert value.value == value.raw == pytest.approx(77.19)


def test_standard_error_is_on_the_scale_of_the_value() -> None:
    value = evaluate_benchmark(V2.benchmark("GPQA"), [score("leaderboard_gpqa", 0.6, stderr=0.03)])
    assert value.stderr == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("published", "columns"),
    [
        (65.71, (63.14, 84.88, 60.78, 68.26, 77.19, 40.03)),
        (65.32, (65.44, 84.16, 74.9, 55.37, 80.11, 31.92)),
        (62.37, (58.79, 82.33, 68.52, 60.38, 73.32, 30.86)),
        (54.08, (55.55, 76.57, 64.11, 41.96, 74.19, 12.13)),
        (22.83, (25.26, 26.55, 24.7, 0.0, 59.43, 1.06)),
        (28.19, (22.1, 32.18, 24.69, 39.05, 51.14, 0.0)),
    ],
)
def test_averages_of_published_rows_come_out_again(published: float, columns: tuple[float, ...]) -> None:
    names = ("ARC", "HellaSwag", "MMLU", "TruthfulQA", "WinoGrande", "GSM8K")
    values = {
        name: BenchmarkValue(value=column, raw=column, stderr=None) for name, column in zip(names, columns, strict=True)
    }
    # Published averages were taken before the columns were rounded: half a hundredth either way, on both.
    assert average(V1, values) == pytest.approx(published, abs=0.0101)


def test_an_average_with_a_benchmark_missing_is_none() -> None:
    value = BenchmarkValue(value=50.0, raw=50.0, stderr=None)
    assert average(V1, {benchmark.name: value for benchmark in V1.benchmarks[:-1]}) is None


def test_a_missing_subject_is_an_error_and_not_another_mean() -> None:
    subjects = [score(f"mmlu_subject_{n}", 0.5, metric="acc") for n in range(56)]
    with pytest.raises(MissingScore, match=r"counts 57 score\(s\) of 'mmlu_\*' .* gave 56"):
        evaluate_benchmark(V1.benchmark("MMLU"), subjects)


def test_nan_is_not_a_score() -> None:
    with pytest.raises(MissingScore, match="not a score"):
        evaluate_benchmark(V2.benchmark("GPQA"), [score("leaderboard_gpqa", math.nan)])


def test_another_filter_of_the_same_metric_is_not_counted() -> None:
    flexible = score("gsm8k", 0.78, metric="exact_match", filter="flexible-extract")
    strict = score("gsm8k", 0.20, metric="exact_match", filter="strict-match")
    assert evaluate_benchmark(V1.benchmark("GSM8K"), [flexible, strict]).value == pytest.approx(20.0)


def test_what_the_harness_needs_of_a_benchmark_crosses_the_wire() -> None:
    wire = V1.benchmark("ARC").as_wire()
    assert (wire.name, wire.tasks, wire.num_fewshot) == ("ARC", ("arc_challenge",), 25)


def test_shots_of_v1_are_the_published_ones() -> None:
    shots = {benchmark.name: benchmark.num_fewshot for benchmark in V1.benchmarks}
    assert shots == {"ARC": 25, "HellaSwag": 10, "MMLU": 5, "TruthfulQA": 0, "WinoGrande": 5, "GSM8K": 5}


def test_a_team_adds_a_suite_by_dropping_a_file(tmp_path: Path) -> None:
    suite_file(tmp_path, HEADER + BENCHMARK)
    suites = load_suites(tmp_path)
    assert find_suite(suites, "ours").benchmark("ARC").tasks == ("arc_easy",)
    assert set(SHIPPED) < set(suites)


def test_an_unknown_suite_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownSuite, match=r"no suite 'open-llm-v3'\. Did you mean 'open-llm-v2'\?"):
        find_suite(SHIPPED, "open-llm-v3")


def test_an_unknown_key_is_refused_with_file_place_and_nearest_key(tmp_path: Path) -> None:
    sentence = sentence_of(tmp_path, HEADER + BENCHMARK.replace("parts", "num_shots = 5\nparts"))
    assert "ours.toml" in sentence
    assert "The key 'num_shots' is not known in benchmarks 1. Did you mean 'num_fewshot'?" in sentence


def test_an_unknown_key_of_a_part_is_the_only_complaint(tmp_path: Path) -> None:
    sentence = sentence_of(tmp_path, HEADER + BENCHMARK.replace('metric = "acc"', 'metric = "acc", base = 0.2'))
    assert "The key 'base' is not known in benchmarks 1, parts 1. Did you mean 'baseline'?" in sentence
    assert "at least" not in sentence


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "The key 'version' is missing." in sentence_of(tmp_path, HEADER.replace('version = "1"\n', "") + BENCHMARK)


def test_a_value_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    sentence = sentence_of(tmp_path, HEADER + BENCHMARK.replace("parts", 'num_fewshot = "five"\nparts'))
    assert "benchmarks 1, num_fewshot: Input should be a valid integer" in sentence


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    assert "ours.toml is not TOML" in sentence_of(tmp_path, "name = ")


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    sentence = sentence_of(tmp_path, HEADER + BENCHMARK + BENCHMARK.replace('"ARC"', '"arc"'))
    assert "the benchmark 'ARC' is there twice" in sentence


def test_a_benchmark_by_whose_name_a_board_ranks_is_refused(tmp_path: Path) -> None:
    sentence = sentence_of(tmp_path, HEADER + BENCHMARK.replace('"ARC"', '"rank"'))
    assert "no benchmark can be called 'rank'" in sentence


def test_a_pattern_without_its_count_is_refused(tmp_path: Path) -> None:
    sentence = sentence_of(tmp_path, HEADER + BENCHMARK.replace('{ task = "arc_easy"', '{ task = "arc_*"'))
    assert "the pattern 'arc_*' needs `count`" in sentence


@pytest.mark.parametrize("harness", ["lm-eval 0.4.13", "lm_eval==0.4.13", "lm_eval", ""])
def test_a_harness_that_no_worker_could_name_is_refused(harness: str, tmp_path: Path) -> None:
    content = HEADER.replace("lm_eval 0.4.13", harness) + BENCHMARK
    assert "write it like lm_eval 0.4.13" in sentence_of(tmp_path, content)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    suite_file(tmp_path, (HEADER + BENCHMARK).replace('"ours"', '"demo"'))
    with pytest.raises(SuiteError, match="both define the suite 'demo'"):
        load_suites(tmp_path)


def test_a_suites_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"does not exist\. Create it or mend EVALYARD_SUITES"):
        load_suites(tmp_path / "nowhere")


def test_every_task_that_a_shipped_suite_counts_is_one_of_lm_evals() -> None:
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        pytest.skip("lm_eval is not installed: the names in the suites stay unchecked")
    folder = Path(spec.origin).parent / "tasks"
    known = _names(folder / "leaderboard") | _names(folder / "mmlu" / "default") | _names(folder / "arc")
    known |= _names(folder / "hellaswag") | _names(folder / "truthfulqa") | _names(folder / "winogrande")
    known |= _names(folder / "gsm8k")
    for suite in (V1, V2):
        for benchmark in suite.benchmarks:
            assert set(benchmark.tasks) <= known
            for part in benchmark.parts:
                assert part.task in known or _matches(benchmark, known) == part.count


def _matches(benchmark: SuiteBenchmark, known: set[str]) -> int:
    (part,) = benchmark.parts
    return len(part.select([score(name, 0.5, metric=part.metric) for name in sorted(known)]))


def _names(folder: Path) -> set[str]:
    """Names of the tasks and groups in lm-eval's task files, without building its index of 14,000."""
    names = set()
    for file in folder.rglob("*.y*ml"):
        for line in file.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip('"') in ("task", "group") and value.strip():
                names.add(value.strip().strip("\"'"))
    return names
