"""arq over Redis, its defaults, which poll twice a second; one worker."""

import asyncio

from arq import create_pool
from arq.connections import RedisSettings

from bench.peers.arrival import REDIS_URL, measure, tell


async def handle(_: object, sent_ns: int) -> None:
    tell(sent_ns)


class Settings:
    functions = [handle]
    redis_settings = RedisSettings.from_dsn(REDIS_URL)


async def main() -> None:
    pool = await create_pool(Settings.redis_settings)

    async def submit(sent_ns: int) -> None:
        await pool.enqueue_job("handle", sent_ns)

    await measure(submit)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(main())
