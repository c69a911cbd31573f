"""Credentials for socket tests: made by the commands that operators use."""

import asyncio
import time
from typing import Any

import jwt

from tests.support.cluster import Cluster

AUDIENCE = "scheduler-session"


async def credential(cluster: Cluster, *arguments: str) -> str:
    """What `create_node_credential` prints."""
    done = await asyncio.to_thread(cluster.run, "create_node_credential", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def token(keys: str, tenant: str = "acme", *, key_id: str | None = None, **claims: Any) -> str:
    """A token as a client's backend would sign it, with claims put in or, by None, left out."""
    secrets = dict(entry.split(":", 1) for entry in keys.split(","))
    signer = key_id or next(iter(secrets))
    body = {"tenant": tenant, "aud": AUDIENCE, "exp": int(time.time()) + 60} | claims
    kept = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(kept, secrets[signer], algorithm="HS256", headers={"kid": signer})
