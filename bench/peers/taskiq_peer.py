"""taskiq over a Redis stream, its defaults, no results; one worker process."""

import asyncio

from taskiq_redis import RedisStreamBroker

from bench.peers.arrival import REDIS_URL, measure, tell

broker = RedisStreamBroker(REDIS_URL)


@broker.task(task_name="handle")
async def handle(sent_ns: int) -> None:
    tell(sent_ns)


async def main() -> None:
    await broker.startup()
    await measure(handle.kiq)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
