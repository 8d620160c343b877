"""How to reach ZooKeeper, and as whom.

Apache Kafka takes its user and password from the section `Client` of the JAAS login configuration that its JVM has been
given (classes JaasUtils, and ZooKeeper's ZooKeeperSaslClient). kpy reads the same file, which keys of the same names as
the JVM's system properties lead to.
"""

from dataclasses import dataclass, field
from pathlib import Path

from kpy import jaas
from kpy.errors import StorageError

LOGIN_CONFIG_KEY = "java.security.auth.login.config"
DIGEST_LOGIN_MODULE = "org.apache.zookeeper.server.auth.DigestLoginModule"


@dataclass(frozen=True, slots=True)
class Login:
    """Whom to authenticate as, by SASL with DIGEST-MD5."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ZookeeperConfig:
    """Apache Kafka's keys that begin with `zookeeper.`."""

    connect: str
    """host:port, several separated by commas, and perhaps a path below which all nodes are (chroot)."""
    session_timeout_ms: int = 18_000
    connection_timeout_ms: int = 18_000
    max_in_flight: int = 10
    set_acl: bool = False
    """Whether nodes can be changed only by whoever this broker has authenticated as. Anybody may read most of them."""
    tls: bool = False
    certificate_file: str | None = None
    """PEM: the broker's certificate and its private key."""
    key_password: str | None = field(default=None, repr=False)
    trusted_file: str | None = None
    """PEM: the certificates that vouch for ZooKeeper's."""
    check_hostname: bool = True
    login: Login | None = None
    secret_paths: tuple[str, ...] = ()
    """Where nodes, and those below, are not for everybody to read when `set_acl`."""
    open_paths: tuple[str, ...] = ()
    """Nodes that everybody may change even when `set_acl`."""

    @property
    def hosts(self) -> str:
        return self.connect.partition("/")[0]

    @property
    def chroot(self) -> str:
        """A path without a slash at its end; empty for none."""
        return self.connect[len(self.hosts) :].rstrip("/")


def read_login(path: str | None, section: str, *, allowed: bool) -> Login | None:
    """The login in a section of a JAAS file; None without a file, or without the section. Raises StorageError.

    Like Apache Kafka it refuses to start with a login that is not `allowed` (zookeeper.sasl.client).
    """
    if not path:
        return None
    problem = f"{LOGIN_CONFIG_KEY}={path}"
    try:
        with Path(path).open("rb") as file:
            data = file.read(jaas.MAX_FILE_BYTES + 1)
        if len(data) > jaas.MAX_FILE_BYTES:
            raise StorageError(f"{problem} is not believed: it has more than {jaas.MAX_FILE_BYTES} bytes.")
        modules = jaas.parse(data.decode()).get(section)
    except OSError as error:
        raise StorageError(f"{problem} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        what = "not UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise StorageError(f"{problem} cannot be understood: {what}.") from None
    if modules is None:
        return None
    if not allowed:
        raise StorageError(f"{problem} has a section {section}, which zookeeper.sasl.client=false would leave unused.")
    if [module.class_name for module in modules] != [DIGEST_LOGIN_MODULE]:
        raise StorageError(f"{problem}: kpy logs in to ZooKeeper by one {DIGEST_LOGIN_MODULE} in {section}.")
    login = Login(modules[0].options.get("username", ""), modules[0].options.get("password", ""))
    if not (login.user and login.password):
        raise StorageError(f"{problem}: {section} has no username, or no password.")
    if not _is_latin_1(login.user + login.password):
        # DIGEST-MD5 has no other characters unless both sides say so, and the client's library does not (RFC 2831).
        raise StorageError(f"{problem}: username and password in {section} must be of Latin-1's characters.")
    return login


def _is_latin_1(text: str) -> bool:
    return all(character <= "\xff" for character in text)
