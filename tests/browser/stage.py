"""A cluster with something to see: nodes in several states, sessions, tasks, and people."""

from dataclasses import dataclass

from playwright.async_api import Page

from tests.support.agents import Answer, Frame, Node, Session, result, translating
from tests.support.cluster import Cluster, Instance

PATIENT = {
    "SCHED_PRESENCE_TTL_MS": "10000",
    "SCHED_OWNER_TTL_MS": "10000",
    "SCHED_QUEUE_TIMEOUT_MS": "300000",
    "SCHED_JOB_TIMEOUT_MS": "300000",
}
"""A browser that starts may hold up the nodes' heartbeats for some seconds. What waits or is at
work is to be seen on one page after the other."""

PASSWORD = "tests-only"
PEOPLE = """
from django.contrib.auth.models import Group, User
for name, group in (("olga", "operator"), ("vera", "viewer")):
    user = User.objects.create_user(name, password="tests-only", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
User.objects.create_user("mallory", password="tests-only")
"""

NODES = (
    ("gpu-dc-1", ("zh-en", "ja-en", "en-zh"), {"zone": "fra", "rack": "a1"}),
    ("gpu-dc-2", ("zh-en", "de-en"), {"zone": "fra"}),
    ("gpu-home-1", ("zh-en", "en-zh"), {"zone": "home"}),
    ("gpu-home-2", ("ja-en", "de-en", "en-de"), {}),
)


def refusing(node_id: str) -> Answer:
    """Fails every job at once, and says why."""
    error = {"code": "GPU_OOM", "message": "out of memory: 11.2 of 12 GB are taken"}
    return lambda job: [result(job, node_id, success=False, error=error)]


@dataclass
class Stage:
    """What a test plays with."""

    cluster: Cluster
    instances: list[Instance]
    nodes: dict[str, Node]
    idle: Node
    broken: Node
    session: Session

    @classmethod
    async def set_up(cls, cluster: Cluster) -> "Stage":
        for arguments in (("migrate", "-v", "0"), ("shell", "-v", "0", "-c", PEOPLE)):
            done = cluster.run(*arguments)
            assert done.returncode == 0, done.stderr
        instances = await cluster.start_instances("one", "two")
        cluster.start_command("mirror", "run_pool_sync")
        nodes = {}
        for place, (node_id, pairs, labels) in enumerate(NODES):
            url = instances[place % 2].node_url
            nodes[node_id] = Node(url, node_id, *pairs, answer=translating(node_id), labels=labels)
            await nodes[node_id].open()
        # It takes what it is given and never answers: so tasks are seen at work, and waiting.
        idle = Node(instances[1].node_url, "gpu-slow-1", "fr-en", slots=1)
        await idle.open()
        broken = Node(instances[1].node_url, "gpu-bad-1", "it-en", answer=refusing("gpu-bad-1"))
        await broken.open()
        session = Session(instances[0].session_url, "zh", "en")
        await session.open()
        await session.say(0)
        await session.translated(0)
        return cls(cluster, instances, nodes, idle, broken, session)

    @property
    def one(self) -> Instance:
        return self.instances[0]

    async def bury(self, count: int, *, tenant: str = "acme") -> None:
        """Dead letters, of jobs that the one node that could take them gave up."""
        session = Session(self.one.session_url, "it", "en", tenant_id=tenant)
        await session.open()
        for index in range(count):
            await session.say(index)
            assert (await session.terminal(index))["code"] == "NODE_FAILED"

    async def repair(self) -> None:
        """The node that failed everything comes back well."""
        await self.broken.close()
        url, node_id = self.instances[1].node_url, self.broken.node_id
        self.broken = Node(url, node_id, "it-en", answer=translating(node_id))
        await self.broken.open()

    async def work(self) -> str:
        """Jobs that wait, of three tenants; returns one that was tried again."""
        retried: Frame = {}
        for tenant, count, priority in (("acme", 3, 5), ("globex", 2, 5), ("initech", 1, 8)):
            session = Session(self.one.session_url, "fr", "en", tenant_id=tenant)
            await session.open()
            for index in range(count):
                await session.say(index, priority=priority)
                await session.expect("utterance_ack", nth=index + 1)
            retried = retried or await self.idle.expect("job_assign")
        await self.idle.close()
        await self.idle.open()
        return str(retried["job_id"])

    async def log_in(self, page: Page, user: str) -> None:
        await page.goto(self.one.url("/ops/"))
        await page.fill("#id_username", user)
        await page.fill("#id_password", PASSWORD)
        await page.click("[type=submit]")
        await page.wait_for_selector("#live[data-state=live]")
