"""What the driver says of this worker's GPUs now: memory, utilisation, and which processes compute on them.

`NvmlGpus` asks NVML (package nvidia-ml-py, loaded on first use); `FakeGpus` reads a JSON file that a test or a demo
changes. Neither judges: that is `workers.idle.idleness`. Nothing here raises for a GPU that cannot be read: the reading
says why, and a GPU of which nothing is known is never idle.
"""

import json
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the host's own PID namespace, the same on every Linux (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""

MIG = "MIG-"

ANSWER_SECONDS = 10.0
"""A driver that takes longer for a reading is taken to hang; on a busy host it takes tens of milliseconds."""


class GpusUnreadable(Exception):
    """No GPU can be read at all, for the reason given."""


@dataclass(frozen=True)
class GpuProcess:
    """A process with a compute context on a GPU."""

    pid: int
    memory_bytes: int | None = None
    """None where the driver does not tell."""
    group: int | None = None
    """Its process group; None when it is gone by now, or of a PID namespace that cannot be seen from here."""
    is_same_user: bool = False


@dataclass(frozen=True)
class Reading:
    """What is known of one GPU at one moment. With a `fault` nothing else is known."""

    index: int
    """Among the GPUs that the worker may use: the position in CUDA_VISIBLE_DEVICES."""
    name: str = ""
    uuid: str = ""
    memory_used: int = 0
    """Bytes, without what the driver keeps for itself."""
    memory_total: int = 0
    utilisation: float | None = None
    """Percent of the last second or less in which something computed; None for a part of a GPU (MIG), which has no
    such number."""
    processes: tuple[GpuProcess, ...] = ()
    fault: str = ""
    """Why the GPU cannot be judged, with the next step."""


class Gpus(Protocol):
    """The GPUs that a worker may use, in the order of CUDA_VISIBLE_DEVICES."""

    def read(self) -> Sequence[Reading]:
        """Read all of them now.

        Raises:
            GpusUnreadable: not even their number is known.
        """

    def close(self) -> None:
        """Let go of the driver until the next reading: it can be unloaded meanwhile, and a GPU reset or split."""


def make_gpus(source: str, *, visible: str | None) -> Gpus:
    """The GPUs of `nvml`, or of `fake:PATH`; `visible` is CUDA_VISIBLE_DEVICES, None for all."""
    if source.startswith("fake:"):
        return FakeGpus(Path(source.removeprefix("fake:")))
    return PatientGpus(NvmlGpus(visible))


class PatientGpus:
    """GPUs of a driver that may hang: after some seconds without an answer they are unreadable, until it answers."""

    def __init__(self, gpus: Gpus, *, seconds: float = ANSWER_SECONDS) -> None:
        self._gpus = gpus
        self._seconds = seconds
        self._asked: threading.Thread | None = None
        self._found: list[Sequence[Reading] | Exception] = []

    def read(self) -> Sequence[Reading]:
        if self._asked is not None and self._asked.is_alive():
            self._asked.join(self._seconds)
            if self._asked.is_alive():
                raise GpusUnreadable(self._silent)
        # What a late answer said is old by now: it is asked again.
        self._found = []
        self._asked = threading.Thread(target=self._ask, args=(self._found,), name="read-gpus", daemon=True)
        self._asked.start()
        self._asked.join(self._seconds)
        if not self._found:
            raise GpusUnreadable(self._silent)
        if isinstance(self._found[0], Exception):
            raise self._found[0]
        return self._found[0]

    def close(self) -> None:
        if self._asked is None or not self._asked.is_alive():  # one that hangs is let go of when it answers
            self._gpus.close()

    def _ask(self, found: list[Sequence[Reading] | Exception]) -> None:
        try:
            found.append(self._gpus.read())
        except Exception as error:
            found.append(error)

    @property
    def _silent(self) -> str:
        return f"the driver has not answered for {self._seconds:g} s. See dmesg; the host may need a restart"


class FakeGpus:
    """GPUs of a JSON file, `[{"memory_used": …, "processes": [{"pid": …}]}, …]`: a Reading's fields, all optional.

    The file is read anew each time. A process of the file is looked up like a real one, so that a test may name one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Reading]:
        try:
            listed = json.loads(self._path.read_text(encoding="utf-8"))
            # Those of another file are other GPUs.
            host = zlib.crc32(str(self._path.resolve()).encode())
            return [
                Reading(
                    **{
                        "index": index,
                        "name": "Fake GPU",
                        "uuid": f"GPU-fake-{host:08x}-{index}",
                        "memory_total": 80 * 10**9,
                        "utilisation": 0.0,
                        **gpu,
                        "processes": tuple(
                            look_up(process["pid"], process.get("memory_bytes")) for process in gpu.get("processes", ())
                        ),
                    }
                )
                for index, gpu in enumerate(listed)
            ]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise GpusUnreadable(f"the file {self._path} of fake GPUs cannot be read: {error}") from error

    def close(self) -> None:
        """There is no driver."""


class NvmlGpus:
    """GPUs as NVML knows them. Opened at the first reading, and again after a failure: drivers are upgraded.

    By UUID once all were read: the driver counts anew when one has fallen off the bus, and the numbers behind it mean
    others then.
    """

    def __init__(self, visible: str | None, *, sees_every_process: Callable[[], bool] | None = None) -> None:
        self._visible = None if visible is None else [name.strip() for name in visible.split(",")]
        self._sees_every_process = sees_every_process or is_in_first_pid_namespace
        self._nvml: Any = None
        self._is_stale = False
        self._uuids: list[str] = []

    def read(self) -> list[Reading]:
        nvml = self._open()
        try:
            names = self._uuids or self._visible
            if names is None:
                names = [str(number) for number in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            self._close()
            raise GpusUnreadable(_sentence(nvml, error)) from error
        self._is_stale = False
        readings = [self._read_one(nvml, index, name) for index, name in enumerate(names)]
        if self._is_stale:
            self._close()
        if not self._uuids and all(reading.uuid and not reading.fault for reading in readings):
            self._uuids = [reading.uuid for reading in readings]
        return readings

    def close(self) -> None:
        if self._nvml is not None:
            self._close()

    def _open(self) -> Any:
        if self._nvml is not None:
            return self._nvml
        try:
            import pynvml as nvml
        except ImportError as error:
            raise GpusUnreadable(
                "the package nvidia-ml-py, which reads GPUs, is not installed here. Install it (pip install "
                "nvidia-ml-py), or set EVALYARD_WORKER_GPU_POLICY=always where the GPUs are this worker's alone"
            ) from error
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise GpusUnreadable(_sentence(nvml, error)) from error
        self._nvml = nvml
        return nvml

    def _close(self) -> None:
        nvml, self._nvml = self._nvml, None
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()

    def _read_one(self, nvml: Any, index: int, name: str) -> Reading:
        known: dict[str, Any] = {"index": index}
        try:
            handle = _handle(nvml, name)
            known |= {"name": _text(nvml.nvmlDeviceGetName(handle)), "uuid": _text(nvml.nvmlDeviceGetUUID(handle))}
            _refuse_split(nvml, handle, known["uuid"])
            used, total = _memory(nvml, handle)
            known |= {"memory_used": used, "memory_total": total}
            known["processes"] = tuple(
                look_up(process.pid, process.usedGpuMemory)
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            )
            if not known["uuid"].startswith(MIG):
                known["utilisation"] = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except nvml.NVMLError as error:
            # Opening the library anew takes seconds, and mends none of these.
            lasting = (nvml.NVMLError_GpuIsLost, nvml.NVMLError_NoPermission, nvml.NVMLError_NotSupported)
            self._is_stale = self._is_stale or not isinstance(error, lasting)
            return Reading(index=index, name=known.get("name", name), fault=_sentence(nvml, error))
        except _Unfit as error:
            return Reading(index=index, name=known.get("name", name), fault=str(error))
        if not self._sees_every_process():
            known["fault"] = (
                "this worker is in a container with process ids of its own, and cannot tell whose processes run on a "
                "GPU. Start the container with the host's (--pid=host, hostPID: true), or set "
                "EVALYARD_WORKER_GPU_POLICY=always where the GPUs are this worker's alone"
            )
        return Reading(**known)


class _Unfit(Exception):
    """The GPU cannot be used as it is named or set up."""


def _handle(nvml: Any, name: str) -> Any:
    """A GPU by what CUDA_VISIBLE_DEVICES calls it: a number in the order of the bus, the start of a UUID, or a MIG's
    UUID."""
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    if name.startswith(MIG):
        return nvml.nvmlDeviceGetHandleByUUID(name)
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        if name and _text(nvml.nvmlDeviceGetUUID(handle)).startswith(name):
            return handle
    raise _Unfit(f"CUDA_VISIBLE_DEVICES names '{name}', and the driver knows no such GPU")


def _refuse_split(nvml: Any, handle: Any, uuid: str) -> None:
    """A GPU in MIG mode has users in each of its parts: only a part can be judged, and used, by itself."""
    if uuid.startswith(MIG):
        return
    with suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        if nvml.nvmlDeviceGetMigMode(handle)[0]:
            raise _Unfit("the GPU is split into parts (MIG). Name parts by their UUID in CUDA_VISIBLE_DEVICES")


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """Bytes used and in all. The second form leaves out what the driver keeps, hundreds of MB on an idle GPU."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.used), int(memory.total)


def look_up(pid: int, memory_bytes: int | None) -> GpuProcess:
    """A process id of the driver with what the kernel knows of it."""
    group: int | None = None
    same_user = False
    with suppress(OSError):
        group = os.getpgid(pid)
        same_user = Path(f"/proc/{pid}").stat().st_uid == os.getuid()
    return GpuProcess(pid, memory_bytes, group, same_user)


def is_in_first_pid_namespace() -> bool:
    """Whether process ids mean here what the driver means by them."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == FIRST_PID_NAMESPACE
    except OSError:
        return False


def _sentence(nvml: Any, error: Exception) -> str:
    """What an error of NVML means for whoever runs the host, without the full stop."""
    known = (
        ("LibraryNotFound", "there is no NVIDIA driver here (libnvidia-ml.so.1 is missing)"),
        ("DriverNotLoaded", "the NVIDIA driver is not loaded. See dmesg"),
        (
            "LibRmVersionMismatch",
            "the NVIDIA driver was upgraded and its new parts do not fit the old ones that still run. Reload the "
            "driver or restart the host",
        ),
        ("GpuIsLost", "the GPU fell off the bus. See dmesg for Xid errors, then restart the host"),
        ("ResetRequired", "the GPU must be reset. See dmesg for Xid errors"),
        ("NoPermission", "this user may not see the processes on the GPU. Run the worker as one who may"),
    )
    for name, sentence in known:
        if isinstance(error, getattr(nvml, f"NVMLError_{name}")):
            return sentence
    return f"the NVIDIA driver answers '{error}'"


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
