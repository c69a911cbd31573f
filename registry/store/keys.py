"""Every key the scheduler writes: its name, type, life and owner.

`{p}` is SCHED_REDIS_KEY_PREFIX. What stands in braces is a hash tag: keys with one tag live in
one cluster slot, and every script touches keys of one tag only. The change streams of `nodes:all`
carry that key's whole name as their tag, which hashes exactly like the untagged key itself.

| key | type | life | written by |
| --- | --- | --- | --- |
| `phase3:{pools}:leader` | string: instance id | lease, PX | election |
| `phase3:{pools}:epoch` | integer | kept | election |
| `phase3:{pools}:config` | string: PoolConfig JSON | SCHED_POOL_CONFIG_TTL_MS, renewed by the leader | leader |
| `phase3:{pools}:version` | integer | kept | leader |
| `phase3:{pools}:changes` | stream: published, released, wanted | capped at 1,000 | leader |
| `phase3:{pools}:wishes` | string: Wishes JSON | kept | operators, by the pool mirror |
| `nodes:all` | hash: node id -> NodeSnapshot JSON | field removed with the node | the node's owner |
| `{...nodes:all}:changes` | stream: put, gone | capped at 10,000 | the node's owner |
| `{...nodes:all}:sequence` | integer: changes so far, each change carries its number | kept | the node's owner |
| `{...nodes:all}:digest` | integer: sum of one hash for each snapshot, to notice drift by | kept | the node's owner |
| `{...nodes:all}:birth` | string: server time of the first change; another one tells of a loss of data | kept | the node's owner |
| `{...nodes:all}:loads` | stream: batches of NodeLoad | capped at 1,000 | each instance |
| `nodes:owner:{node:ID}` | string: `instance|connection epoch` | SCHED_OWNER_TTL_MS | the node's owner |
| `nodes:presence:{node:ID}` | string: effective capacity, 0 while draining | SCHED_PRESENCE_TTL_MS | the node's owner |
| `nodes:identity:{node:ID}` | hash: epoch, fingerprint, draining, takeovers | a day after the last connection | the node's owner |
| `nodes:slots:{node:ID}` | sorted set: `job|attempt` by expiry | its longest reservation | dispatch |
| `sessions:meta:{session:ID}` | hash | session retention | session's instance |
| `sessions:open:{session:ID}` | sorted set: job id by deadline | session retention | dispatch |
| `sessions:outbox:{session:ID}` | stream: terminal messages, id `seq-0` | session retention, trimmed by `result_ack` | dispatch |
| `sessions:job:{session:ID}:JOB` | hash | session retention | dispatch |
| `sessions:replay:{session:ID}` | string: ReplayNote JSON, of a dead letter's replay | session retention | whoever replays |
| `instances:all` | hash: instance id -> InstanceReport JSON | field removed with the instance | each instance |
| `instances:presence:{instance:ID}` | string | SCHED_PRESENCE_TTL_MS | each instance |
| `instances:sessions:{instance:ID}` | set of session ids | removed with the instance | each instance |
| `streams:{instance:ID}:inbox` | stream, group `scheduler` | removed with the instance | anyone |
| `streams:{instance:ID}:dlq` | stream: dead letters, without what they carry | SCHED_DEAD_LETTERS_LIMIT, SCHED_DEAD_LETTERS_KEEP_MS | the instance that buried them |
| `streams:{instance:ID}:dlq:index` | hash: letter id -> entry id | field removed with the letter | as the stream |
| `streams:{instance:ID}:dlq:payloads` | hash: letter id -> payload | field removed with the letter | as the stream |
| `instances:letters` | set of instance ids that have letters, dead ones too | id removed with the last letter of the dead | whoever buries |
| `tenants:open:{tenant:HASH}` | sorted set: job id by expiry; the hash is the tenant's | its longest job | dispatch |
| `queues:{queue}:index` | hash: flow -> waiting jobs | while jobs wait | dispatch |
| `queues:{queue}:pools` | hash: pool -> waiting jobs | while jobs wait | dispatch |
| `queues:{queue}:flow:FLOW` | sorted set: `job|attempt` by time of acceptance | while jobs wait | dispatch |
| `queues:{queue}:served` | hash: tenant -> service it had by its weight | while jobs wait | dispatch |
| `queues:{queue}:pulled` | sorted set: pulled jobs by when they are to be back | seconds | dispatch |
| `queues:{queue}:news` | stream: flows that began to wait, or are empty | capped at 1,000 | dispatch |
| `ops:{ops}:figures` | hash: process id -> server time, Figures JSON | 30 s, renewed by each process | each process |
"""

import hashlib


class Keys:
    """Names keys under one prefix. Instances with one prefix form one cluster."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        root = f"{prefix}:v1"
        self._root = root
        self.leader = f"{root}:phase3:{{pools}}:leader"
        self.leader_epoch = f"{root}:phase3:{{pools}}:epoch"
        self.pool_config = f"{root}:phase3:{{pools}}:config"
        self.pool_version = f"{root}:phase3:{{pools}}:version"
        self.pool_changes = f"{root}:phase3:{{pools}}:changes"
        self.pool_wishes = f"{root}:phase3:{{pools}}:wishes"
        self.nodes = f"{root}:nodes:all"
        self.node_changes = f"{{{root}:nodes:all}}:changes"
        self.node_sequence = f"{{{root}:nodes:all}}:sequence"
        self.node_digest = f"{{{root}:nodes:all}}:digest"
        self.node_birth = f"{{{root}:nodes:all}}:birth"
        self.node_loads = f"{{{root}:nodes:all}}:loads"
        self.instances = f"{root}:instances:all"
        self.letter_instances = f"{root}:instances:letters"
        self.queue_index = f"{root}:queues:{{queue}}:index"
        self.queue_pools = f"{root}:queues:{{queue}}:pools"
        self.queue_served = f"{root}:queues:{{queue}}:served"
        self.queue_pulled = f"{root}:queues:{{queue}}:pulled"
        self.queue_news = f"{root}:queues:{{queue}}:news"
        self.figures = f"{root}:ops:{{ops}}:figures"

    def node_owner(self, node_id: str) -> str:
        return f"{self._root}:nodes:owner:{{node:{node_id}}}"

    def node_presence(self, node_id: str) -> str:
        return f"{self._root}:nodes:presence:{{node:{node_id}}}"

    def node_identity(self, node_id: str) -> str:
        return f"{self._root}:nodes:identity:{{node:{node_id}}}"

    def node_slots(self, node_id: str) -> str:
        return f"{self._root}:nodes:slots:{{node:{node_id}}}"

    def session_meta(self, session_id: str) -> str:
        return f"{self._root}:sessions:meta:{{session:{session_id}}}"

    def session_open(self, session_id: str) -> str:
        return f"{self._root}:sessions:open:{{session:{session_id}}}"

    def session_outbox(self, session_id: str) -> str:
        return f"{self._root}:sessions:outbox:{{session:{session_id}}}"

    def session_job(self, session_id: str, job_id: str) -> str:
        return f"{self._root}:sessions:job:{{session:{session_id}}}:{job_id}"

    def session_replay(self, session_id: str) -> str:
        return f"{self._root}:sessions:replay:{{session:{session_id}}}"

    def instance_presence(self, instance_id: str) -> str:
        return f"{self._root}:instances:presence:{{instance:{instance_id}}}"

    def instance_sessions(self, instance_id: str) -> str:
        return f"{self._root}:instances:sessions:{{instance:{instance_id}}}"

    def instance_inbox(self, instance_id: str) -> str:
        return f"{self._root}:streams:{{instance:{instance_id}}}:inbox"

    def instance_dlq(self, instance_id: str) -> str:
        return f"{self._root}:streams:{{instance:{instance_id}}}:dlq"

    def instance_dlq_index(self, instance_id: str) -> str:
        return f"{self.instance_dlq(instance_id)}:index"

    def instance_dlq_payloads(self, instance_id: str) -> str:
        return f"{self.instance_dlq(instance_id)}:payloads"

    def queue_flow(self, flow: str) -> str:
        return f"{self._root}:queues:{{queue}}:flow:{flow}"

    def tenant_open(self, tenant: str) -> str:
        # A tenant may have any name; a hash of it may be part of a key.
        name = hashlib.blake2b(tenant.encode(), digest_size=12).hexdigest()
        return f"{self._root}:tenants:open:{{tenant:{name}}}"
