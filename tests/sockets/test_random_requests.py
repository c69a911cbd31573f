"""Whatever comes over HTTP, no answer is a fault of ours and no log holds a stack."""

import http.client
import os
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sockets.conftest import Instances
from tests.support.cluster import Instance

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
ROUTES = (
    *("/", "/healthz", "/readyz", "/metrics", "/admin/", "/admin/live/", "/admin/login/"),
    *("/admin/routing/nodecredential/add/", "/admin/routing/nodecredential/", "/ws/node"),
    *("/api/v1/state", "/api/v1/nodes", "/api/v1/pools", "/api/v1/simulate", "/api/v1/docs"),
    *("/api/v1/openapi.json", "/static/admin/css/base.css", "/ws/session", "/ws/ops"),
    *("/api/v1/leader/step-down", "/api/v1/pools/regenerate"),
)
WITH_ID = (
    *("/api/v1/nodes/{}", "/api/v1/pools/{}", "/api/v1/jobs/{}", "/api/v1/sessions/{}"),
    *("/api/v1/nodes/{}/drain", "/admin/registry/node/{}/change/", "/static/{}", "/{}"),
)
METHODS = ("GET", "GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")
FIELDS = ("cursor", "limit", "src_lang", "tgt_lang", "n", "q", "p", "next", "o", "x", "_popup")
HEADERS = (
    *("Authorization", "Cookie", "Content-Type", "Accept", "X-CSRFToken", "Origin", "Referer"),
    *("X-Forwarded-For", "Accept-Language", "If-Modified-Since", "Range", "Sec-WebSocket-Protocol"),
)

odd = st.sampled_from(
    [b"", b"\0", b"\xff\xfe", b"..", b"../../etc/passwd", b"{x}", b"%", b"9" * 400, b"-1", b"1e9"]
) | st.binary(max_size=20)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
header_values = printable | st.sampled_from(
    [
        *("Bearer ", "Bearer sched_" + "A" * 43, "Basic !!!", "sessionid=x; csrftoken=", "bearer."),
        *("application/json", "multipart/form-data", "bytes=9-1", "null", "text/html;q=x", "*/*"),
        *("\xff\xfe", "Thu, 99 Foo 2026 00:00:00 GMT", "csrftoken=" + "x" * 5_000),
    ]
)
bodies = st.sampled_from(
    [b"", b"{", b"[]", b'{"reason": 1}', b'{"reason": "\\ud800"}', b"[" * 5_000]
)


@st.composite
def targets(draw: st.DrawFn) -> str:
    """A known route or one with an odd id, and odd fields behind it."""
    path = draw(st.sampled_from(ROUTES) | st.sampled_from(WITH_ID))
    path = path.replace("{}", quote(draw(odd), safe=""))
    fields = draw(st.lists(st.tuples(st.sampled_from(FIELDS), odd), max_size=3))
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in fields)
    return f"{path}?{query}" if query else path


def ask(instance: Instance, method: str, target: str, headers: dict[str, str], body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=30)
    try:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_whatever_is_asked_no_answer_is_a_fault_of_ours(instances: Instances) -> None:
    asked = (instances.shared, instances.locked)

    @settings(
        max_examples=EXAMPLES or 150,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(METHODS),
        targets(),
        st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=3),
        bodies,
    )
    def run(method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        for instance in asked:
            status = ask(instance, method, target, headers, body)
            assert 200 <= status < 500, (method, target, headers, body, status)

    run()
    for instance in asked:
        assert "Traceback" not in instance.log
        assert instance.get("/healthz")[0] == 200
