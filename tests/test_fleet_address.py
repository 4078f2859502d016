"""What `store.redis` may be, and what is said of what it may not."""

import pytest

from sidecar.fleet import address
from sidecar.fleet.address import Sentinels


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "rediss://sidecar@redis.example.com:6380/2?ssl_ca_certs=/etc/ssl/our.pem",
        "redis://[2001:db8::1]:6379/0",
        "unix:///run/redis/redis.sock",
        "unix://sidecar@/run/redis/redis.sock?db=1",
        "sentinel://10.0.0.1,10.0.0.2:26380/mail",
    ],
)
def test_a_url_that_is_good(url: str) -> None:
    address.check(url)


def test_a_url_of_sentinels() -> None:
    found = address.sentinels("sentinels://side%40car:p%2Fw@a.example,[2001:db8::1]:7000/mail/3")
    assert found == Sentinels((("a.example", 26_379), ("2001:db8::1", 7_000)), "mail", 3, "side@car", "p/w", tls=True)
    assert address.sentinels("redis://a.example") is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redi://user:hidden@127.0.0.1", "'redi' is none of redis, rediss, unix, sentinel, sentinels"),
        ("127.0.0.1:6379", "is none of"),
        ("redis://user:hidden@", "redis:// names no host"),
        ("sentinel://user:hidden@a:1,b:2", "sentinel:// lacks"),
        ("sentinel://user:hidden@a/mail/x", "sentinel:// lacks"),
        ("sentinel://user:hidden@a:x/mail", "'a:x' is no HOST"),
        ("unix://", "unix:// names no socket"),
        ("redis://user:hidden@[::1", "no URL"),
    ],
)
def test_what_is_no_url_is_told_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        address.check(url)
    assert "hidden" not in str(raised.value)
    assert "wanted redis://" in str(raised.value)
