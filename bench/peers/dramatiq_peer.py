"""Dramatiq over Redis, its defaults; one process."""

import asyncio

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.arrival import REDIS_URL, measure, tell

dramatiq.set_broker(RedisBroker(url=REDIS_URL))


@dramatiq.actor
def handle(sent_ns: int) -> None:
    tell(sent_ns)


async def submit(sent_ns: int) -> None:
    handle.send(sent_ns)


if __name__ == "__main__":
    asyncio.run(measure(submit, together=1))
