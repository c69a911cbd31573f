"""Every error dispatch raises, and the codes the outside sees.

RoutingError
├── NotAuthorized         the peer may not do this: answered with an `error` frame, and closed
└── FrameRefused          a frame that cannot be acted on; answered with an `error` frame
    ├── InvalidMessage    malformed, unknown, or lacking what the contract asks for
    ├── InvalidCapability a registration whose capability fields do not fit the schema
    └── InvalidSession    a frame for a session that this socket does not hold
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    INVALID_MESSAGE = "INVALID_MESSAGE"
    INVALID_SESSION = "INVALID_SESSION"
    UNAUTHORIZED = "UNAUTHORIZED"
    RATE_LIMITED = "RATE_LIMITED"
    QUEUE_FULL = "QUEUE_FULL"
    NO_AVAILABLE_NODE = "NO_AVAILABLE_NODE"
    JOB_TIMEOUT = "JOB_TIMEOUT"
    JOB_CANCELLED = "JOB_CANCELLED"
    NODE_FAILED = "NODE_FAILED"
    NODE_ID_CONFLICT = "NODE_ID_CONFLICT"
    INVALID_CAPABILITY_SCHEMA = "INVALID_CAPABILITY_SCHEMA"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class CloseCode:
    """WebSocket close codes of the contract, and ours beside them."""

    NORMAL = 1000
    TOO_LARGE = 1009
    GOING_DOWN = 1012
    TRY_LATER = 1013
    UNAUTHORIZED = 4401
    SILENT = 4408
    REPLACED = 4409
    TOO_SLOW = 4413
    TOO_MUCH = 4429


class RoutingError(Exception):
    """Root of the tree."""


class NotAuthorized(RoutingError):
    """The peer's credentials do not allow this. The text goes back to it; it names no secret."""


class FrameRefused(RoutingError):
    """A frame that cannot be acted on. `code` and the text go back to the sender."""

    code = ErrorCode.INVALID_MESSAGE


class InvalidMessage(FrameRefused):
    """The frame is malformed, of an unknown type, or lacks what the contract asks for."""


class InvalidCapability(FrameRefused):
    """The capability fields of a registration do not fit the schema."""

    code = ErrorCode.INVALID_CAPABILITY_SCHEMA


class InvalidSession(FrameRefused):
    """The frame names a session that this socket does not hold, or comes before `session_init`."""

    code = ErrorCode.INVALID_SESSION
