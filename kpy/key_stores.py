"""What key stores hold: a private key and its certificates, or certificates that are trusted, as PEM text.

PEM is read here. PKCS12, which keytool writes, needs the package `cryptography`: it is an extra of kpy's
(`keystores`), imported only when there is such a file. A real JKS file, of keytool before Java 9, cannot be read. Like
Java, this looks at a file and not at its type to tell JKS and PKCS12 apart. Kafka classes:
DefaultSslEngineFactory, PemParser.
"""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

MAX_BYTES: Final = 4 * 1024 * 1024
"""Bundles of all public authorities have a quarter of a megabyte."""

_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_LINE: Final = 64
_JKS: Final = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")
"""How JKS and JCEKS files begin."""


class KeyStoreError(Exception):
    """Why a store cannot be used, for the operator."""


class WrongPasswordError(KeyStoreError):
    """The password is missing or wrong, or the store is damaged: that cannot be told apart."""


class KeyStore(NamedTuple):
    """PEM text. The first certificate is that of the key, if there is one, and those that follow vouch for it."""

    key: str | None
    certificates: tuple[str, ...]


def read(path: Path, kind: str, password: str | None) -> KeyStore:
    """The store in a file of this type: PEM, PKCS12 or JKS. Raises KeyStoreError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KeyStoreError(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise KeyStoreError(f"has more than the {MAX_BYTES:,} bytes that a key store can have")
    if kind == "PEM":
        return parse_pem(data.decode("utf-8", "replace"))
    if data.startswith(_JKS):
        command = f"keytool -importkeystore -srckeystore {path} -destkeystore {path}.p12 -deststoretype PKCS12"
        raise KeyStoreError(f"is a JKS file, which kpy cannot read; this makes one that it can: {command}")
    if b"-----BEGIN " in data:
        raise KeyStoreError(f"is a PEM file, and the type of the store is {kind}: it must be PEM")
    return _parse_pkcs12(data, password)


def parse_pem(text: str) -> KeyStore:
    """The first key and all certificates, in their order. As in Java, lines may end anywhere, or nowhere."""
    key: str | None = None
    certificates: list[str] = []
    for label, body in _BLOCK.findall(text):
        if label.endswith("PRIVATE KEY"):
            key = key or _block(label, body)
        elif label in ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"):
            certificates.append(_block(label, body))
    return KeyStore(key, tuple(certificates))


def is_encrypted(key: str) -> bool:
    """Whether a private key needs a password: PKCS#8, or OpenSSL's older form."""
    return "BEGIN ENCRYPTED PRIVATE KEY" in key or "Proc-Type: 4,ENCRYPTED" in key


def _block(label: str, body: str) -> str:
    if ":" not in body:  # With headers, as older forms of encrypted keys have, its lines are as they must be.
        letters = "".join(body.split())
        body = "\n" + "\n".join(letters[start : start + _LINE] for start in range(0, len(letters), _LINE)) + "\n"
    return f"-----BEGIN {label}-----{body}-----END {label}-----\n"


def _parse_pkcs12(data: bytes, password: str | None) -> KeyStore:
    if find_spec("cryptography") is None:
        raise KeyStoreError("is no PEM file, and others need cryptography: pip install 'kpy-broker[keystores]'")
    pkcs12: Any = importlib.import_module("cryptography.hazmat.primitives.serialization.pkcs12")
    serialization: Any = importlib.import_module("cryptography.hazmat.primitives.serialization")
    try:
        store = pkcs12.load_pkcs12(data, None if password is None else password.encode())
    except ValueError:  # The one error of cryptography's for whatever is wrong.
        raise WrongPasswordError("is damaged or no PKCS12 file, or its password is another one") from None
    pem = serialization.Encoding.PEM
    others = [entry.certificate for entry in store.additional_certs]
    key = None
    if store.key is not None:
        key_form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key = store.key.private_bytes(pem, *key_form).decode("ascii")
    if store.cert is not None:
        others = _vouching(store.cert.certificate, others)
    return KeyStore(key, tuple(certificate.public_bytes(pem).decode("ascii") for certificate in others))


def _vouching(first: Any, others: list[Any]) -> list[Any]:
    """A certificate, and of the others who issued it, who issued that, and so on: a store keeps them in any order."""
    chain = [first]
    rest = list(others)
    while issuer := next((other for other in rest if other.subject == chain[-1].issuer), None):
        chain.append(issuer)
        rest.remove(issuer)
    return chain
