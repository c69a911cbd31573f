"""What tests of operators' actions share: tokens, calls of the API, and the audit log."""

import asyncio
import contextlib
import hashlib
import json
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster, Instance, all_ready

PASSWORD = "correct horse battery staple"
ROOT_USER = {
    "DJANGO_SUPERUSER_USERNAME": "root",
    "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    "DJANGO_SUPERUSER_EMAIL": "root@example.com",
}


def set_up(cluster: Cluster) -> None:
    for command in (("migrate", "-v", "0"), ("createsuperuser", "--noinput")):
        done = cluster.run(*command)
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def operated_cluster(folder: Path, **settings: str) -> Iterator[Cluster]:
    """Instances "a" and "b", "guarded" without debugging, and a staff user "root"."""
    cluster = Cluster(folder, **ROOT_USER, **settings)
    cluster.start_server()
    try:
        set_up(cluster)
        instances = [
            cluster.start_instance("a"),
            cluster.start_instance("b"),
            cluster.start_instance("guarded", DEBUG="false"),
        ]
        asyncio.run(all_ready(instances))
        yield cluster
    finally:
        cluster.end()
    cluster.check_logs()


def new_token(cluster: Cluster, name: str) -> str:
    done = cluster.run("create_operator_token", "--user", "root", "--name", name)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"sched_[\w-]{43}\n", done.stdout)
    return done.stdout.strip()


def database(cluster: Cluster, statement: str, *values: object) -> list[Any]:
    """Rows of a statement on the database that the processes share."""
    with contextlib.closing(sqlite3.connect(cluster.folder / "db.sqlite3", timeout=20)) as found:
        rows = found.execute(statement, values).fetchall()
        found.commit()
    return rows


def add_token(cluster: Cluster, name: str) -> str:
    """Another token of root's, without the seconds that a command takes."""
    secret = f"sched_{name}".ljust(49, "x")
    database(
        cluster,
        "INSERT INTO routing_operatortoken (name, prefix, sha256, user_id, created_at)"
        " SELECT ?, ?, ?, id, date_joined FROM auth_user WHERE username = 'root'",
        name,
        secret[:14],
        hashlib.sha256(secret.encode()).hexdigest(),
    )
    return secret


Answer = tuple[int, dict[str, Any]]


def ask(
    instance: Instance,
    path: str,
    *,
    token: str | None = None,
    body: Any = None,
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> Answer:
    """Status and body of an answer of the API."""
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    data = None
    if body is not None:
        data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(
        instance.url(f"/api/v1/{path}"), data, headers=sent, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as got:
            return got.status, json.loads(got.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def look(instance: Instance, path: str) -> dict[str, Any]:
    status, found = ask(instance, path, method="GET")
    assert status == 200, found
    return found


def pools(instance: Instance) -> set[str]:
    return {pool["name"] for pool in look(instance, "pools")["pools"]}


def audit(cluster: Cluster, subject: str) -> list[dict[str, Any]]:
    """The audit entries of a subject, oldest first."""
    names = ("actor", "source", "address", "action", "outcome", "detail")
    rows = database(
        cluster,
        f"SELECT {', '.join(names)} FROM routing_auditentry WHERE subject = ? ORDER BY id",
        subject,
    )
    entries = [dict(zip(names, row, strict=True)) for row in rows]
    return [entry | {"detail": json.loads(entry["detail"])} for entry in entries]
