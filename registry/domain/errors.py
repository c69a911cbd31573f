"""Every error the registry raises.

    RegistryError
    ├── InvalidTransition     a state machine was asked for a step its table does not have
    ├── InvalidTiming         a set of durations that cannot work together
    ├── InvalidIdentifier     an id that could not be part of a key
    └── StoreUnavailable      the shared store did not answer, or answered that it cannot serve now

Losing a race is a result, not an error: see the `Claim` and `Acquisition` unions in `ports`.
"""


class RegistryError(Exception):
    """Root of the tree."""


class InvalidTransition(RegistryError):
    """A state machine was asked for a step its table does not have. Nothing was changed."""


class InvalidTiming(RegistryError, ValueError):
    """A set of durations that cannot work together; the text names the settings and the cure."""


class InvalidIdentifier(RegistryError, ValueError):
    """An id that is empty, too long, or has characters that keys do not allow."""


class StoreUnavailable(RegistryError):
    """The shared store did not answer, or cannot serve now. The command may or may not have run."""
