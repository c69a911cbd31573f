"""A simulated node: registers, answers jobs after a pretended time of work, reconnects.

    python -m schedsite.demo.node --url ws://127.0.0.1:8000/ws/node --id gpu-1 --pairs zh-en,en-zh

It speaks the contract and nothing else, so it serves as a model for a node agent of one's own.
"""

import argparse
import asyncio
import contextlib
import json
import random
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

SERVICES = ("asr", "nmt", "tts", "semantic")
LONGEST_PAUSE_S = 5.0


class SimulatedNode:
    """One node agent."""

    def __init__(
        self,
        urls: list[str],
        node_id: str,
        pairs: list[tuple[str, str]],
        *,
        slots: int,
        work_ms: int,
        heartbeat_ms: int,
    ) -> None:
        self._urls = urls
        self._node_id = node_id
        self._pairs = pairs
        self._slots = slots
        self._work_ms = work_ms
        self._heartbeat_ms = heartbeat_ms
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, int] = {}
        self._unsent: list[dict[str, Any]] = []
        self._socket: ClientConnection | None = None
        self._url = ""

    async def run(self) -> None:
        """Stay connected until cancelled: to the first address that answers, with full jitter."""
        pause_s = 0.2
        while True:
            for url in self._urls:
                try:
                    async with connect(url, max_size=None) as socket:
                        pause_s, self._url = 0.2, url
                        await self._serve(socket)
                except (OSError, WebSocketException, TimeoutError):
                    pass
                finally:
                    self._socket = None
            await asyncio.sleep(random.random() * pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _serve(self, socket: ClientConnection) -> None:
        await self._send(socket, self._registration())
        beat = asyncio.create_task(self._beat(socket))
        try:
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "node_register_ack":
                    self._socket = socket
                    await self._send_unsent()
                elif frame["type"] == "job_assign":
                    self._begin(frame)
                elif frame["type"] == "job_cancel":
                    self._cancel(frame["job_id"])
        finally:
            beat.cancel()

    def _begin(self, job: dict[str, Any]) -> None:
        self._attempts[job["job_id"]] = job["attempt_id"]
        task = asyncio.create_task(self._work(job))
        self._jobs[job["job_id"]] = task
        task.add_done_callback(lambda _: self._jobs.pop(job["job_id"], None))

    def _cancel(self, job_id: str) -> None:
        task = self._jobs.get(job_id)
        if task is not None:
            task.cancel()

    async def _work(self, job: dict[str, Any]) -> None:
        head = {
            "job_id": job["job_id"],
            "attempt_id": job["attempt_id"],
            "node_id": self._node_id,
            "session_id": job["session_id"],
            "trace_id": job["trace_id"],
        }
        await self._deliver({"type": "job_started", **head})
        await asyncio.sleep(self._work_ms / 1000 * (0.5 + random.random()))
        spoken = job["src_lang"] if job["src_lang"] != "auto" else self._pairs[0][0]
        await self._deliver(
            {
                "type": "job_result",
                **head,
                "utterance_index": job["utterance_index"],
                "success": True,
                "text_asr": f"({spoken}) utterance {job['utterance_index']}",
                "text_translated": f"({job['tgt_lang']}) utterance {job['utterance_index']}",
                "tts_audio": job["audio"],
                "tts_format": job["audio_format"],
                "served_by": self._node_id,
                "served_at": self._url.rpartition("/ws/")[0],
            }
        )

    async def _deliver(self, frame: dict[str, Any]) -> None:
        """Send now, or as soon as the node is connected again."""
        if self._socket is None:
            self._unsent.append(frame)
            return
        try:
            await self._send(self._socket, frame)
        except ConnectionClosed:
            self._unsent.append(frame)

    async def _send_unsent(self) -> None:
        frames, self._unsent = self._unsent, []
        for frame in frames:
            await self._deliver(frame)

    async def _beat(self, socket: ClientConnection) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_ms / 1000)
            await self._send(socket, self._heartbeat())

    async def _send(self, socket: ClientConnection, frame: dict[str, Any]) -> None:
        await socket.send(json.dumps(frame))

    def _capabilities(self) -> dict[str, Any]:
        return {
            "capability_by_type": [{"type": service, "ready": True} for service in SERVICES],
            "language_capabilities": {
                "supported_language_pairs": [{"src": src, "tgt": tgt} for src, tgt in self._pairs]
            },
        }

    def _registration(self) -> dict[str, Any]:
        return {
            "type": "node_register",
            "node_id": self._node_id,
            "version": "demo",
            "capability_schema_version": "2.0",
            "platform": "simulated",
            "hardware": {
                "cpu_cores": 8,
                "memory_gb": 32,
                "gpus": [{"name": self._node_id, "memory_gb": 12}],
            },
            "installed_models": [],
            "features_supported": {},
            "accept_public_jobs": True,
            "max_concurrent_jobs": self._slots,
            "running_jobs": [
                {"job_id": job_id, "attempt_id": self._attempts[job_id]} for job_id in self._jobs
            ],
            **self._capabilities(),
        }

    def _heartbeat(self) -> dict[str, Any]:
        busy = min(100.0 * len(self._jobs) / self._slots, 80.0)
        return {
            "type": "node_heartbeat",
            "node_id": self._node_id,
            "timestamp": time.time_ns() // 1_000_000,
            "resource_usage": {
                "cpu_percent": busy / 2,
                "gpu_percent": busy,
                "mem_percent": 40.0,
                "running_jobs": len(self._jobs),
            },
            "installed_services": [],
            **self._capabilities(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one simulated node until it is stopped.")
    parser.add_argument(
        "--url", required=True, action="append", help="ws://HOST:PORT/ws/node; several: in turn"
    )
    parser.add_argument("--id", required=True, help="the node's id")
    parser.add_argument("--pairs", required=True, help="language pairs, such as zh-en,en-zh")
    parser.add_argument("--slots", type=int, default=4, help="jobs at a time (4)")
    parser.add_argument("--work-ms", type=int, default=80, help="mean time of work for a job (80)")
    parser.add_argument("--heartbeat-ms", type=int, default=5000, help="heartbeat interval (5000)")
    options = parser.parse_args()
    pairs = [(src, tgt) for src, _, tgt in (p.partition("-") for p in options.pairs.split(","))]
    node = SimulatedNode(
        options.url,
        options.id,
        pairs,
        slots=options.slots,
        work_ms=options.work_ms,
        heartbeat_ms=options.heartbeat_ms,
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(node.run())


if __name__ == "__main__":
    main()
