"""With what source and sink are convinced, and what they must show: as the settings say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tega.errors import Malformed
from tega.options import Settings
from tega.sentinel.address import Address


@dataclass(frozen=True)
class Access:
    """What is shown to a server, and what it must show. Secrets are never printed.

    :ivar user: at etcd, with its `password`
    :ivar token: for tega
    :ivar token_file: has the token; read again for each connection
    :ivar ca: PEM file with authorities that may have signed the server's certificate; None: those
        of the system
    :ivar cert: PEM file with the certificate to show, with its `key`, if that is another file
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


#: Settings that are for some addresses only: what is right for others.
_FOR_ETCD = "that is for etcd: tega takes a token ({end}-token-file) or a certificate"
_FOR_TEGA = "that is for tega: etcd takes a user and a password, or a certificate"


def of(settings: Settings, end: str, address: Address) -> Access:
    """What the settings say of an end.

    :param end: ``source`` or ``sink``
    :raises Malformed: naming the setting that does not go with the address or another one, and the
        file that cannot be used
    """
    given = {name: getattr(settings, f"{end}_{name}") for name in Access.__dataclass_fields__}
    made = Access(**given)
    useless = {}
    if address.tega:
        useless = dict.fromkeys(("user", "password"), _FOR_ETCD.format(end=end))
    else:
        useless = dict.fromkeys(("token", "token_file"), _FOR_TEGA)
    if not address.secure:
        why = f"{address} is without TLS: write {address.scheme}s:// where the server speaks it"
        useless |= dict.fromkeys(("ca", "cert", "key"), why)
    for name, why in useless.items():
        if given[name] is not None:
            raise Malformed(f"setting {end}-{name.replace('_', '-')}: {why}")
    if made.password is not None and made.user is None:
        raise Malformed(f"setting {end}-password: it is of no use without {end}-user")
    _check(made, end, address)
    return made


def none(settings: Settings, end: str) -> None:
    """Refuse what is of no use where an end is a SQL database: all but the password.

    :raises Malformed: naming the setting
    """
    for name in Access.__dataclass_fields__:
        if name != "password" and getattr(settings, f"{end}_{name}") is not None:
            raise Malformed(
                f"setting {end}-{name.replace('_', '-')}: a SQL database takes that in its "
                "address, as SQLAlchemy has it"
            )


def _check(made: Access, end: str, address: Address) -> None:
    """Refuse files that cannot be used before anything begins."""
    if not address.secure and made.token is None and made.token_file is None:
        return
    # They take a while to load.
    from tega.driver.credentials import Credentials, Tls, read_token

    try:
        token = made.token
        if made.token_file is not None:
            token = read_token(made.token_file)
        Credentials.of(token, Tls(made.ca, made.cert, made.key) if address.secure else None)
    except Malformed as error:
        raise Malformed(f"settings of the {end}: {error.message}") from None
