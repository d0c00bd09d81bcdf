"""What Slurm prints is read strictly; the texts are those of a Slurm 22.05, shortened where nothing is lost."""

from datetime import UTC, datetime

import pytest

from orchestrator.clusters.contract import ClusterAway, JobState
from orchestrator.clusters.slurm_text import (
    OTHERS_FORMAT,
    count_gres,
    read_config,
    read_nodes,
    read_others,
    read_own,
    read_partition,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)

NODE = (
    "NodeName=n1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=3 CPUEfctv=8 CPUTot=10 CPULoad=0.97 AvailableFeatures=(null) "
    "Gres={gres} GresDrain=N/A GresUsed={used} NodeAddr=127.0.0.1 Version=22.05.8 OS=Linux 6.18.44 #1 SMP  "
    "RealMemory=8000 AllocMem=1000 FreeMem=21445 Sockets=8 State={state} ThreadsPerCore=1 Partitions=main,scavenger  "
    "BootTime=2026-11-22T03:16:21 CfgTRES=cpu=8,mem=8000M,billing=8 AllocTRES= Reason={reason}"
)


def node(gres: str = "gpu:a100:4", used: str = "gpu:a100:1(IDX:0)", state: str = "MIXED", reason: str = "none") -> str:
    return NODE.format(gres=gres, used=used, state=state, reason=reason) + "\n"


def test_a_node_tells_its_gpus_cores_and_memory_that_are_left():
    (found,) = read_nodes(node(), gpu="gpu:a100")
    assert (found.name, found.partitions) == ("n1", {"main", "scavenger"})
    assert (found.gpus, found.gpus_used, found.cpus_free, found.memory_free) == (4, 1, 5, 7000 << 20)
    assert (found.usable, found.up) == (True, True)


@pytest.mark.parametrize(
    ("state", "usable", "up"),
    [
        ("IDLE", True, True),
        ("MIXED+CLOUD", True, True),
        ("ALLOCATED", False, True),
        ("MIXED+PLANNED", False, True),
        ("IDLE+DRAIN", False, False),
        ("DOWN*", False, False),
        ("IDLE*", False, False),
        ("IDLE+CLOUD+POWERED_DOWN", False, False),
        ("IDLE+MAINTENANCE+RESERVED", False, False),
        ("SOMETHING_NEW", False, False),
    ],
)
def test_only_states_that_are_known_to_be_good_count(state: str, usable: bool, up: bool):
    (found,) = read_nodes(node(state=state), gpu="gpu")
    assert (found.usable, found.up) == (usable, up)


def test_free_text_of_a_node_cannot_pass_for_its_facts():
    (found,) = read_nodes(node(reason="see ticket State=IDLE Gres=gpu:a100:99", state="DOWN"), gpu="gpu:a100")
    assert (found.usable, found.gpus) == (False, 4)


@pytest.mark.parametrize(
    ("text", "gpu", "count"),
    [
        ("gpu:4", "gpu", 4),
        ("gpu:a100:4(S:0-1),gpu:v100:2(S:2,3)", "gpu", 6),
        ("gpu:a100:4(S:0-1),gpu:v100:2(S:2,3)", "gpu:a100", 4),
        ("gpu:a100:4", "gpu:v100", 0),
        ("gres:gpu:2", "gpu", 2),
        ("gres/gpu:a100:2", "gpu:a100", 2),
        ("gres:gpu", "gpu", 1),
        ("gpu:a100", "gpu:a100", 1),
        ("(null)", "gpu", 0),
        ("N/A", "gpu", 0),
        ("nic:2,craynetwork:4", "gpu", 0),
    ],
)
def test_gres_lists_are_counted(text: str, gpu: str, count: int):
    assert count_gres(text, gpu) == count


@pytest.mark.parametrize("text", ["NodeName=n1 State=IDLE\n", "slurm_load_node error\n", node().replace("=3 ", "=x ")])
def test_a_node_that_is_not_understood_is_an_error(text: str):
    with pytest.raises(ClusterAway, match="not understood"):
        read_nodes(text, gpu="gpu")


def test_a_partition_tells_whether_and_how_it_preempts():
    found = read_partition(
        "PartitionName=scavenger AllowGroups=ALL GraceTime=25 Hidden=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=UP"
    )
    assert (found.up, found.grace_seconds, found.preempt_mode) == (True, 25, "REQUEUE")


def test_configuration_is_read_by_name():
    assert read_config("Configuration data as of now\nPrivateData = jobs,nodes\n")["PrivateData"] == "jobs,nodes"


def test_own_jobs_are_those_with_our_mark_whatever_else_they_say():
    text = (
        "7|RUNNING|None|evalyard-aa:0123456789\n"
        "8|PENDING|Resources|evalyard-aa:0000000001\n"
        "9|PREEMPTED|None|evalyard-aa:0000000002\n"
        "10|FAILED|NonZeroExitCode|evalyard-aa:0000000003\n"
        "11|RUNNING|None|evalyard-bb:0123456789\n"
        "12|RUNNING|None|evalyard-aa:0123456789 and more\n"
        "13|RUNNING|None|(null)\n"
        "14|RUNNING|None|a comment of two lines\n"
        "15|which|goes on\n"
    )
    found = {(job.handle, job.launch, job.state, job.sentence) for job in read_own(text, mark="evalyard-aa")}
    assert found == {
        ("7", "0123456789", JobState.RUNNING, ""),
        ("8", "0000000001", JobState.PENDING, "Slurm says Resources."),
        ("9", "0000000002", JobState.ENDED, "Slurm says PREEMPTED."),
        ("10", "0000000003", JobState.ENDED, "Slurm says FAILED (NonZeroExitCode)."),
    }


def test_an_own_job_in_a_state_that_is_not_known_is_an_error():
    with pytest.raises(ClusterAway):
        read_own("7|BRAND_NEW|None|evalyard-aa:0123456789", mark="evalyard-aa")


DEFAULTS = {
    "JobID": "40",
    "Partition": "main",
    "NumNodes": "1",
    "NumTasks": "1",
    "OverSubscribe": "OK",
    "EligibleTime": "2025-12-31T23:59:00",
    "tres-per-job": "N/A",
    "tres-per-node": "N/A",
    "tres-per-socket": "N/A",
    "tres-per-task": "N/A",
    "Reason": "Resources",
}


def waits(**fields: str) -> str:
    """A line of squeue, laid out as its format asks."""
    values = DEFAULTS | {name.replace("_", "-"): value for name, value in fields.items()}
    line = ""
    for column in OTHERS_FORMAT.split(","):
        name, _, width = column.rstrip("|").partition(":.")
        line += values[name][: int(width)].rjust(int(width)) + "|"
    return line + "\n"


def others(text: str, gpu: str = "gpu:a100") -> tuple[int, int]:
    found = read_others(text, own=["99"], partitions=["main", "scavenger"], gpu=gpu, node_gpus=4, now=NOW)
    return found.jobs, found.gpus


@pytest.mark.parametrize(
    ("fields", "gpus"),
    [
        ({"tres_per_job": "gres:gpu:a100:3"}, 3),
        ({"tres_per_job": "gres:gpu:3"}, 3),
        ({"tres_per_job": "gres:gpu"}, 1),
        ({"tres_per_node": "gres:gpu:a100:2", "NumNodes": "3"}, 6),
        ({"tres_per_node": "gres:gpu:2", "NumNodes": "2-4"}, 4),
        ({"tres_per_task": "gres:gpu:1", "NumTasks": "8"}, 8),
        ({"tres_per_socket": "gres:gpu:1"}, 1),
        ({"OverSubscribe": "NO", "NumNodes": "2"}, 8),
        ({"tres_per_job": "gres:gpu:1", "Partition": "other,main"}, 1),
        ({"tres_per_job": "gres:gpu:1", "Reason": "Priority"}, 1),
        ({"tres_per_job": "gres:gpu:1", "Reason": "ReqNodeNotAvail, UnavailableNodes:n7"}, 1),
        ({"tres_per_job": "license:x:1,".ljust(90, "y")}, 1),
    ],
)
def test_a_job_of_others_that_wants_such_gpus_counts(fields: dict[str, str], gpus: int):
    assert others(waits(**fields)) == (1, gpus)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tres_per_job": "gres:gpu:v100:3"},
        {"tres_per_job": "gres:gpu:1", "Partition": "elsewhere"},
        {"tres_per_job": "gres:gpu:1", "JobID": "99"},
        {"tres_per_job": "gres:gpu:1", "Reason": "JobHeldUser"},
        {"tres_per_job": "gres:gpu:1", "Reason": "JobHeldAdmin"},
        {"tres_per_job": "gres:gpu:1", "Reason": "Dependency"},
        {"tres_per_job": "gres:gpu:1", "Reason": "BeginTime"},
        {"tres_per_job": "gres:gpu:1", "Reason": "QOSMaxJobsPerUserLimit"},
        {"tres_per_job": "gres:gpu:1", "Reason": "AssocGrpGRES"},
        {"tres_per_job": "gres:gpu:1", "Reason": "MaxGRESPerAccount"},
        {"tres_per_job": "gres:gpu:1", "Reason": "MaxJobsPerAccount"},
        {"tres_per_job": "gres:gpu:1", "Reason": "JobHoldMaxRequeue"},
        {"tres_per_job": "gres:gpu:1", "Reason": "BadConstraints"},
        {"tres_per_job": "gres:gpu:1", "Reason": "PartitionNodeLimit"},
        {"tres_per_job": "gres:gpu:1", "Reason": "AccountNotAllowed"},
        {"tres_per_job": "gres:gpu:1", "Reason": "launch failed requeued held"},
        {"tres_per_job": "gres:gpu:1", "Reason": "Licenses"},
        {"tres_per_job": "gres:gpu:1", "Reason": "Reservation"},
    ],
)
def test_a_job_that_wants_other_things_or_could_not_start_does_not_count(fields: dict[str, str]):
    assert others(waits(**fields)) == (0, 0)


def test_the_longest_wait_of_others_is_told():
    text = waits(tres_per_job="gres:gpu:1") + waits(tres_per_job="gres:gpu:1", EligibleTime="2025-12-31T23:50:00")
    found = read_others(text, own=[], partitions=["main"], gpu="gpu", node_gpus=1, now=NOW)
    assert found.since == datetime(2025, 12, 31, 23, 50, tzinfo=UTC)
    unknown = waits(tres_per_job="gres:gpu:1", EligibleTime="N/A")
    assert read_others(unknown, own=[], partitions=["main"], gpu="gpu", node_gpus=1, now=NOW).since == NOW


def test_a_line_of_another_layout_is_an_error():
    with pytest.raises(ClusterAway):
        others("40 main 1 1 OK\n")
