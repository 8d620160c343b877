"""How a listener of security protocol SSL speaks TLS: what the ssl.* keys say, as an SSLContext of Python's.

Each key may be set for one listener, as listener.name.<name>.<key>, which wins. What cannot be used raises ConfigError,
which names the key that was set and never shows a password. TLS 1.2 and 1.3 are there, and no renegotiation. Without a
trust store a certificate that a client shows is checked by the authorities that the system trusts, as Java does it.
Kafka classes: DefaultSslEngineFactory, SslConfigs.
"""

import logging
import os
import ssl
from pathlib import Path
from typing import Final

from kpy import key_stores
from kpy.config import BrokerConfig
from kpy.config_types import ConfigError, Type, Value, to_text
from kpy.key_stores import KeyStore, KeyStoreError, WrongPasswordError

log = logging.getLogger("kpy.server")

_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH: Final = {"none": ssl.CERT_NONE, "requested": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_STORE_TYPES: Final = ("PEM", "PKCS12", "JKS")

TLS_1_3_SUITES: Final = frozenset({"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"})
TLS_1_2_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384": "ECDHE-ECDSA-AES256-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384": "ECDHE-RSA-AES256-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA256": "AES256-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
}
"""IANA's names, which Java has too, and OpenSSL's. Those with DHE want parameters that no key of Kafka's gives."""


class TlsContexts:
    """The contexts of a broker's listeners of security protocol SSL. The constructor raises ConfigError."""

    def __init__(self, config: BrokerConfig) -> None:
        self._contexts = _server_contexts(config)

    def of(self, listener: str) -> ssl.SSLContext:
        """What the next connection to this listener gets."""
        return self._contexts[listener]

    def check(self, config: BrokerConfig) -> None:
        """Whether `reload` can do what it should. Raises ConfigError."""
        _server_contexts(config)

    def reload(self, config: BrokerConfig) -> None:
        """Reads all files again; if something is wrong with one, the log says so and all stays."""
        try:
            self._contexts = _server_contexts(config)
        except ConfigError as error:
            log.error("the certificates of before stay in use: %s", error)


def _server_contexts(config: BrokerConfig) -> dict[str, ssl.SSLContext]:
    spoken = config.security_protocols
    return {name: server_context(config, name) for name in spoken if spoken[name] == "SSL"}


def server_context(config: BrokerConfig, listener: str) -> ssl.SSLContext:
    """The context of what connects to this listener. Raises ConfigError."""
    keys = ListenerKeys(config, listener)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    _choose_versions(context, keys)
    _choose_suites(context, keys)
    _load_key(context, keys)
    context.verify_mode = _CLIENT_AUTH[str(keys.value("ssl.client.auth"))]
    if context.verify_mode != ssl.CERT_NONE:
        _load_trusted(context, keys)
    return context


class ListenerKeys:
    """The values of the keys that are in force for one listener."""

    def __init__(self, config: BrokerConfig, listener: str) -> None:
        self._config = config
        self._prefix = f"listener.name.{listener.lower()}."

    def value(self, key: str) -> Value:
        return self._config.get(self._name(key))

    def text(self, key: str) -> str | None:
        """None if there is nothing in it."""
        return to_text(self.value(key)) or None

    def names(self, key: str) -> tuple[str, ...]:
        """The items of a list."""
        return tuple(filter(None, (to_text(self.value(key)) or "").split(",")))

    def blame(self, key: str, allowed: str, value: str | None = None) -> ConfigError:
        """The error in a key, or in this one of its items; the value of a password stays hidden."""
        name = self._name(key)
        shown = value if value is not None else self.text(key) or ""
        if shown and _is_password(key):
            shown = "[hidden]"
        return ConfigError(name, shown, allowed, self._config.origins.get(name, "default"))

    def _name(self, key: str) -> str:
        prefixed = self._prefix + key
        return prefixed if prefixed in self._config.values else key


def _is_password(key: str) -> bool:
    from kpy.config_keys import BROKER_KEYS

    return BROKER_KEYS[key].type is Type.PASSWORD


def _choose_versions(context: ssl.SSLContext, keys: ListenerKeys) -> None:
    key = "ssl.enabled.protocols"
    names = keys.names(key)
    for name in names:
        if name not in _VERSIONS:
            raise keys.blame(key, f"{name} is not available, only {', '.join(_VERSIONS)}")
    protocol = keys.text("ssl.protocol")
    if protocol not in ("TLS", *_VERSIONS):
        raise keys.blame("ssl.protocol", f"must be one of TLS, {', '.join(_VERSIONS)}")
    versions = [_VERSIONS[name] for name in names or _VERSIONS]
    context.minimum_version, context.maximum_version = min(versions), max(versions)


def _choose_suites(context: ssl.SSLContext, keys: ListenerKeys) -> None:
    key = "ssl.cipher.suites"
    names = keys.names(key)
    if not names:
        return
    if unknown := [name for name in names if name not in TLS_1_3_SUITES and name not in TLS_1_2_SUITES]:
        available = ", ".join([*sorted(TLS_1_3_SUITES), *TLS_1_2_SUITES])
        raise keys.blame(key, f"there is no {unknown[0]}; there are {available}")
    of_1_3 = TLS_1_3_SUITES.intersection(names)
    of_1_2 = [TLS_1_2_SUITES[name] for name in names if name in TLS_1_2_SUITES]
    if of_1_3 and of_1_3 != TLS_1_3_SUITES and context.maximum_version == ssl.TLSVersion.TLSv1_3:
        missing = ", ".join(sorted(TLS_1_3_SUITES - of_1_3))
        raise keys.blame(key, f"Python cannot choose among the suites of TLS 1.3: name all or none, {missing} too")
    # A version without a suite cannot be agreed on, and OpenSSL has its own of TLS 1.3 whatever is named.
    if not of_1_3:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if not of_1_2:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if context.minimum_version > context.maximum_version:
        raise keys.blame(key, "none of these is of a version that ssl.enabled.protocols has")
    if of_1_2:
        context.set_ciphers(":".join(of_1_2))


def _load_key(context: ssl.SSLContext, keys: ListenerKeys) -> None:
    store, where = _own_store(keys)
    if store.key is None:
        raise keys.blame(where, "there is no private key in it")
    if not store.certificates:
        chain = "ssl.keystore.certificate.chain" if where == "ssl.keystore.key" else where
        raise keys.blame(chain, "there is no certificate in it")
    password = keys.text("ssl.key.password") or ""
    is_encrypted = key_stores.is_encrypted(store.key)
    if is_encrypted and not password:
        raise keys.blame("ssl.key.password", "the private key is encrypted and needs its password")
    # Python's ssl wants a file. This one is in memory: a key that was encrypted never comes to a disk.
    with open(os.memfd_create("key"), "wb", buffering=0) as file:
        file.write((store.key + "".join(store.certificates)).encode())
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=password)
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(keys, where, error, is_encrypted=is_encrypted) from None


def _unusable(keys: ListenerKeys, where: str, error: Exception, *, is_encrypted: bool) -> ConfigError:
    reason = str(getattr(error, "reason", None) or error)
    if reason == "KEY_VALUES_MISMATCH":
        return keys.blame(where, "the private key and the first certificate do not belong together")
    if is_encrypted and reason not in ("CA_MD_TOO_WEAK", "EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL"):
        return keys.blame("ssl.key.password", "the private key is damaged, or its password is another one")
    return keys.blame(where, f"OpenSSL does not take key and certificates: {reason.lower().replace('_', ' ')}")


def _own_store(keys: ListenerKeys) -> tuple[KeyStore, str]:
    """The key and its certificates, and the key of the configuration to blame for them."""
    location, inline, chain = "ssl.keystore.location", "ssl.keystore.key", "ssl.keystore.certificate.chain"
    kind, password = _kind(keys, "keystore"), keys.text("ssl.keystore.password")
    if keys.text(inline) or keys.text(chain):
        for one, other in ((inline, chain), (chain, inline)):
            if not keys.text(one):
                raise keys.blame(one, f"must be set together with {other}")
        _check_inline(keys, inline, "keystore", kind)
        key = key_stores.parse_pem(keys.text(inline) or "").key
        return KeyStore(key, key_stores.parse_pem(keys.text(chain) or "").certificates), inline
    if not keys.text(location):
        raise keys.blame(location, "a listener of protocol SSL needs a key and a certificate; this says where they are")
    if kind == "PEM" and password:
        raise keys.blame("ssl.keystore.password", "a PEM store has none; ssl.key.password is that of the key in it")
    if kind != "PEM" and not password:
        raise keys.blame("ssl.keystore.password", f"must be set for the store in {location}")
    if kind != "PEM" and keys.text("ssl.key.password") not in (None, password):
        allowed = "in a PKCS12 store keys have the password of the store, ssl.keystore.password"
        raise keys.blame("ssl.key.password", allowed)
    return _read(keys, "keystore", kind), location


def _load_trusted(context: ssl.SSLContext, keys: ListenerKeys) -> None:
    location, inline = "ssl.truststore.location", "ssl.truststore.certificates"
    kind = _kind(keys, "truststore")
    if keys.text(inline):
        _check_inline(keys, inline, "truststore", kind)
        where, store = inline, key_stores.parse_pem(keys.text(inline) or "")
    elif keys.text(location):
        if kind == "PEM" and keys.text("ssl.truststore.password"):
            raise keys.blame("ssl.truststore.password", "a PEM store has none")
        where, store = location, _read(keys, "truststore", kind)
    else:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    if not store.certificates:
        raise keys.blame(where, "there is no certificate in it")
    try:
        context.load_verify_locations(cadata="".join(store.certificates))
    except (ssl.SSLError, ValueError):
        raise keys.blame(where, "OpenSSL cannot read its certificates") from None
    # What is in a trust store is trusted, as in Java, also if it is not the root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _kind(keys: ListenerKeys, store: str) -> str:
    key = f"ssl.{store}.type"
    kind = (keys.text(key) or "").upper()
    if kind not in _STORE_TYPES:
        raise keys.blame(key, f"must be one of {', '.join(_STORE_TYPES)}")
    return kind


def _check_inline(keys: ListenerKeys, inline: str, store: str, kind: str) -> None:
    if kind != "PEM":
        raise keys.blame(f"ssl.{store}.type", f"must be PEM, which {inline} is")
    for other in (f"ssl.{store}.location", f"ssl.{store}.password"):
        if keys.text(other):
            raise keys.blame(other, f"cannot be set together with {inline}")


def _read(keys: ListenerKeys, store: str, kind: str) -> KeyStore:
    location, password = f"ssl.{store}.location", f"ssl.{store}.password"
    try:
        return key_stores.read(Path(keys.text(location) or ""), kind, keys.text(password))
    except WrongPasswordError as error:
        raise keys.blame(password if keys.text(password) else location, f"{keys.text(location)} {error}") from None
    except KeyStoreError as error:
        raise keys.blame(location, str(error)) from None
