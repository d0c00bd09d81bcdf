"""The worker process: `python -m workers.app harness|engine`. Celery brings orders, threads supervise stage programs.

It imports neither torch nor an engine nor the harness, holds no database credentials, and stops on SIGTERM within the
grace: every attempt is sealed and given back.
"""

import argparse
import fcntl
import logging
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any

from celery import signals
from huggingface_hub.utils.tqdm import disable_progress_bars

from orchestrator import artifacts, broker, notes
from orchestrator.wire import EngineFamily, EngineInfo
from workers import tasks
from workers.devices import Devices, names_of
from workers.engine.info import EngineMissing, engine_info
from workers.engine.vllm_settings import unknown_settings
from workers.harness import sandbox
from workers.heartbeat import HeartbeatThread
from workers.idle.gpus import Gpus, GpusUnreadable, make_gpus
from workers.idle.idle_watch import IdleWatch
from workers.idle.operators_word import OperatorsWord
from workers.idle.until_idle import UntilIdle
from workers.idle.windows import ALWAYS
from workers.models.hub_cache import HubCache
from workers.models.prefetch import Prefetcher
from workers.models.weights import Weights
from workers.own_name import NameTaken, OwnName
from workers.settings import WorkerSettings, WorkerSettingsError, read_worker_settings
from workers.supervisor import Supervisor

log = logging.getLogger("evalyard.worker")


class CannotStart(Exception):
    """The worker cannot start, for the reason given."""


def main(arguments: list[str] | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT; returns the exit code."""
    given = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        settings = read_worker_settings(
            kind=given.kind,
            worker_name=given.name,
            worker_slots=given.slots,
            worker_until_idle_seconds=given.until_idle,
        )
        engine = engine_info(settings.engine) if settings.worker_kind == "engine" else None
        if engine is not None and engine.family is EngineFamily.VLLM:
            _check_settings(settings.worker_engine_settings)
        store = artifacts.ArtifactStore(settings.artifacts_url, is_marked=True)
        lock = _claim_scratch(settings)
        return _work(settings, engine, store, lock)
    except (
        WorkerSettingsError,
        EngineMissing,
        CannotStart,
        GpusUnreadable,
        artifacts.ArtifactError,
        broker.BrokerError,
        NameTaken,
    ) as error:
        print(f"evalyard worker: {error}", file=sys.stderr)
        return 1


def devices_of(settings: WorkerSettings, engine: EngineInfo | None) -> Devices | None:
    """What an engine worker gives out: each of its GPUs, or slots on a CPU; None for a harness worker."""
    if engine is None:
        return None
    are_lent = not settings.gpu_policy.is_always
    if settings.fake_gpus is not None:
        count = settings.worker_slots or len(make_gpus(settings.worker_gpus, visible=None).read())
        return Devices(count, are_lent=are_lent)
    if engine.device_type == "cpu":
        return Devices(settings.worker_slots or 1)
    names = names_of(engine, os.environ.get("CUDA_VISIBLE_DEVICES"))[: settings.worker_slots]
    return Devices(len(names), names=names, are_lent=are_lent)


def gpus_of(settings: WorkerSettings, devices: Devices | None) -> Gpus | None:
    """What tells of the worker's devices, where they are GPUs."""
    if devices is None or not (devices.names or settings.fake_gpus):
        return None
    return make_gpus(settings.worker_gpus, visible=",".join(devices.names))


def _work(settings: WorkerSettings, engine: EngineInfo | None, store: artifacts.ArtifactStore, lock: IO[bytes]) -> int:
    app = broker.make_app(settings.broker_url, name="evalyard.worker")
    disable_progress_bars()  # they are for terminals, and this is a log
    weights = Weights(
        mirror=settings.models,
        token=settings.hub_token.get_secret_value() if settings.hub_token else None,
        digests=settings.scratch / "digests.json",
        cache=HubCache(settings.worker_weights, limit=settings.worker_weights_bytes),
    )
    devices = devices_of(settings, engine)
    slots = devices.count if devices is not None else settings.worker_slots or 1
    if engine is not None and engine.device_type != "cpu":
        engine = engine.model_copy(update={"device_count": slots})
    supervisor = Supervisor(settings, hub=tasks.BrokerHub(app), store=store, weights=weights, devices=devices)
    tasks.register(app, supervisor, weights)
    word = OperatorsWord(lambda: notes.read_mode(app, settings.name), pause_seconds=settings.worker_gpu_sample_seconds)
    watch = IdleWatch(
        devices,
        preempt=supervisor.preempt,
        look=word.last,
        gpus=gpus_of(settings, devices),
        policy=settings.gpu_policy,
        windows=settings.windows if engine is not None else ALWAYS,
        grace_seconds=settings.worker_grace_seconds,
        pause_seconds=settings.worker_gpu_sample_seconds,
        changed=supervisor.changed,
    )
    boot = uuid.uuid4().hex
    own_name = OwnName(
        app,
        settings.name,
        host=settings.host,
        place=_place(lock),
        boot=boot,
        beat_seconds=settings.worker_heartbeat_seconds,
    )
    own_name.take()
    heartbeat = HeartbeatThread(
        app,
        supervisor,
        settings,
        boot=boot,
        own_name=own_name,
        engine=engine,
        weights=weights,
        standing=lambda: watch.standing,
        look=lambda: engine_info(settings.engine),
        on_end=lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    prefetcher = Prefetcher(
        weights,
        look=lambda: notes.read_forecast(app, settings.name),
        pause_seconds=settings.worker_heartbeat_seconds,
    )
    log.info("worker %s (%s) with %d slots starts", settings.name, settings.worker_kind, slots)
    if settings.worker_kind == "harness" and (why := sandbox.trouble()) is not None:
        log.warning("benchmarks that run generated code go to other workers. %s", why)

    launched_for = settings.worker_until_idle_seconds
    wanted_back = ["The cluster takes back the GPUs that it lent."] if launched_for is not None else []

    def warned(number: int, frame: FrameType | None) -> None:
        wanted_back.append("The host is about to take back its devices (SIGUSR1).")
        os.kill(os.getpid(), signal.SIGTERM)

    def end_idle() -> None:
        wanted_back.insert(0, "It has had nothing to do for a while.")
        os.kill(os.getpid(), signal.SIGTERM)

    def give_back(**_: Any) -> None:
        prefetcher.stopping.set()
        watch.stopping.set()
        word.stopping.set()
        because = wanted_back[0] if wanted_back else "The worker is stopping."
        log.info("worker %s gives back what it runs: %s", settings.name, because)
        supervisor.preempt(range(devices.count if devices is not None else 0), because)
        supervisor.stopping.set()
        supervisor.changed.set()
        if devices is not None:
            devices.end_idle(range(devices.count))

    def announce(**_: Any) -> None:
        signal.signal(signal.SIGUSR1, warned)  # Celery has set a handler of its own by now
        word.start()
        watch.safe_step()
        heartbeat.start()
        watch.start()
        if engine is not None:
            prefetcher.start()
        if launched_for is not None:
            UntilIdle(supervisor, launched_for, end=end_idle).start()

    # Celery keeps only weak references to receivers unless told otherwise.
    signals.worker_shutting_down.connect(give_back, weak=False)
    signals.worker_ready.connect(announce, weak=False)
    signals.setup_logging.connect(_keep_logging, weak=False)
    worker = app.Worker(
        hostname=f"{settings.worker_kind}@{settings.name}",
        pool="threads",
        concurrency=slots,
        queues=[broker.worker_queue(settings.name)],
        loglevel="INFO",
        quiet=True,
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
    )
    worker.start()
    if heartbeat.is_alive():
        heartbeat.end()
    own_name.leave()
    if devices is not None:
        devices.close()
    if launched_for is not None:
        shutil.rmtree(settings.scratch, ignore_errors=True)  # no other worker will have this name
    lock.close()
    log.info("worker %s has ended", settings.name)
    return int(worker.exitcode or 0)


def _check_settings(given: Mapping[str, object]) -> None:
    """Before work is lost to it: each order with such a setting would fail."""
    if unknown := unknown_settings(given):
        raise CannotStart(f"EVALYARD_WORKER_ENGINE_SETTINGS: {unknown}")


def _claim_scratch(settings: WorkerSettings) -> IO[bytes]:
    """Empty this worker's scratch folder and hold it: two workers of one name would take each other's orders."""
    folder = settings.scratch
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
    except OSError as error:
        raise CannotStart(
            f"The scratch folder {folder} cannot be written ({error.strerror}). Set EVALYARD_WORKER_SCRATCH to another."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CannotStart(
            f"A worker named {settings.name} runs on this host already. Give this one another name with --name."
        ) from error
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    return lock


def _place(lock: IO[bytes]) -> str:
    """What names the folder of this lock, on whatever host it is looked at."""
    kept = Path(lock.name)
    if not kept.stat().st_size:
        lock.write(uuid.uuid4().hex.encode())
        lock.flush()
    return kept.read_text(encoding="ascii", errors="replace")


def _keep_logging(**_: Any) -> None:
    """Celery asks here before it sets up logging of its own; ours is set up already."""


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.app", description="A worker of Evalyard.")
    parser.add_argument("kind", choices=("harness", "engine"), help="harness prepares and scores, engine infers")
    parser.add_argument("--name", help="unique name of this worker (default: host and kind)")
    parser.add_argument("--slots", type=int, help="stages at the same time (default 1; on GPUs their number)")
    parser.add_argument(
        "--until-idle", type=float, metavar="SECONDS", help="end after so long without work (for launched workers)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    code = main()
    # Threads of an abandoned download must not hold the process open.
    sys.stderr.flush()
    os._exit(code)
