"""Certificates made while a test runs, as PEM files."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import trustme


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Somebody who signs certificates.

    :ivar file: its own one
    """

    def __init__(self, directory: Path, name: str = "tests") -> None:
        self._authority = trustme.CA(organization_unit_name=name)
        self._directory = directory
        self._count = 0
        self.file = directory / f"{name}-ca.pem"
        self._authority.cert_pem.write_to_path(self.file)
        self._name = name

    def issue(
        self, *names: str, common_name: str | None = None, days: int = 1, into: Pair | None = None
    ) -> Pair:
        """A certificate that is good for some days; with less than none it is so no more.

        :param into: replaces these files
        """
        self._count += 1
        now = datetime.now(timezone.utc)
        issued = self._authority.issue_cert(
            *names, common_name=common_name,
            not_before=now - timedelta(days=9), not_after=now + timedelta(days=days),
        )  # fmt: skip
        stem = f"{self._name}-{self._count}"
        pair = into or Pair(self._directory / f"{stem}.pem", self._directory / f"{stem}-key.pem")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        for file, content in (
            (pair.key, issued.private_key_pem.bytes()), (pair.cert, chain)
        ):  # fmt: skip
            draft = file.with_suffix(".new")
            draft.write_bytes(content)
            os.replace(draft, file)
        return pair


def flags(pair: Pair) -> list[str]:
    """Those of a server that shows a certificate."""
    return ["--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]
