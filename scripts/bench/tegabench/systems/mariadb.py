"""MariaDB, as a place to mirror to."""

from __future__ import annotations

import shutil
import subprocess

from tegabench.process import BenchError
from tegabench.systems.base import Server


class MariaDb(Server):
    """A server of its own, with its defaults: every commit is synced."""

    name = "mariadb"
    title = "MariaDB"

    @classmethod
    def missing(cls) -> str | None:
        found = shutil.which("mariadbd") and shutil.which("mariadb-install-db")
        return None if found else "mariadbd is not on PATH: apt-get install mariadb-server"

    def start(self, ready: object = None) -> float:
        data = self.directory / "data"
        made = subprocess.run(
            [
                *("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"),
                *("--user=root", "--auth-root-authentication-method=normal"),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            raise BenchError(f"mariadb-install-db failed: {made.stdout[-300:]}{made.stderr[-300:]}")
        return super().start()

    def command(self) -> list[str]:
        return [
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={self.directory / 'data'}"),
            *(f"--port={self.address[1]}", f"--bind-address={self.address[0]}"),
            *(f"--socket={self.directory / 'sock'}", f"--pid-file={self.directory / 'pid'}"),
        ]

    def ready(self) -> bool:
        import pymysql

        try:
            pymysql.connect(host=self.address[0], port=self.address[1], user="root").close()
        except pymysql.err.OperationalError as error:
            raise OSError(str(error)) from None
        return True
