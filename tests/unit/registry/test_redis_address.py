"""Addresses of Redis: what is read from the settings, and how a wrong one is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.store.address import Address, RedisMode, cluster, sentinel, single


class TestSingle:
    def test_a_server_has_its_host_and_its_options(self) -> None:
        address = single("redis://me:s%40fe@redis.local:6380/3?health_check_interval=9")
        assert address.mode is RedisMode.SINGLE
        assert address.hosts == (("redis.local", 6380),)
        assert address.options == {
            "username": "me",
            "password": "s@fe",
            "db": 3,
            "health_check_interval": 9,
        }
        assert not address.tls

    def test_a_port_may_be_left_out(self) -> None:
        assert single("redis://redis.local").hosts == (("redis.local", 6379),)
        assert single("redis://[::1]/0").hosts == (("::1", 6379),)

    def test_a_socket_has_a_path_and_no_host(self) -> None:
        address = single("unix:///run/redis/with%20blank.sock?db=2")
        assert address.hosts == ()
        assert address.options == {"path": "/run/redis/with blank.sock", "db": 2}

    def test_tls_reads_its_options(self, tmp_path: Path) -> None:
        ca = tmp_path / "ca.pem"
        ca.touch()
        address = single(f"rediss://redis.local/0?ssl_ca_certs={ca}&ssl_check_hostname=false")
        assert address.tls
        assert address.options["ssl_ca_certs"] == str(ca)
        assert address.options["ssl_check_hostname"] is False


class TestSentinel:
    def test_it_names_the_sentinels_and_the_service(self) -> None:
        address = sentinel("redis://me:secret@s1,s2:26380,[::1]:26381/orders?db=1")
        assert address.mode is RedisMode.SENTINEL
        assert address.hosts == (("s1", 26379), ("s2", 26380), ("::1", 26381))
        assert address.service == "orders"
        assert address.options == {"username": "me", "password": "secret", "db": 1}
        assert address.sentinel_options == {}

    def test_a_service_may_be_left_out(self) -> None:
        assert sentinel("redis://s1").service == "mymaster"

    def test_sentinels_have_credentials_of_their_own_and_the_same_tls(self, tmp_path: Path) -> None:
        ca = tmp_path / "ca.pem"
        ca.touch()
        query = f"sentinel_username=watch&sentinel_password=dog&ssl_ca_certs={ca}"
        address = sentinel(f"rediss://me:secret@s1/x?{query}")
        assert address.sentinel_options == {
            "username": "watch",
            "password": "dog",
            "ssl_ca_certs": str(ca),
        }
        assert address.options["password"] == "secret"
        assert not any(name.startswith("sentinel_") for name in address.options)


class TestCluster:
    def test_it_names_some_nodes_with_the_options_of_the_first(self) -> None:
        address = cluster(["redis://me:secret@n1:7000", "redis://n2", "redis://n3:7002"])
        assert address.mode is RedisMode.CLUSTER
        assert address.hosts == (("n1", 7000), ("n2", 6379), ("n3", 7002))
        assert address.options == {"username": "me", "password": "secret"}

    def test_several_hosts_may_stand_in_one_address(self) -> None:
        assert cluster(["redis://n1,n2:7001"]).hosts == (("n1", 6379), ("n2", 7001))


REFUSED: list[tuple[Callable[[], Address], str, str]] = [
    (lambda: single("localhost:6379"), "SCHED_REDIS_URL", "redis://host:6379/0"),
    (lambda: single("http://localhost"), "SCHED_REDIS_URL", "redis://host:6379/0"),
    (lambda: single("redis://"), "SCHED_REDIS_URL", "redis://host:6379/0"),
    (lambda: single("unix:///"), "SCHED_REDIS_URL", "unix:///path/to/socket"),
    (lambda: single("redis://host:port/0"), "SCHED_REDIS_URL", "host:6379/0"),
    (lambda: single("redis://host:70000/0"), "SCHED_REDIS_URL", "host:6379/0"),
    (lambda: single("redis://:6379/0"), "SCHED_REDIS_URL", "host:6379/0"),
    (lambda: single("redis://a,b/0"), "SCHED_REDIS_URL", "SCHED_REDIS_MODE=sentinel"),
    (lambda: single("redis://host/0?colour=red"), "SCHED_REDIS_URL", "'colour'"),
    (lambda: single("redis://host/?db=one"), "SCHED_REDIS_URL", "'db'"),
    (lambda: single("rediss://host/0?ssl_ca_certs=/no/ca"), "SCHED_REDIS_URL", "/no/ca"),
    (lambda: single("rediss://host/0?ssl_cert_reqs=maybe"), "SCHED_REDIS_URL", "maybe"),
    (lambda: sentinel("s1:26379,s2:26379"), "SCHED_REDIS_URL", "redis://sentinel1:26379"),
    (lambda: sentinel("unix:///run/redis.sock"), "SCHED_REDIS_URL", "redis://sentinel1:26379"),
    (lambda: sentinel("redis://s1,:26379/x"), "SCHED_REDIS_URL", "redis://sentinel1:26379"),
    (lambda: sentinel("redis://s1:x/x"), "SCHED_REDIS_URL", "redis://sentinel1:26379"),
    (lambda: cluster([]), "SCHED_REDIS_CLUSTER_URLS", "redis://node1:6379"),
    (lambda: cluster(["n1:7000"]), "SCHED_REDIS_CLUSTER_URLS", "redis://node1:6379"),
    (lambda: cluster(["redis://n1", "n2"]), "SCHED_REDIS_CLUSTER_URLS", "redis://node1:6379"),
    (lambda: cluster(["redis://n1:x"]), "SCHED_REDIS_CLUSTER_URLS", "redis://node1:6379"),
    (lambda: cluster(["redis://n1/2"]), "SCHED_REDIS_CLUSTER_URLS", "database"),
]


@pytest.mark.parametrize(("address", "setting", "example"), REFUSED)
def test_a_wrong_address_is_refused_with_the_setting_and_an_example(
    address: Callable[[], Address], setting: str, example: str
) -> None:
    with pytest.raises(ValueError, match=setting) as refusal:
        address()
    assert example in str(refusal.value)
    assert "looks like" in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["redis://me:secret@host:x/0", "redis://me:secret@host/0?colour=red"]
)
def test_a_refusal_tells_no_password(url: str) -> None:
    for parse in (single, sentinel, lambda url: cluster([url])):
        with pytest.raises(ValueError, match="SCHED_REDIS_") as refusal:
            parse(url)
        assert "secret" not in str(refusal.value)
