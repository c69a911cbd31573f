"""Processes that measure, so that no client shares an event loop with what it measures.

The parent asks by a line of JSON, `["verb", {arguments}]`; the worker answers by one. A worker ends
when its standard input does.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from bench.stage import ROOT

LONGEST_ANSWER_BYTES = 64 * 1024 * 1024
ANSWER_WITHIN_S = 120.0
Verb = Callable[..., Awaitable[Any]]


class WorkerFailed(RuntimeError):
    """A worker ended, or did not answer, instead of measuring."""


class Worker:
    """The parent's hold on one worker."""

    def __init__(self, process: asyncio.subprocess.Process, module: str) -> None:
        self._process = process
        self._module = module

    async def ask(self, verb: str, *, within_s: float = ANSWER_WITHIN_S, **arguments: Any) -> Any:
        """Have it done; the worker's answer. Raises WorkerFailed, or TimeoutError."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise WorkerFailed(f"{self._module} has no pipes")
        stdin.write(json.dumps([verb, arguments]).encode() + b"\n")
        async with asyncio.timeout(within_s):
            line = await stdout.readline()
        if not line:
            raise WorkerFailed(f"{self._module} ended in {verb}; its stack is above")
        return json.loads(line)

    async def end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def worker(module: str, *arguments: str) -> AsyncIterator[Worker]:
    """A worker that runs `python -m MODULE ARGUMENTS` while the block does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_ANSWER_BYTES,
    )
    held = Worker(process, module)
    try:
        yield held
    finally:
        await held.end()


async def serve(verbs: Mapping[str, Verb]) -> None:
    """The worker's side: do what the parent asks until it closes the pipe."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        verb, arguments = json.loads(line)
        answer = await verbs[verb](**arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
