"""`/ws/node`: a node registers, tells how it is, takes jobs and returns results."""

import time

import structlog

from registry.domain.capability import Capabilities
from registry.domain.errors import InvalidIdentifier, StoreUnavailable
from registry.domain.ids import check_identifier, split_job_id
from registry.domain.node import NodeLoad
from registry.domain.ownership import Conflict
from registry.services.membership import LocalNode, Registration
from routing.consumers.base import SocketConsumer
from routing.domain import wire
from routing.domain.credentials import NodeGrant, Presented
from routing.domain.errors import ErrorCode, InvalidMessage, NotAuthorized
from routing.domain.limits import Limits
from routing.domain.outcome import Fault
from routing.instance import Routing

log = structlog.get_logger(__name__)


class NodeConsumer(SocketConsumer):
    """The socket of one node."""

    GREETING = "node_register"

    def __init__(self, routing: Routing) -> None:
        super().__init__(routing)
        self._node: LocalNode | None = None
        self._grant: NodeGrant | None = None

    async def admit(self, shown: Presented) -> None:
        self._grant = await self.routing.access.admit_node(shown)
        if self._grant is not None:
            self.routing.access.node_keys.attach(self._grant, self)

    def frame_rate(self, limits: Limits) -> int:
        return limits.node_frame_rate

    async def frame(self, data: str | bytes) -> None:
        message, fields = wire.NODE_FRAMES.decode(data)
        if isinstance(message, wire.NodeRegister):
            await self._register(message)
            return
        node = self._registered(message)
        self.routing.membership.heard(node)
        node.busy = True
        try:
            await self._act(node, message, fields)
        finally:
            node.busy = False
            self.routing.membership.heard(node)

    async def _act(self, node: LocalNode, message: wire.Message, fields: wire.Fields) -> None:
        match message:
            case wire.JobResult():
                _check_job(message.job_id, message.session_id, message.utterance_index)
                self.routing.assignment.heard(node, message.job_id, message.attempt_id)
                await self._result(node, message, fields)
            case wire.NodeHeartbeat():
                said = wire.capabilities_of(message, before=node.snapshot.capabilities)
                work = self._heartbeat(node, message.resource_usage, said)
                await self.routing.patiently(work, name="heartbeat")
            case wire.JobStarted():
                _check_job(message.job_id, message.session_id)
                self.routing.assignment.acknowledged(node, message.job_id, message.attempt_id)
                if self._holds(node, message):
                    await self.routing.jobs.start(message.job_id, attempt=message.attempt_id)
            case wire.AsrPartial():
                _check_job(message.job_id, message.session_id, message.utterance_index)
                self.routing.assignment.heard(node, message.job_id)
                if self.routing.island.owns(message.job_id):
                    self.routing.island.partial(message, fields)
                else:
                    await self.routing.completion.partial(node, message, fields)
            case wire.NodeError():
                await self._error(node, message)
            case wire.JobAck():
                _check_job(message.job_id, message.session_id)
                self.routing.assignment.acknowledged(node, message.job_id, message.attempt_id)

    async def closed(self) -> None:
        if self._grant is not None:
            self.routing.access.node_keys.detach(self._grant, self)
        node, self._node = self._node, None
        if node is None:
            return
        losses, node_id = self.routing.losses, node.snapshot.node_id
        self.routing.island.node_left(node_id)
        self.routing.slot_check.forget(node_id)
        known = losses.let_go(node)
        if await self.routing.membership.lose(node):
            grace_ms = losses.return_ms if self.sent_away else losses.grace_ms
            await losses.node_left(node_id, grace_ms=grace_ms, known=known)

    async def _result(self, node: LocalNode, message: wire.JobResult, fields: wire.Fields) -> None:
        if self.routing.island.owns(message.job_id):
            self.routing.island.result(node, message, fields)
        elif message.success:
            work = self.routing.completion.result(node, message, fields)
            await self.routing.patiently(work, name="result")
        else:
            fault = wire.fault_of(message)
            await self._give_up(node, message.job_id, message.attempt_id, fault)

    async def _error(self, node: LocalNode, message: wire.NodeError) -> None:
        node_id, code, words = message.node_id, message.code[:64], message.message[:500]
        log.warning("node error", node_id=node_id, code=code, reason=words)
        node.last_failure = f"{code}: {words}"
        named = self.routing.retries.named(node_id, wire.fault_details(message))
        if named is None:
            await self.routing.membership.record_outcome(node, succeeded=False)
        else:
            await self._give_up(node, *named, wire.fault_of(message))

    async def _give_up(self, node: LocalNode, job_id: str, attempt: int, fault: Fault) -> None:
        if self.routing.island.owns(job_id):
            self.routing.island.refused(node, job_id, attempt, fault)
            return
        work = self.routing.retries.refused(node, job_id, attempt, fault)
        await self.routing.patiently(work, name="refused")
        await self.routing.patiently(self.routing.waiting.fill(node), name="fill")

    async def _register(self, message: wire.NodeRegister) -> None:
        if self.turned_away():
            return
        own = self._grant.node_id if self._grant is not None else None
        node_id = message.node_id or own or self.routing.new_node_id()
        if self._node is not None and message.node_id not in (None, self._node.snapshot.node_id):
            self.refuse(
                ErrorCode.NODE_ID_CONFLICT,
                f"this socket is registered as {self._node.snapshot.node_id} already;"
                " open another one for another node",
            )
            return
        if self._node is not None:
            node_id = self._node.snapshot.node_id
        await self._check_grant(node_id)
        registration = self._registration(message, node_id)
        losses = self.routing.losses
        running = {(job.job_id, job.attempt_id) for job in message.running_jobs or ()}
        before = await self.routing.slots.held(node_id)
        losses.expect(node_id, running)
        outcome: LocalNode | Conflict | None = None
        try:
            outcome = await self.routing.membership.register(registration, self)
        finally:
            if not isinstance(outcome, LocalNode):
                losses.unexpected(node_id)
        if isinstance(outcome, Conflict):
            self.refuse(ErrorCode.NODE_ID_CONFLICT, outcome.reason(node_id))
            return
        self._node = outcome
        self.greeted = True
        self.send(
            wire.node_register_ack(
                node_id, message="registered", status=outcome.snapshot.status.value
            )
        )
        self.routing.draining_nodes.follow(outcome)
        await losses.node_joined(outcome, running, before)

    async def _check_grant(self, node_id: str) -> None:
        grant = self._grant
        if grant is not None and not await self.routing.access.node_keys.speaks_as(grant, node_id):
            raise NotAuthorized(
                f"the credential is {grant.node_id or 'any other node'}'s; it is not good for"
                f" {node_id[:64]}"
            )

    def _registration(self, message: wire.NodeRegister, node_id: str) -> Registration:
        try:
            check_identifier(node_id, what="node_id")
        except InvalidIdentifier as error:
            raise InvalidMessage(f"node_register: {error}") from None
        wire.check_schema_version(message)
        return Registration(
            node_id=node_id,
            capabilities=wire.capabilities_of(message),
            max_concurrent_jobs=message.max_concurrent_jobs or self.routing.default_capacity,
            accept_public_jobs=message.accept_public_jobs,
            version=message.version,
            platform=message.platform,
            hardware=message.hardware,
            labels=message.labels or {},
            registered_at_ms=time.time_ns() // 1_000_000,
        )

    async def _heartbeat(
        self, node: LocalNode, usage: wire.ResourceUsage, capabilities: Capabilities
    ) -> None:
        try:
            held = await self.routing.slots.held(node.snapshot.node_id)
        except StoreUnavailable:
            # No fault of the node's; its next heartbeat makes good what this one did not.
            return
        load = NodeLoad(
            cpu_percent=usage.cpu_percent,
            mem_percent=usage.mem_percent,
            gpu_percent=usage.gpu_percent,
            gpu_mem_percent=usage.gpu_mem_percent,
            running_jobs=usage.running_jobs,
            reserved=len(held),
        )
        self._check_slots(node.snapshot.node_id, held, usage.running_jobs)
        if await self.routing.membership.heartbeat(node, load=load, capabilities=capabilities):
            await self.routing.waiting.fill(node)

    def _check_slots(self, node_id: str, held: set[tuple[str, int]], running: int) -> None:
        doubtful = self.routing.slot_check.doubtful(node_id, held, running=running)
        if doubtful:
            work = self.routing.slot_check.repair(node_id, doubtful)
            self.routing.registry.loops.spawn(work, name="slot check")

    def _registered(self, message: wire.Message) -> LocalNode:
        if self._node is None:
            raise InvalidMessage("send node_register first")
        claimed = getattr(message, "node_id", None)
        if claimed != self._node.snapshot.node_id:
            raise InvalidMessage(
                f"node_id is {str(claimed)[:64]!r},"
                f" but this socket is registered as {self._node.snapshot.node_id}"
            )
        return self._node

    def _holds(self, node: LocalNode, message: wire.JobStarted) -> bool:
        return self.routing.assignment.holds(
            node.snapshot.node_id, message.job_id, message.attempt_id
        )


def _check_job(job_id: str, session_id: str, utterance_index: int | None = None) -> None:
    try:
        session, index = split_job_id(job_id)
    except InvalidIdentifier as error:
        raise InvalidMessage(f"job_id: {error}") from None
    if session != session_id or utterance_index not in (None, index):
        raise InvalidMessage("job_id, session_id and utterance_index do not belong together")
