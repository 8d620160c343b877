"""JAAS files, as the JDK's ConfigFile reads them."""

import pytest

from kpy import jaas

FILE = r"""
/* What the broker
   is elsewhere. */
KafkaServer {
    org.apache.kafka.common.security.plain.PlainLoginModule required
    username="admin" user_admin="a;b}c=d";
};
// Towards ZooKeeper:
Client {
    org.apache.zookeeper.server.auth.DigestLoginModule REQUIRED
    username=kafka password="a \"quote\", a \\, //no comment and \101";
    com.sun.security.auth.module.Krb5LoginModule optional useTicketCache=true;
};
Empty { };
"""


def test_sections_have_their_modules_with_options():
    sections = jaas.parse(FILE)
    assert list(sections) == ["KafkaServer", "Client", "Empty"]
    (server,) = sections["KafkaServer"]
    assert server.options == {"username": "admin", "user_admin": "a;b}c=d"}
    digest, kerberos = sections["Client"]
    assert digest.class_name == "org.apache.zookeeper.server.auth.DigestLoginModule"
    assert digest.options == {"username": "kafka", "password": 'a "quote", a \\, //no comment and A'}
    assert kerberos.options == {"useTicketCache": "true"}
    assert sections["Empty"] == ()
    assert jaas.parse(" \n") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Client", "ends where there should be {"),
        ("Client {", "ends where there should be the class of a login module"),
        ("Client {\n}", "ends where there should be ;"),
        ("Client {} Server {};", "line 1: no ; where there should be one"),
        ("{ };", "line 1: { where there should be the name of a section"),
        ("A {};\nA {};", "line 2: a section that is there twice"),
        ("A {\n m secret;\n};", "line 2: the flag is none of optional, required, requisite, sufficient"),
        ("A { m required a secret; };", "line 1: no = where there should be one"),
        ("A { m required a=; };", "line 1: ; where there should be the value of an option"),
        ('A { m required\n a="secret; };', "line 2: a quotation mark without its counterpart"),
        ('A { m required a="${secret}"; };', "line 1: kpy does not expand ${...}"),
    ],
)
def test_what_is_wrong_is_told_without_what_the_file_says(text: str, problem: str):
    with pytest.raises(ValueError, match=r"^line \d|^it ends") as caught:
        jaas.parse(text)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_options_are_not_shown():
    assert "a;b}c=d" not in repr(jaas.parse(FILE))
