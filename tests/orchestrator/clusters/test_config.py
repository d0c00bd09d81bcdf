"""The clusters file: what it says, and that a mistake in it is a sentence."""

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.clusters.config import KubernetesSettings, SlurmSettings, read_clusters, read_hub_clusters
from orchestrator.errors import SettingsError
from orchestrator.settings import HubSettings

ROOT = Path(__file__).parents[3]

SLURM = {"name": '"a"', "partition": '"p"', "logs": '"/logs"', "command": '["python"]'}
KUBERNETES = {"name": '"a"', "image": '"x"'}


def entry(kind: str, **fields: str) -> str:
    given = (SLURM if kind == "slurm" else KUBERNETES) | fields
    return f"[[{kind}]]\n" + "".join(f"{name} = {value}\n" for name, value in given.items() if value)


def read(tmp_path: Path, text: str) -> tuple[object, ...]:
    path = tmp_path / "clusters.toml"
    path.write_text(text)
    return read_clusters(path)


def test_the_shipped_example_is_a_clusters_file():
    (found,) = read_clusters(ROOT / "deploy" / "slurm" / "clusters.example.toml")
    assert isinstance(found, SlurmSettings)
    assert (found.gpu, found.until_idle, found.time_limit) == ("gpu:a100", timedelta(minutes=5), timedelta(hours=12))
    assert (found.limits.leave_free, found.memory) == (1, 64 * 10**9)


def test_both_kinds_stand_in_one_file(tmp_path: Path):
    found = read(tmp_path, entry("slurm", until_idle='"90s"') + entry("kubernetes", name='"b"'))
    assert [type(one) for one in found] == [SlurmSettings, KubernetesSettings]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[slurm]", "is no TOML"),
        ("[slurm]\nname = 'a'", "begin each cluster with"),
        ("[[pbs]]\nname = 'a'", "found 'pbs'"),
        (entry("slurm") * 2, "two clusters are named a"),
        (entry("slurm", partition=""), "slurm 'a': partition is missing"),
        (entry("slurm", most_worker="3"), "there is no setting most_worker. Did you mean most_workers?"),
        (entry("slurm", until_idle="300"), "300 is no span: write it as 90s, 10m, 12h or 2d"),
        (entry("slurm", name='"A_1"'), "take lower-case letters"),
        (entry("slurm", gpu='"a100"'), "write `gpu`, or with a type"),
        (entry("slurm", partition='"p --uid=0"'), "take one name"),
        (entry("slurm", logs='"logs"'), "give an absolute path"),
        (entry("slurm", options='["-C", "a100"]'), "as --name or --name=value"),
        (entry("slurm", options='["--requeu"]'), "--requeu is the launcher's own"),
        (entry("slurm", options='["--comment=x"]'), "--comment is the launcher's own"),
        (entry("slurm", pass_on='["A B"]'), "is no name of a variable"),
        (entry("slurm", gpus="0"), "gpus: Input should be greater than"),
        (entry("kubernetes", pass_on='["HF_TOKEN"]'), "Put it into the Secret"),
        (entry("kubernetes", api='"http://10.0.0.1:8080"'), "give an address with https://"),
        (entry("kubernetes", namespace='"../default"'), "is no name of a Kubernetes object"),
    ],
)
def test_a_mistake_is_a_sentence_that_names_it(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert sentence in str(caught.value)
    assert str(tmp_path / "clusters.toml") in str(caught.value)


def test_the_file_in_the_data_folder_counts_where_none_is_named(tmp_path: Path):
    assert read_hub_clusters(HubSettings(data=tmp_path)) == ()
    (tmp_path / "clusters.toml").write_text(entry("slurm"))
    (found,) = read_hub_clusters(HubSettings(data=tmp_path))
    assert found.name == "a"
    other = tmp_path / "other.toml"
    other.write_text(entry("slurm", name='"other"'))
    (found,) = read_hub_clusters(HubSettings(data=tmp_path, clusters=other))
    assert found.name == "other"
