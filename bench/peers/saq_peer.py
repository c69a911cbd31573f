"""SAQ over Redis, its defaults; one worker."""

import asyncio

from saq import Queue

from bench.peers.arrival import REDIS_URL, measure, tell

queue = Queue.from_url(REDIS_URL)


async def handle(_: object, *, sent_ns: int) -> None:
    tell(sent_ns)


settings = {"queue": queue, "functions": [("handle", handle)]}


async def submit(sent_ns: int) -> None:
    await queue.enqueue("handle", sent_ns=sent_ns)


async def main() -> None:
    await queue.connect()
    await measure(submit)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
