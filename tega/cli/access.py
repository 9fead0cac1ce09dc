"""The server that is asked, and with what: made of the program's options once, for all drivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tega.cli.arguments import Options
from tega.driver import AsyncDriver, Driver
from tega.driver.credentials import Credentials, Security, Tls, read_token

#: Has the token, where no file is named: a flag would show it to all users of the machine.
VARIABLE = "TEGA_TOKEN"


@dataclass(frozen=True)
class Access:
    """Makes drivers, all of the same tega id."""

    host: str
    port: int
    tega_id: str
    token: str | None = field(repr=False)
    tls: Security

    @classmethod
    def of(cls, options: Options, environment: Mapping[str, str]) -> Access:
        """What the options say.

        :raises Malformed: for a token that is none, and files that cannot be used
        """
        if options.token_file is not None:
            token: str | None = read_token(Path(options.token_file))
        else:
            token = environment.get(VARIABLE) or None
        tls = Tls(options.ca, options.cert, options.key) if options.secure else None
        credentials = Credentials.of(token, tls)
        tega_id = options.tega_id or credentials.new_tega_id("cli")
        return cls(options.address, options.port, tega_id, token, credentials.tls)

    def driver(self, subscriber: Any = None, timeout: float = 60.0) -> Driver:
        """A driver.

        :param timeout: most seconds to wait for a connection and for each answer
        """
        return Driver(
            self.host, self.port, self.tega_id, subscriber,
            timeout=timeout, token=self.token, tls=self.tls,
        )  # fmt: skip

    def async_driver(self, subscriber: Any = None) -> AsyncDriver:
        """A driver for an event loop."""
        return AsyncDriver(
            self.host, self.port, self.tega_id, subscriber, token=self.token, tls=self.tls
        )
