"""The clients of 3.6.0 at a server that encrypts and asks for no certificate of theirs."""

import pytest
from access import CA_FILE, CERT_FILE, KEY_FILE
from access_clients import assert_requests_served, assert_served, connected
from cq import KINDS
from kubemq.cq import Client as CQClient
from kubemq.pubsub import Client as PubSubClient
from kubemq.queues import Client as QueuesClient

CLIENTS = [PubSubClient, QueuesClient, CQClient]
# The SDK wants files of the client where it encrypts.
MISSING = [
    ({"tls_cert_file": ""}, "Certificate file must be specified when TLS is enabled"),
    ({"tls_key_file": ""}, "Key file must be specified when TLS is enabled"),
    ({"tls_cert_file": "", "tls_key_file": ""}, "Certificate file must be specified"),
]


@pytest.mark.parametrize("of", CLIENTS)
@pytest.mark.parametrize(("shown", "text"), MISSING)
def test_the_sdk_refuses_to_encrypt_without_a_certificate(of, shown, text):
    with pytest.raises(ValueError, match=text):
        connected(of, "writer", **shown)


def test_a_certificate_is_shown_unasked():
    assert_served()


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_served_with_a_certificate_that_is_shown_unasked(kind):
    assert_requests_served(kind)


@pytest.mark.parametrize("of", CLIENTS)
def test_who_trusts_another_authority_is_not_served(of):
    assert_not_served(of, tls_ca_file=CERT_FILE, tls_cert_file=CERT_FILE, tls_key_file=KEY_FILE)


@pytest.mark.parametrize("of", CLIENTS)
def test_who_does_not_encrypt_is_not_served(of):
    assert_not_served(of, tls=False, tls_ca_file=CA_FILE)


def assert_not_served(of, **options):
    """Whether making the client fails, or its first call."""
    with pytest.raises(Exception, match="(?i)unavailable|certificate|connect"):
        with connected(of, "writer", **options) as client:
            client.ping()
