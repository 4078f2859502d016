"""Which mailbox provider is behind a recipient's domain, as learned at run time.

Well-known domains come with the rules; hosted ones are learned from the relay that served them and
from MX look-ups that somebody else makes in the background. Nothing here waits for DNS.
"""

from policies.provider_directory import ProviderDirectory

MOST_HEARD = 100_000
"""Domains of which only other hosts of the fleet have told us."""
MOST_NEWS = 10_000
_MOST_REMEMBERED = 8_192
_MOST_WANTED = 5_000
_MOST_LEARNED = 1_000_000
MX_LIFETIME = 86_400.0
"""Seconds after which a learned domain is looked up again, when it is asked for."""


class RecipientProviders:
    """Recipient domain -> provider id, and the domains nobody has told us of yet."""

    def __init__(self, directory: ProviderDirectory) -> None:
        self.use(directory)
        self._learned: dict[str, tuple[str, float]] = {}
        self._wanted: dict[str, None] = {}
        self._asked: dict[str, float] = {}
        self.fresh: list[tuple[str, str, float]] = []
        """(domain, provider, time) learned since the last look, for the store."""
        self._heard: set[str] = set()
        """Of the learned domains, those that another host of the fleet told us of and nobody here has seen."""
        self.news: list[tuple[str, str]] | None = None
        """(domain, provider) for the other hosts; None: there are none. One longer than MOST_NEWS has lost some."""

    def use(self, directory: ProviderDirectory) -> None:
        """Ask this directory from now on; what was learned stays."""
        self._directory = directory
        self._well_known: dict[str, str | None] = {}
        """What it said lately, None among it."""

    def of_domain(self, domain: str, *, now: float) -> str | None:
        """Look a domain up in memory; an unknown one is put on the list of the wanted."""
        if domain not in self._well_known:
            if len(self._well_known) >= _MOST_REMEMBERED:
                self._well_known.clear()
            self._well_known[domain] = self._directory.of_domain(domain)
        known = self._well_known[domain]
        if known is not None:
            return known
        learned = self._learned.get(domain)
        if learned is None or now - learned[1] > MX_LIFETIME:
            self._want(domain, now=now)
        return learned[0] if learned is not None else None

    def of_relay(self, host: str) -> str | None:
        """Tell the provider that runs this MX host."""
        return self._directory.of_host(host)

    def learn(self, domain: str, provider: str, *, now: float) -> None:
        if len(self._learned) >= _MOST_LEARNED and domain not in self._learned:
            oldest = next(iter(self._learned))
            del self._learned[oldest]
            self._heard.discard(oldest)
        if self._learned.get(domain, ("", 0.0))[0] != provider:
            self.fresh.append((domain, provider, now))
            if self.news is not None and len(self.news) <= MOST_NEWS:
                self.news.append((domain, provider))
        self._heard.discard(domain)
        self._learned[domain] = (provider, now)
        self._wanted.pop(domain, None)

    def learn_mx(self, domain: str, hosts: tuple[str, ...], *, now: float) -> None:
        """Take a look-up's answer: MX hosts in order of preference, empty where there are none."""
        self._wanted.pop(domain, None)
        if hosts:
            provider = self._directory.of_host(hosts[0])
            if provider is not None:
                self.learn(domain, provider, now=now)

    def wanted(self, limit: int) -> list[str]:
        """Take up to `limit` domains that want a look-up; each is named once an hour at most."""
        domains = list(self._wanted)[:limit]
        for domain in domains:
            del self._wanted[domain]
        return domains

    def learned(self) -> dict[str, str]:
        """Give the providers of all domains that were learned."""
        return {domain: provider for domain, (provider, _) in self._learned.items()}

    def known(self) -> dict[str, str]:
        """Give the providers of all domains that are known, well-known and learned.

        A well-known ".rr.com" stands for all below it, as in Postfix's transport tables.
        """
        learned = self._learned.copy()
        return self._directory.domains() | {domain: provider for domain, (provider, _) in learned.items()}

    def restore(self, domain: str, provider: str, learned: float) -> None:
        """Take back what the store kept; of several providers of one domain the one learned last."""
        if learned >= self._learned.get(domain, ("", 0.0))[1]:
            self._learned[domain] = (provider, learned)

    # A fleet's.

    def hear(self, domain: str, provider: str, *, at: float, now: float) -> bool:
        """Another host learned it at `at`. Whether it counts here: what was seen here in the last day counts more."""
        known = self._learned.get(domain)
        if known is not None and domain not in self._heard and (now - known[1] <= MX_LIFETIME or at <= known[1]):
            return known[0] == provider
        if domain not in self._heard and len(self._heard) >= MOST_HEARD:
            return False
        self._heard.add(domain)
        self._learned[domain] = (provider, at)
        self._wanted.pop(domain, None)
        return True

    def seen(self, limit: int) -> list[tuple[str, str]]:
        """Give (domain, provider) of what was seen here, the latest `limit` of them."""
        found = [(domain, said[0]) for domain, said in self._learned.items() if domain not in self._heard]
        return found[-limit:]

    def here(self, domain: str) -> tuple[str, bool] | None:
        """Tell the provider that counts here, and whether that was seen here; None: nothing is known."""
        learned = self._learned.get(domain)
        return (learned[0], domain not in self._heard) if learned is not None else None

    def _want(self, domain: str, *, now: float) -> None:
        if not domain or domain in self._wanted or len(self._wanted) >= _MOST_WANTED:
            return
        asked = self._asked.get(domain)
        if asked is None or now - asked > 3600:
            if len(self._asked) >= _MOST_LEARNED:
                self._asked.clear()
            self._asked[domain] = now
            self._wanted[domain] = None
