"""Celery over Redis, its defaults, no results; one pool process."""

import asyncio

from celery import Celery

from bench.peers.arrival import REDIS_URL, measure, tell

app = Celery(broker=REDIS_URL)
app.conf.task_ignore_result = True


@app.task(name="handle")
def handle(sent_ns: int) -> None:
    tell(sent_ns)


async def submit(sent_ns: int) -> None:
    handle.delay(sent_ns)


if __name__ == "__main__":
    asyncio.run(measure(submit, together=1))
