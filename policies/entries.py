"""How messages enter the queue, of which stream they are, and how they go on under another queue id within the host.

Knows the lines before the first activation, and what a delivery looks like that is none: to a content filter, to an alias.
"""

from parsers.postfix import facts
from policies.commands import Received
from policies.messages import ENTERED, IDENTIFIED, Message, Messages
from policies.open_message import is_near, next_queue_id
from policies.outcomes import LOOPBACK_NAMES
from policies.site import Settings
from policies.stored_address import stored
from policies.stream import NO_STREAM, header_word, stream
from policies.telling import Telling


class Entries:
    """Learns of live messages what reports and searches want to know; decides nothing."""

    def __init__(self, messages: Messages, telling: Telling, settings: Settings) -> None:
        self._messages = messages
        self._telling = telling
        self.settings = settings

    def submitted(self, fact: facts.ClientIdentified, *, now: float) -> None:
        """Note who submitted a message; one that comes back from a content filter is of the stream that went in."""
        if not fact.queue_id:
            return
        message = self._messages.obtain(fact.record.instance, fact.queue_id, now=now)
        client = f"{fact.client_host}[{fact.client_address}]" if fact.client_address else fact.client_host
        message.entry = (client, "")
        before = self._messages.live(fact.orig_queue_id) if fact.orig_queue_id else None
        if before is not None:
            message.stream = before.stream
        elif fact.sasl_username:
            message.stream = stream(fact.sasl_username, *message.stream[1:])

    def identified(self, fact: facts.MessageIdentified, *, now: float) -> None:
        """Note a message's id until it is active."""
        message = self._messages.obtain(fact.record.instance, fact.queue_id, now=now)
        if not message.activation:
            message.entry = ((message.entry or IDENTIFIED)[0], fact.message_id)

    def activated(self, fact: facts.QueueActive, message: Message, *, now: float) -> None:
        """Tell of a message that the queue manager has for the first time."""
        if message.activation or message.entry is None:
            return
        client, message_id = message.entry
        message.entry = IDENTIFIED if client is None else ENTERED
        sender = stored(fact.sender, self.settings.addresses)
        self._telling.received.append(
            Received(
                now,
                fact.record.host,
                message.instance,
                message.queue_id,
                message_id,
                sender,
                fact.size,
                fact.nrcpt,
                client or "",
                message.stream.tenant,
            )
        )

    def header(self, fact: facts.HeaderLogged, name: str, *, now: float) -> None:
        """Take a header that may name the campaign or the segment; the first one that the message has."""
        if name not in self.settings.campaign_headers and name not in self.settings.segment_headers:
            return
        message = self._messages.obtain(fact.record.instance, fact.queue_id, now=now)
        word = header_word(name, fact.value)
        tenant, campaign, segment = message.stream
        if name in self.settings.campaign_headers:
            campaign = campaign or word
        if name in self.settings.segment_headers:
            segment = segment or word
        message.stream = stream(tenant, campaign, segment)

    def passed_on(self, fact: facts.DeliveryAttempt, message: Message) -> str:
        """Tell under which queue id it goes on in this host, "-" where that was not said; "" where the outcome is final."""
        if fact.status != "sent":
            return ""
        queue_id = next_queue_id(fact)
        following = self._messages.live(queue_id) if queue_id else None
        alias = fact.reason.startswith("forwarded as ")
        if following is not None and (alias or is_near(fact.relay_address)):
            if following.stream == NO_STREAM:
                following.stream = message.stream
            return queue_id
        if alias:
            return queue_id
        relayed = self.settings.instance(message.instance).relayhost  # which may be on the loopback
        filtered = fact.relay_port is not None and fact.relay_host in LOOPBACK_NAMES and not relayed
        return (queue_id or ("-" if fact.record.daemon == "smtp" else "")) if filtered else ""
