"""What `store.redis` may be, and what is said of what it may not."""

import pytest
from redis.crc import key_slot

from sidecar.config import Config, ConfigError, FleetConfig, StoreConfig
from sidecar.fleet import address, joining
from sidecar.fleet.address import Cluster, Place, Sentinels
from sidecar.fleet.cluster import in_one_slot
from sidecar.fleet.redis_store import RedisStore


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "rediss://sidecar@redis.example.com:6380/2?ssl_ca_certs=/etc/ssl/our.pem",
        "redis://[2001:db8::1]:6379/0",
        "unix:///run/redis/redis.sock",
        "unix://sidecar@/run/redis/redis.sock?db=1",
        "sentinel://10.0.0.1,10.0.0.2:26380/mail",
        "cluster://10.0.0.1,10.0.0.2:7001",
        "clusters://sidecar@[2001:db8::1],redis.example.com/",
    ],
)
def test_a_url_that_is_good(url: str) -> None:
    address.check(url)


def test_a_url_of_sentinels() -> None:
    found = address.sentinels("sentinels://side%40car:p%2Fw@a.example,[2001:db8::1]:7000/mail/3")
    assert found == Sentinels(
        (Place("a.example", 26_379), Place("2001:db8::1", 7_000)), "mail", 3, "side@car", "p/w", tls=True
    )
    assert address.sentinels("redis://a.example") is None


def test_a_url_of_a_cluster() -> None:
    found = address.cluster("clusters://side%40car:p%2Fw@a.example,[2001:db8::1]:7000")
    assert found == Cluster((Place("a.example", 6_379), Place("2001:db8::1", 7_000)), "side@car", "p/w", tls=True)
    assert address.cluster("redis://a.example") is None


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("sidecar", "{sidecar}"),
        ("{mail}.sidecar", "{mail}.sidecar"),
        ("a{b", "{a{b}"),
        ("a}b", "{a}b}"),
        ("{}a", "{{}a}"),
        ("{}{a}", "{{}{a}}"),
        ("}{a}", "}{a}"),
    ],
)
def test_a_prefix_that_keeps_keys_in_one_slot(prefix: str, wanted: str) -> None:
    assert in_one_slot(prefix) == wanted
    assert len({key_slot(f"{wanted}:{{{name}}}".encode()) for name in ("roll", "row one")}) == 1


@pytest.mark.parametrize(("prefix", "wanted"), [("", "sidecar"), ("}", "sidecar"), ("}a", "a")])
def test_a_prefix_that_would_spread_keys_over_a_cluster_is_no_good(prefix: str, wanted: str) -> None:
    made = [f"{{{prefix}}}:{{{name}}}".encode() for name in ("roll", "row one")]
    assert len(set(map(key_slot, made))) == 2
    config = Config(store=StoreConfig(redis="cluster://127.0.0.1:1"), fleet=FleetConfig(prefix=prefix))
    with pytest.raises(ConfigError, match=r"store\.redis: with fleet\.prefix = ") as raised:
        joining.pages(config, rows=None, channels=())  # type: ignore[arg-type]  # nothing is asked of them
    assert str(raised.value).endswith(f"as {wanted!r}")
    assert isinstance(RedisStore("redis://127.0.0.1:1", prefix=prefix), RedisStore)  # one server has all keys


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "redi://user:hidden@127.0.0.1",
            "'redi' is none of redis, rediss, unix, sentinel, sentinels, cluster, clusters",
        ),
        ("127.0.0.1:6379", "is none of"),
        ("redis://user:hidden@", "redis:// names no host"),
        ("sentinel://user:hidden@a:1,b:2", "sentinel:// lacks"),
        ("sentinel://user:hidden@a/mail/x", "sentinel:// lacks"),
        ("sentinel://user:hidden@a:x/mail", "'a:x' is no HOST"),
        ("cluster://user:hidden@", "cluster:// names hosts"),
        ("cluster://user:hidden@a/3", "and no database"),
        ("clusters://user:hidden@a,b:x", "'b:x' is no HOST"),
        ("unix://", "unix:// names no socket"),
        ("redis://user:hidden@[::1", "no URL"),
    ],
)
def test_what_is_no_url_is_told_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        address.check(url)
    assert "hidden" not in str(raised.value)
    assert "wanted redis://" in str(raised.value)
