"""Who may open a socket."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """`open` lets everyone in; `required` asks for credentials, which no one can have yet."""

    node_auth: str
    session_auth: str

    def refuse_node(self) -> str | None:
        """Why a node may not come in; None when it may."""
        return _refusal("SCHED_NODE_AUTH", self.node_auth)

    def refuse_session(self) -> str | None:
        """Why a session may not come in; None when it may."""
        return _refusal("SCHED_SESSION_AUTH", self.session_auth)


def _refusal(setting: str, auth: str) -> str | None:
    if auth == "open":
        return None
    return (
        f"this scheduler requires credentials ({setting} is 'required') and none were given;"
        f" within a network you trust its operator may set {setting}=open"
    )
