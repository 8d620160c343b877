"""What the ssl.* keys make of a listener's TLS: certificate, who is trusted, versions and suites, and every error."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from compat.certificates import PASSWORD, Certificates, encrypted, make_certificates
from kpy.config import BrokerConfig, ConfigError
from kpy.tls_context import TLS_1_2_SUITES, TLS_1_3_SUITES, server_context

LISTENERS = {"listeners": "PLAINTEXT://localhost:9092,SSL://localhost:9093"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def context_of(keys: Mapping[str, str], listener: str = "SSL") -> ssl.SSLContext:
    return server_context(BrokerConfig.of({**LISTENERS, **keys}), listener)


class Ends:
    """A server with this context and a client, in memory."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        self.client = client.wrap_bio(to_client, to_server, server_hostname="localhost")

    def shake_hands(self) -> None:
        """Raises SSLError."""
        waiting = [self.client, self.server]
        while waiting:
            end = waiting.pop(0)
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(end)
        with pytest.raises(ssl.SSLWantReadError):
            self.client.read()  # Session tickets, or that the certificate was refused.


def ends(context: ssl.SSLContext, certificates: Certificates, shows: Path | None = None) -> Ends:
    client = ssl.create_default_context(cafile=str(certificates.ca))
    if shows is not None:
        client.load_cert_chain(shows)
    return Ends(context, client)


def test_a_pem_store_is_key_and_chain_in_one_file(certificates: Certificates) -> None:
    ends(context_of(certificates.of_broker()), certificates).shake_hands()


def test_key_and_chain_may_be_in_the_configuration_itself(certificates: Certificates) -> None:
    text = certificates.server.read_text()
    inline = {"ssl.keystore.type": "PEM", "ssl.keystore.key": text, "ssl.keystore.certificate.chain": text}
    ends(context_of(inline), certificates).shake_hands()


def test_pem_text_may_have_lost_its_lines(certificates: Certificates) -> None:
    text = certificates.server.read_text().replace("\n", " ")
    inline = {"ssl.keystore.type": "PEM", "ssl.keystore.key": text, "ssl.keystore.certificate.chain": text}
    ends(context_of(inline), certificates).shake_hands()


def test_an_encrypted_key_has_its_password(certificates: Certificates, tmp_path: Path) -> None:
    store = tmp_path / "server.pem"
    store.write_text(encrypted(certificates.server, "secret"))
    keys = certificates.of_broker(keystore_location=str(store), key_password="secret")
    ends(context_of(keys), certificates).shake_hands()


@pytest.mark.parametrize("kind", ["PKCS12", "JKS", "pkcs12"])
def test_a_store_of_keytool_is_read(certificates: Certificates, kind: str) -> None:
    keys = {"keystore.type": kind, "keystore.location": str(certificates.server_p12), "keystore.password": PASSWORD}
    ends(context_of({f"ssl.{key}": value for key, value in keys.items()}), certificates).shake_hands()


def test_the_key_of_one_listener_wins_over_that_of_all(certificates: Certificates) -> None:
    keys = {
        "listener.name.out.ssl.keystore.location": str(certificates.server),
        "listener.name.out.ssl.client.auth": "required",
        "ssl.keystore.location": "/nowhere",
        "ssl.keystore.type": "PEM",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listeners": "PLAINTEXT://localhost:9092,OUT://localhost:9093",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,OUT:SSL",
    }
    context = context_of(keys, "OUT")
    assert context.verify_mode == ssl.CERT_REQUIRED
    ends(context, certificates, certificates.client).shake_hands()


def test_clients_must_show_a_certificate_if_it_is_required(certificates: Certificates) -> None:
    context = context_of(certificates.asking_clients())
    ends(context, certificates, certificates.client).shake_hands()
    with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
        ends(context, certificates).shake_hands()


def test_clients_need_no_certificate_if_it_is_requested_but_a_good_one_if_any(
    certificates: Certificates, tmp_path: Path
) -> None:
    context = context_of(certificates.asking_clients("requested"))
    ends(context, certificates).shake_hands()
    ends(context, certificates, certificates.client).shake_hands()
    with pytest.raises(ssl.SSLCertVerificationError):
        ends(context, certificates, make_certificates(tmp_path).client).shake_hands()


@pytest.mark.parametrize("store", ["client", "ca_p12", "inline"])
def test_what_is_in_the_trust_store_is_trusted(certificates: Certificates, store: str) -> None:
    keys = certificates.of_broker(client_auth="required")
    if store == "inline":
        keys |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": certificates.ca.read_text()}
    elif store == "ca_p12":
        # Java too reads the trusted certificates in a PKCS12 file as a store of type JKS.
        keys |= {"ssl.truststore.location": str(certificates.ca_p12), "ssl.truststore.password": PASSWORD}
    else:
        # The certificate itself, without who issued it.
        keys |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(certificates.client)}
    ends(context_of(keys), certificates, certificates.client).shake_hands()


def test_without_a_trust_store_the_system_says_who_is_trusted(certificates: Certificates) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        ends(
            context_of(certificates.of_broker(client_auth="required")), certificates, certificates.client
        ).shake_hands()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_only_the_versions_that_are_enabled_are_spoken(certificates: Certificates, version: str) -> None:
    both = ends(context_of(certificates.of_broker(enabled_protocols=version)), certificates)
    both.shake_hands()
    assert both.server.version() == version


def test_two_versions_are_spoken_and_there_is_no_renegotiation(certificates: Certificates) -> None:
    context = context_of(certificates.of_broker())
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("suite", TLS_1_2_SUITES)
def test_suites_have_the_names_of_iana_and_java(certificates: Certificates, suite: str) -> None:
    context = context_of(certificates.of_broker(cipher_suites=suite))
    assert [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"] == [TLS_1_2_SUITES[suite]]
    assert context.maximum_version == ssl.TLSVersion.TLSv1_2


def test_a_version_without_a_suite_is_not_spoken(certificates: Certificates) -> None:
    context = context_of(certificates.of_broker(cipher_suites=",".join(TLS_1_3_SUITES)))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


def test_the_suites_of_both_versions_may_be_named(certificates: Certificates) -> None:
    named = ",".join([*TLS_1_3_SUITES, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"])
    context = context_of(certificates.of_broker(cipher_suites=named))
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize(
    ("keys", "blamed", "allowed"),
    [
        ({"keystore_location": ""}, "ssl.keystore.location", "needs a key and a certificate"),
        ({"keystore_location": "/no/such"}, "ssl.keystore.location", "No such file or directory"),
        ({"keystore_location": "/"}, "ssl.keystore.location", "Is a directory"),
        ({"keystore_location": "CA"}, "ssl.keystore.location", "there is no private key"),
        ({"keystore_location": "KEY"}, "ssl.keystore.location", "there is no certificate"),
        ({"keystore_location": "OTHER"}, "ssl.keystore.location", "do not belong together"),
        ({"keystore_location": "BROKEN"}, "ssl.keystore.location", "OpenSSL does not take"),
        ({"keystore_location": "ENCRYPTED"}, "ssl.key.password", "is encrypted and needs its password"),
        ({"keystore_location": "ENCRYPTED", "key_password": "wrong"}, "ssl.key.password", "or its password is another"),
        ({"keystore_type": "BCFKS"}, "ssl.keystore.type", "must be one of PEM, PKCS12, JKS"),
        ({"keystore_type": "JKS", "keystore_password": "p"}, "ssl.keystore.location", "the type of the store is JKS"),
        ({"keystore_password": "p"}, "ssl.keystore.password", "a PEM store has none"),
        ({"keystore_type": "PKCS12"}, "ssl.keystore.password", "must be set for the store"),
        ({"keystore_type": "PKCS12", "keystore_location": "P12", "keystore_password": "wrong"},
         "ssl.keystore.password", "its password is another one"),
        ({"keystore_type": "PKCS12", "keystore_location": "P12", "keystore_password": PASSWORD, "key_password": "q"},
         "ssl.key.password", "keys have the password of the store"),
        ({"keystore_type": "PKCS12", "keystore_location": "OLD", "keystore_password": PASSWORD},
         "ssl.keystore.location", "keytool -importkeystore -srckeystore"),
        ({"keystore_key": "x"}, "ssl.keystore.certificate.chain", "must be set together with ssl.keystore.key"),
        ({"keystore_certificate_chain": "x"}, "ssl.keystore.key", "must be set together with"),
        ({"keystore_key": "x", "keystore_certificate_chain": "x"}, "ssl.keystore.location", "cannot be set together"),
        ({"keystore_key": "x", "keystore_certificate_chain": "x", "keystore_location": ""},
         "ssl.keystore.key", "there is no private key"),
        ({"keystore_key": "x", "keystore_certificate_chain": "x", "keystore_type": "JKS"},
         "ssl.keystore.type", "must be PEM"),
        ({"enabled_protocols": "TLSv1.1,TLSv1.2"}, "ssl.enabled.protocols", "TLSv1.1 is not available"),
        ({"protocol": "SSLv3"}, "ssl.protocol", "must be one of TLS, TLSv1.2, TLSv1.3"),
        ({"cipher_suites": "TLS_NULL"}, "ssl.cipher.suites", "there is no TLS_NULL; there are TLS_AES_128"),
        ({"cipher_suites": "TLS_AES_128_GCM_SHA256"}, "ssl.cipher.suites", "TLS_CHACHA20_POLY1305_SHA256 too"),
        ({"cipher_suites": "TLS_RSA_WITH_AES_128_CBC_SHA", "enabled_protocols": "TLSv1.3"},
         "ssl.cipher.suites", "none of these is of a version"),
        ({"client_auth": "required", "truststore_location": "/no/such"}, "ssl.truststore.location", "No such file"),
        ({"client_auth": "required", "truststore_location": "KEY"}, "ssl.truststore.location", "no certificate"),
        ({"client_auth": "required", "truststore_location": "CA", "truststore_password": "p"},
         "ssl.truststore.password", "a PEM store has none"),
        ({"client_auth": "required", "truststore_certificates": "x", "truststore_location": "CA"},
         "ssl.truststore.location", "cannot be set together with ssl.truststore.certificates"),
        ({"client_auth": "required", "truststore_certificates": "x"}, "ssl.truststore.certificates", "no certificate"),
        ({"client_auth": "required", "truststore_type": "PKCS12", "truststore_location": "P12"},
         "ssl.truststore.location", "its password is another one"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_an_error_of_its_key(
    certificates: Certificates, tmp_path: Path, keys: dict[str, str], blamed: str, allowed: str
) -> None:
    text = certificates.server.read_text()
    key = text.partition("-----BEGIN CERTIFICATE")[0]
    of_other = certificates.client.read_text().partition("-----BEGIN CERTIFICATE")
    files = {
        "CA": certificates.ca.read_bytes(),
        "KEY": key.encode(),
        "OTHER": (key + "".join(of_other[1:])).encode(),
        "BROKEN": text.replace("MI", "AA").encode(),
        "ENCRYPTED": encrypted(certificates.server, "secret").encode(),
        "P12": certificates.server_p12.read_bytes(),
        "OLD": b"\xfe\xed\xfe\xed\x00\x00\x00\x02",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    keys = {"truststore_type": "PEM", **keys}
    used = {name: str(tmp_path / value) if value in files else value for name, value in keys.items()}
    with pytest.raises(ConfigError) as error:
        context_of(certificates.of_broker(**used))
    assert error.value.key == blamed
    assert allowed in error.value.allowed


def test_the_error_names_the_key_of_the_listener_where_it_was_set_and_no_password(certificates: Certificates) -> None:
    with pytest.raises(ConfigError) as error:
        context_of(certificates.of_broker() | {"listener.name.ssl.ssl.keystore.password": "very-secret"})
    assert error.value.key == "listener.name.ssl.ssl.keystore.password"
    assert error.value.value == "[hidden]"
    assert "very-secret" not in str(error.value)


def test_a_store_that_is_too_large_is_not_read(certificates: Certificates, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="more than the 4,194,304 bytes"):
        context_of(certificates.of_broker(keystore_location=str(large)))


def test_a_store_that_is_not_pem_asks_for_the_extra(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpy.key_stores.find_spec", lambda name: None)
    keys = certificates.of_broker(
        keystore_type="PKCS12", keystore_location=str(certificates.server_p12), keystore_password=PASSWORD
    )
    with pytest.raises(ConfigError, match=r"pip install 'kpy-broker\[keystores\]'"):
        context_of(keys)
