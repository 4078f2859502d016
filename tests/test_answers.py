"""An admin's words as a policy request."""

import pytest

from sidecar.answers import policy_request


def test_unsaid_attributes_are_empty() -> None:
    request = policy_request({"sender": "a@example.com", "recipient": "b@gmail.com", "size": "12"})
    assert (request.sender, request.recipient, request.size, request.queue_id) == (
        "a@example.com",
        "b@gmail.com",
        12,
        "",
    )


@pytest.mark.parametrize("asked", [{"recipent": "b@gmail.com"}, {"size": "large"}])
def test_what_the_protocol_does_not_know_is_refused(asked: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"recipent|large"):
        policy_request(asked)
