"""Sessions' tokens: signed by the client's own backend, or by `manage.py create_session_token`.

A token says who may open a session; a session that is open does not end with it. Times in it are
seconds since 1970, as RFC 7519 has them.
"""

import time
from typing import Any

import jwt

from routing.domain.credentials import LONGEST_SECRET, SessionGrant, SessionKeys
from routing.domain.errors import NotAuthorized

AUDIENCE = "scheduler-session"
ALGORITHM = "HS256"
LONGEST_LIFE_S = 86_400
LEEWAY_S = 10
"""How far the clock of who signs may be from ours."""

LONGEST_TENANT = 128
MOST_WORDS = 1_000


class SessionTokens:
    """Checks tokens, and makes them."""

    def __init__(self, keys: SessionKeys) -> None:
        self._keys = keys

    def verify(self, token: str) -> SessionGrant:
        """What a token allows. Raises NotAuthorized, with a sentence for its bearer."""
        if len(token) > LONGEST_SECRET:
            raise NotAuthorized(f"a session token has at most {LONGEST_SECRET} characters")
        try:
            key = self._keys.keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise NotAuthorized("the session token is signed by no key of this scheduler")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["exp", "aud", "tenant"]},
            )
        except jwt.ExpiredSignatureError:
            raise NotAuthorized("the session token has expired; get another one") from None
        except jwt.InvalidAudienceError:
            raise NotAuthorized(f"the session token is not for '{AUDIENCE}'") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            raise NotAuthorized("the session token is not one of this scheduler's") from None
        return _grant(claims)

    def issue(self, tenant: str, *, minutes: int, **claims: Any) -> str:
        """A token for a tenant. `claims` may be sub, pairs, languages and limits."""
        key_id = self._keys.signing
        if key_id is None:
            raise ValueError("SCHED_SESSION_KEYS is empty: there is no key to sign with")
        now_s = int(time.time())
        body = {**claims, "tenant": tenant, "aud": AUDIENCE, "exp": now_s + minutes * 60}
        _grant(body)
        return jwt.encode(
            body, self._keys.keys[key_id], algorithm=ALGORITHM, headers={"kid": key_id}
        )


def _grant(claims: dict[str, Any]) -> SessionGrant:
    """Read the claims; what is there and cannot be read allows nothing."""
    tenant = claims["tenant"]
    # Printable: half a surrogate pair, which JSON can name, has no bytes to make a key of.
    if (
        not isinstance(tenant, str)
        or not 1 <= len(tenant) <= LONGEST_TENANT
        or not tenant.isprintable()
    ):
        raise NotAuthorized(
            f"'tenant' of a session token is 1 to {LONGEST_TENANT} printable characters"
        )
    if claims["exp"] - time.time() > LONGEST_LIFE_S + LEEWAY_S:
        raise NotAuthorized(f"a session token is good for at most {LONGEST_LIFE_S} s")
    limits = claims.get("limits")
    if limits is None:
        limits = {}
    if not isinstance(limits, dict):
        raise NotAuthorized("'limits' of a session token is an object")
    return SessionGrant(
        tenant,
        languages=_words(claims, "languages"),
        pairs=_words(claims, "pairs"),
        rate=_count(limits, "rate"),
        in_flight=_count(limits, "in_flight"),
    )


def _words(claims: dict[str, Any], name: str) -> frozenset[str] | None:
    words = claims.get(name)
    if words is None:
        return None
    if (
        not isinstance(words, list)
        or len(words) > MOST_WORDS
        or not all(isinstance(word, str) for word in words)
    ):
        raise NotAuthorized(f"'{name}' of a session token is a list of texts")
    return frozenset(words)


def _count(limits: dict[str, Any], name: str) -> int | None:
    value = limits.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
        raise NotAuthorized(f"'limits.{name}' of a session token is a whole number from 1")
    return value
