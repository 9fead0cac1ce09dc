"""A mirror as a service of 2020 made it: every key an upsert, every upsert a transaction.

``python -m tegabench.upserts ETCD_PORT SINK MOST``: lists the keys under ``/Device/`` and upserts
the first MOST, says ``listed N SECONDS``, then watches, and upserts each change. It keeps no
revision, and removes nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import sqlalchemy as sa

from tega.sentinel.address import parse
from tega.sentinel.etcd import Access, Etcd, after, pages
from tega.sentinel.sql.dialect import upsert

PREFIX = b"/Device/"
COLUMNS = ("deviceName", "projectSymbolFk", "deviceIp", "connectionStatus", "os")


async def main(port: str, sink: str, most: int) -> None:
    """Mirror until ended."""
    engine = sa.create_engine(sink)
    table = sa.Table(
        "device", sa.MetaData(),
        sa.Column(COLUMNS[0], sa.String(255), primary_key=True),
        *[sa.Column(name, sa.String(255)) for name in COLUMNS[1:]],
    )  # fmt: skip
    table.create(engine, checkfirst=True)
    etcd = Etcd(parse(f"etcd://127.0.0.1:{port}/"), Access())
    await etcd.open()
    with engine.connect() as connection:
        statement = upsert(table, COLUMNS[:1], connection.dialect)

        def put(value: bytes) -> None:
            read: dict[str, Any] = json.loads(value)
            connection.execute(statement, {name: read.get(name) for name in COLUMNS})
            connection.commit()

        begun = time.perf_counter()
        revision = (await etcd.range(PREFIX, after(PREFIX), limit=1)).header.revision
        done = 0
        async for page in pages(etcd, PREFIX, revision):
            for kv in page[: most - done]:
                put(kv.value)
                done += 1
        print(f"listed {done} {time.perf_counter() - begun}", flush=True)
        async for answer in etcd.watch(PREFIX, after(PREFIX), revision + 1):
            for event in answer.events:
                put(event.kv.value)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
