"""An authority of its own with certificates for a broker and its clients, in the files that Kafka's keys name."""

from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate

PASSWORD = "changeit"


class Certificates(NamedTuple):
    """The files of one authority."""

    ca: Path
    """What clients trust, and the broker if clients show certificates."""
    server: Path
    """Key and chain in one PEM file, for localhost and 127.0.0.1."""
    client: Path
    """Key and chain of a client."""
    server_p12: Path
    """What is in `server`, as PKCS12 with PASSWORD."""
    client_p12: Path
    ca_p12: Path

    def of_broker(self, **keys: str) -> dict[str, str]:
        """Keys of a broker with this certificate; `keys` are more, without ssl. and with underscores."""
        more = {f"ssl.{name.replace('_', '.')}": value for name, value in keys.items()}
        return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(self.server), **more}

    def asking_clients(self, how: str = "required") -> dict[str, str]:
        """Keys of a broker that asks its clients for certificates."""
        return self.of_broker(client_auth=how, truststore_type="PEM", truststore_location=str(self.ca))

    @classmethod
    def in_directory(cls, directory: Path) -> "Certificates":
        """Those that have been made there."""
        return cls(
            *(directory / (f"{name}.pem" if "_" not in name else name.replace("_", ".")) for name in cls._fields)
        )


def make_certificates(directory: Path) -> Certificates:
    """Makes all files anew, in a directory that is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Certificates.in_directory(directory)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made.ca)
    for pem, p12, issued in (
        (made.server, made.server_p12, authority.issue_cert("localhost", "127.0.0.1")),
        (made.client, made.client_p12, authority.issue_cert("client.example.com")),
    ):
        pem.write_text(_in_pkcs8(issued.private_key_and_cert_chain_pem.bytes(), NoEncryption()))
        p12.write_bytes(_as_pkcs12(pem.read_bytes(), made.ca.read_bytes()))
    trusted = [PKCS12Certificate(x509.load_pem_x509_certificate(made.ca.read_bytes()), b"ca")]
    made.ca_p12.write_bytes(pkcs12.serialize_java_truststore(trusted, BestAvailableEncryption(PASSWORD.encode())))
    return made


def encrypted(pem: Path, password: str) -> str:
    """What is in a file with a key and its chain, with the key encrypted."""
    return _in_pkcs8(pem.read_bytes(), BestAvailableEncryption(password.encode()))


def _in_pkcs8(key_and_chain: bytes, encryption: KeySerializationEncryption) -> str:
    """The one form of keys that Apache Kafka reads."""
    key = load_pem_private_key(key_and_chain, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    chain = x509.load_pem_x509_certificates(key_and_chain)
    return (key + b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)).decode()


def _as_pkcs12(key_and_chain: bytes, authority: bytes) -> bytes:
    key = load_pem_private_key(key_and_chain, None)
    own, *issuers = x509.load_pem_x509_certificates(key_and_chain)
    issuers += x509.load_pem_x509_certificates(authority)
    encryption = BestAvailableEncryption(PASSWORD.encode())
    return pkcs12.serialize_key_and_certificates(b"key", key, own, issuers, encryption)
