"""The errors of pools.

PoolError
└── InvalidPoolConfig   a published configuration that cannot be read or contradicts itself
"""


class PoolError(Exception):
    """Root of all errors of pools."""


class InvalidPoolConfig(PoolError):
    """A published configuration that cannot be read or contradicts itself; the text says where."""
