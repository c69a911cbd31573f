"""What operators may do to the cluster: from any instance, or from a process without one.

`Actions` is the asking side, the same for the API, the admin and `manage.py`; every call is
written to the audit log, whatever came of it. `NodeControl` is the acting side, in the instance
that holds the node's socket. Every action may be repeated: it then finds that things are so.

From the return of `drain` on, no slot of the node is reserved any more; its status follows within
a moment. A shutdown closes the slots when the node's instance hears of it, and only for the life
of this connection: a node that comes back works.

Not promised: that the node obeys, or that it heard (it may be leaving). A drained node that comes
back is told so by the status in its `node_register_ack`.
"""

import asyncio
from dataclasses import replace
from enum import StrEnum

import msgspec
import structlog

from pools.services.ports import CatalogStore
from registry.domain.instance import InstanceReport
from registry.domain.node import NodeStatus
from registry.services.membership import LocalNode, Membership
from registry.services.ports import InstanceStore, LeaseStore
from routing.domain import wire
from routing.domain.operators import ActionOutcome, AlreadySo, Done, NotFound, Operator
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.auditing import Auditor
from routing.services.delivery import Delivery
from routing.services.draining import Draining
from routing.services.leaving import DRAIN, RESUME, Leaving
from routing.services.ports import AuditLog
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)

LONGEST_REASON = 500
REPORT_LOOKS = 60
REPORT_PAUSE_S = 0.05
HOPS = 3
"""Instances that pass on a command for a node that moved, before it is dropped."""


class NodeCommand(StrEnum):
    """The commands of `node_control`."""

    DRAIN = "drain"
    RESUME = "resume"
    SHUTDOWN = "shutdown"


class Actions:
    """Asks for things in an operator's name. Every method raises StoreUnavailable."""

    def __init__(
        self,
        membership: Membership,
        delivery: Delivery,
        catalog: CatalogStore,
        leases: LeaseStore,
        instances: InstanceStore,
        audit: AuditLog,
        *,
        instance_id: str,
    ) -> None:
        self._membership = membership
        self._delivery = delivery
        self._catalog = catalog
        self._leases = leases
        self._audited = Auditor(audit).audited
        self._instances = instances
        self._instance_id = instance_id

    async def drain(self, node_id: str, *, by: Operator, reason: str = "") -> ActionOutcome:
        """Give a node nothing new, and let it finish; also when it reconnects."""
        work = self._set_draining(node_id, draining=True, reason=reason)
        return await self._audited(work, "drain node", node_id, by=by, reason=reason)

    async def resume(self, node_id: str, *, by: Operator, reason: str = "") -> ActionOutcome:
        """Give a drained node work again."""
        work = self._set_draining(node_id, draining=False, reason=reason)
        return await self._audited(work, "resume node", node_id, by=by, reason=reason)

    async def shut_down(self, node_id: str, *, by: Operator, reason: str = "") -> ActionOutcome:
        """Tell a node to end, and give it nothing new until then."""
        work = self._shut_down(node_id, reason)
        return await self._audited(work, "shut down node", node_id, by=by, reason=reason)

    async def drain_instance(
        self, instance_id: str, *, by: Operator, reason: str = ""
    ) -> ActionOutcome:
        """Have an instance take no new sessions and nodes, and send away those it has."""
        work = self._set_instance(instance_id, draining=True)
        return await self._audited(work, "drain instance", instance_id, by=by, reason=reason)

    async def resume_instance(
        self, instance_id: str, *, by: Operator, reason: str = ""
    ) -> ActionOutcome:
        """Have a drained instance take sessions and nodes again."""
        work = self._set_instance(instance_id, draining=False)
        return await self._audited(work, "resume instance", instance_id, by=by, reason=reason)

    async def step_down(self, *, by: Operator) -> ActionOutcome:
        """Have the leader release its lease, so that another election is held."""
        return await self._audited(self._step_down(by), "step down", "leader", by=by)

    async def regenerate(self, *, by: Operator) -> ActionOutcome:
        """Have the leader generate the pools now. It publishes only what differs."""
        return await self._audited(self._regenerate(by), "regenerate", "pools", by=by)

    async def _set_draining(self, node_id: str, *, draining: bool, reason: str) -> ActionOutcome:
        view = self._membership.views.get(node_id)
        if view is None or not await self._membership.drain(node_id, draining=draining):
            return _unknown_node(node_id)
        was_draining = view.snapshot.status is NodeStatus.DRAINING
        # Also when the status says that it is so: another instance may have changed its mind a
        # moment ago, and what was told last must be what is stored.
        command = NodeCommand.DRAIN if draining else NodeCommand.RESUME
        await self._tell(node_id, view.snapshot.instance_id, command, reason)
        if was_draining == draining:
            state = "drains already" if draining else "was not draining"
            return AlreadySo(node_id, f"node {node_id} {state}")
        does = "gets nothing new and finishes what it has" if draining else "gets work again"
        return Done(node_id, f"node {node_id} {does}")

    async def _shut_down(self, node_id: str, reason: str) -> ActionOutcome:
        view = self._membership.views.get(node_id)
        if view is None:
            return _unknown_node(node_id)
        holder = view.snapshot.instance_id
        if not await self._tell(node_id, holder, NodeCommand.SHUTDOWN, reason):
            return NotFound(
                node_id, f"node {node_id} has not heard it: the instance that held it is gone"
            )
        return Done(node_id, f"node {node_id} gets nothing new and is told to end")

    async def _set_instance(self, instance_id: str, *, draining: bool) -> ActionOutcome:
        report = await self._report_of(instance_id)
        order = DRAIN if draining else RESUME
        envelope = Envelope(EnvelopeKind.INSTANCE, instance_id, order, sender=self._instance_id)
        if report is None or not await self._delivery.send(instance_id, envelope):
            return NotFound(instance_id, "no instance of this id serves in the cluster")
        if report.draining == draining:
            state = "drains already" if draining else "was not draining"
            return AlreadySo(instance_id, f"instance {instance_id} {state}")
        if not await self._reports(instance_id, draining=draining):
            word = "drain" if draining else "resume"
            return Done(instance_id, f"instance {instance_id} is told to {word}; it has not yet")
        does = "takes no one new and sends away whom it has" if draining else "takes work again"
        return Done(instance_id, f"instance {instance_id} {does}")

    async def _reports(self, instance_id: str, *, draining: bool) -> bool:
        """Wait until the instance says that it did as it was told."""
        for _ in range(REPORT_LOOKS):
            report = await self._report_of(instance_id)
            if report is not None and report.draining == draining:
                return True
            await asyncio.sleep(REPORT_PAUSE_S)
        return False

    async def _report_of(self, instance_id: str) -> InstanceReport | None:
        reports = await self._instances.reports()
        return next((r for r in reports if r.instance_id == instance_id and r.serves), None)

    async def _tell(
        self, node_id: str, instance_id: str, command: NodeCommand, reason: str
    ) -> bool:
        frame = wire.node_control(command.value, reason=reason)
        return await self._delivery.send(
            instance_id,
            Envelope(EnvelopeKind.CONTROL, node_id, frame, sender=self._instance_id),
        )

    async def _step_down(self, by: Operator) -> ActionOutcome:
        held = await self._leases.holder()
        if held is None:
            return NotFound("leader", "nobody leads now, so nobody can step down")
        await self._catalog.ask("step-down", by=by.name)
        return Done("leader", f"{held.instance_id}, the leader, is asked to step down")

    async def _regenerate(self, by: Operator) -> ActionOutcome:
        held = await self._leases.holder()
        await self._catalog.ask("regenerate", by=by.name)
        if held is None:
            return Done("pools", "nobody leads now; the next leader generates the pools")
        return Done("pools", f"{held.instance_id}, the leader, is asked to generate the pools")


class NodeControl:
    """Carries out, in the instance that holds a node, what was asked anywhere."""

    def __init__(
        self,
        delivery: Delivery,
        membership: Membership,
        waiting: Waiting,
        draining: Draining,
        leaving: Leaving,
        *,
        instance_id: str,
    ) -> None:
        self._delivery = delivery
        self._membership = membership
        self._waiting = waiting
        self._draining = draining
        self._leaving = leaving
        self._instance_id = instance_id
        delivery.on(EnvelopeKind.CONTROL, self._on_control)

    async def _on_control(self, envelope: Envelope) -> None:
        node = self._membership.local(envelope.subject)
        if node is None:
            await self._pass_on(envelope)
            return
        if _order.decode(envelope.body).command is NodeCommand.SHUTDOWN:
            # The frame goes first: where the store then fails, all of this comes again, and a
            # node that is told twice does nothing the second time.
            node.link.send(envelope.body)
            await self._membership.retire(node)
        else:
            await self._follow(node, envelope.body)
        self._draining.follow(node)

    async def _follow(self, node: LocalNode, told: bytes) -> None:
        """Do as the store says: of two commands that crossed, it knows which was the last."""
        draining = await self._membership.is_draining(node.snapshot.node_id)
        command = NodeCommand.DRAIN if draining else NodeCommand.RESUME
        same = _order.decode(told).command is command
        node.link.send(told if same else wire.node_control(command.value, reason=""))
        if draining or self._leaving.draining:
            await self._membership.retire(node)
        else:
            await self._membership.follow_drain(node, draining=False)
            await self._waiting.fill(node)

    async def _pass_on(self, envelope: Envelope) -> None:
        """The node is not here: it moved while the command was on its way, or it left."""
        view = self._membership.views.get(envelope.subject)
        holder = view.snapshot.instance_id if view is not None else self._instance_id
        if holder != self._instance_id and envelope.number < HOPS:
            moved = replace(envelope, number=envelope.number + 1, sender=self._instance_id)
            if await self._delivery.send(holder, moved):
                return
        log.info("node did not hear a command", node_id=envelope.subject)


class _Order(msgspec.Struct, frozen=True):
    """What counts here of a `node_control` frame."""

    command: NodeCommand


_order = msgspec.json.Decoder(_Order)


def _unknown_node(node_id: str) -> NotFound:
    return NotFound(node_id, "no node of this id is connected to the cluster")
