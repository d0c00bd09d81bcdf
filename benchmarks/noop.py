"""How fast Celery itself is here: messages whose task does nothing. Used by `benchmarks.dispatch`.

`python -m benchmarks.noop` is the process that takes them, from the broker that `EVALYARD_BROKER_URL` names.
"""

import os
import time
from typing import Any

import redis

from benchmarks.processes import consume, cpu_seconds, running
from orchestrator import broker

TASK = "benchmark.noop"
QUEUE = "benchmark"
LAST = "benchmark:last"


def noop_rate(url: str, messages: int) -> tuple[float, float]:
    """Messages for each second, from the first one sent to the end of the last one's task, once the taker runs; and
    the CPU seconds of the taker for each.
    """
    app = broker.make_app(url, name="benchmark.sender")
    notes = redis.Redis.from_url(url)

    def send(last: bool) -> None:
        app.send_task(TASK, args=[{"last": last}], queue=QUEUE, argsrepr="(…)")

    def wait() -> None:
        while not notes.get(LAST):
            time.sleep(0.002)
        notes.delete(LAST)

    with running("-m", "benchmarks.noop", environment={"EVALYARD_BROKER_URL": url}) as taker:
        send(last=True)
        wait()
        start, used = time.monotonic(), cpu_seconds(taker)
        for number in range(messages):
            send(last=number == messages - 1)
        wait()
        return messages / (time.monotonic() - start), (cpu_seconds(taker) - used) / messages


def main() -> None:
    url = os.environ["EVALYARD_BROKER_URL"]
    app = broker.make_app(url, name="benchmark.noop")
    notes = redis.Redis.from_url(url)

    @app.task(name=TASK, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def noop(payload: Any) -> None:
        if payload["last"]:
            notes.set(LAST, "1")

    consume(app, [QUEUE])


if __name__ == "__main__":
    main()
