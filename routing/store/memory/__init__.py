"""Dispatch state in memory: for one process without Redis, and for unit tests.

Each method is one step, as its Lua verb is in Redis; see `registry.store.memory`.
"""

from routing.store.memory.deadletters import MemoryDeadLetterStore
from routing.store.memory.inbox import MemoryInboxStore
from routing.store.memory.jobs import MemoryJobStore
from routing.store.memory.queues import MemoryQueueStore
from routing.store.memory.sessions import MemorySessionStore
from routing.store.memory.shares import MemoryShareStore
from routing.store.memory.slots import MemorySlotStore

__all__ = [
    "MemoryDeadLetterStore",
    "MemoryInboxStore",
    "MemoryJobStore",
    "MemoryQueueStore",
    "MemorySessionStore",
    "MemoryShareStore",
    "MemorySlotStore",
]
