"""The preset titania: devices and pods of an etcd in a MariaDB, driven by its variables only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from databases import PASSWORD, MariaDatabase, MariaDB
from etcdserver import Etcd
from processes import until
from sentinels import Sentinel

Row = dict[str, Any]


def device(name: str, ip: str = "10.0.0.1", status: Any = 0, **more: Any) -> str:
    return json.dumps({
        "deviceName": name, "projectSymbolFk": "P", "deviceIp": ip, "connectionStatus": status,
        "os": "Linux", **more,
    })  # fmt: skip


def pod(name: str, version: str = "1.0", **more: Any) -> str:
    return json.dumps({
        "podName": name, "deviceNameFk": "d1", "imageName": "web", "currentVersion": version,
        "latestVersion": "2.0", "deployedAt": "2020-05-17T10:00:00Z", "status": 0, **more,
    })  # fmt: skip


class Titania:
    """An etcd and a MariaDB as the variables of the preset name them."""

    def __init__(self, etcd: Etcd, server: MariaDB) -> None:
        self.etcd = etcd
        self.server = server
        self.sentinel = Sentinel(["--preset", "titania"], {
            "MY_ETCD_HOST": "127.0.0.1", "MY_ETCD_PORT": str(etcd.port),
            "MY_MYSQL_HOST": "127.0.0.1", "MY_MYSQL_PORT": str(server.port),
            "MY_MYSQL_USER": "sentinel", "MY_MYSQL_PASSWORD": PASSWORD,
            "DEVICE_INTERVAL": "2", "POD_INTERVAL": "1",
        })  # fmt: skip

    def devices(self) -> dict[str, Row]:
        return self._rows("Device", "device", "deviceName")

    def pods(self) -> dict[str, Row]:
        return self._rows("Pod", "pod", "podName")

    def _rows(self, database: str, table: str, key: str) -> dict[str, Row]:
        rows = MariaDatabase(self.server, database).rows(table)
        return {row[key]: row for row in rows}

    def becomes(self, devices: dict[str, Row], pods: dict[str, Row] | None = None) -> None:
        """Wait until the tables hold these rows, each with these columns among others."""

        def holds(found: dict[str, Row], wanted: dict[str, Row]) -> bool:
            return found.keys() == wanted.keys() and all(
                wanted[name].items() <= found[name].items() for name in wanted
            )

        try:
            until(lambda: holds(self.devices(), devices), "devices")
            until(lambda: pods is None or holds(self.pods(), pods), "pods")
        except AssertionError:
            raise AssertionError(
                f"{self.devices()} {self.pods()} {self.sentinel.said[-2000:]}"
            ) from None


@pytest.fixture
def titania(etcd: Etcd, one_mariadb: MariaDB) -> Iterator[Titania]:
    one_mariadb.mend()
    for name in ("Device", "Pod", "tega_sentinel"):
        one_mariadb.drop(name)
    made = Titania(etcd, one_mariadb)
    yield made
    if made.sentinel.alive:
        made.sentinel.kill()
    made.sentinel.check_words()


def test_a_device_comes_changes_stops_and_goes(titania: Titania) -> None:
    titania.sentinel.start()
    titania.etcd.put("/Device/d1/0", device("d1"))
    titania.becomes({"d1": {
        "deviceName": "d1", "projectSymbolFk": "P", "deviceIp": "10.0.0.1", "connectionStatus": 0,
        "os": "Linux",
    }})  # fmt: skip
    titania.etcd.put("/Device/d1/0", device("d1", "10.0.0.2"))
    titania.becomes({"d1": {"deviceIp": "10.0.0.2"}})
    # It stops: the newer key wins, and says 1, whatever the value says.
    titania.etcd.put("/Device/d1/1", device("d1", "10.0.0.2"))
    titania.becomes({"d1": {"connectionStatus": 1}})
    titania.etcd.delete("/Device/d1/0")
    titania.becomes({"d1": {"connectionStatus": 1}})
    # It runs again.
    titania.etcd.change({"/Device/d1/0": device("d1", "10.0.0.3"), "/Device/d1/1": None})
    titania.becomes({"d1": {"connectionStatus": 0, "deviceIp": "10.0.0.3"}})
    titania.etcd.delete("/Device/d1/0")
    titania.becomes({})
    assert titania.sentinel.end() == 0
    assert titania.sentinel.run("--verify").status == 0


def test_a_pod_comes_changes_stops_and_goes(titania: Titania) -> None:
    titania.etcd.put("/Pod/p1", pod("web-1"))
    titania.sentinel.start()
    titania.becomes({}, {"web-1": {
        "podName": "web-1", "deviceNameFk": "d1", "imageName": "web", "currentVersion": "1.0",
        "latestVersion": "2.0", "status": 0,
    }})  # fmt: skip
    assert str(titania.pods()["web-1"]["deployedAt"]) == "2020-05-17 10:00:00"
    titania.etcd.put("/Pod/p1/0", pod("web-1", "1.1", deployedAt=""))
    titania.becomes({}, {"web-1": {"currentVersion": "1.1", "deployedAt": None}})
    without = json.loads(pod("web-1", "1.2"))
    del without["imageName"]
    titania.etcd.put("/Pod/p1/1", json.dumps(without))
    titania.becomes({}, {"web-1": {"imageName": None, "status": 1, "currentVersion": "1.2"}})
    titania.etcd.delete("/Pod/p1/1")
    titania.becomes({}, {"web-1": {"imageName": "web", "status": 0, "currentVersion": "1.1"}})
    titania.etcd.delete("/Pod/p1/0")
    titania.becomes({}, {"web-1": {"currentVersion": "1.0"}})
    titania.etcd.delete("/Pod/p1")
    titania.becomes({}, {})
    assert titania.sentinel.end() == 0
    assert titania.sentinel.run("--verify").status == 0


def test_the_row_is_named_inside_the_value(titania: Titania) -> None:
    titania.etcd.put("/Device/some-id/0", device("real name"))
    titania.etcd.put("/Device/other-id/0", device("real name", "10.0.0.9"))
    titania.etcd.put("/Device/plain", device("plain", status=1))
    titania.etcd.put("/Device/none/0", json.dumps({"deviceName": "none"}))
    titania.sentinel.start()
    titania.becomes({
        "real name": {"deviceIp": "10.0.0.9"}, "plain": {"connectionStatus": 1},
        "none": {"os": None, "connectionStatus": 0},
    })  # fmt: skip


def test_a_minute_of_changes_after_kill(titania: Titania) -> None:
    for number in range(20):
        titania.etcd.put(f"/Device/d{number}/0", device(f"d{number}"))
        titania.etcd.put(f"/Pod/p{number}/0", pod(f"p{number}"))
    titania.sentinel.start()
    titania.sentinel.kill()
    for number in range(20):
        changed = device(f"d{number}", f"10.0.1.{number}")
        titania.etcd.put(f"/Device/d{number}/{number % 2}", changed)
        if number % 3 == 0:
            titania.etcd.delete_below(f"/Pod/p{number}/")
    assert titania.sentinel.run("--verify").status == 1
    titania.sentinel.start()
    titania.becomes(
        {f"d{n}": {"deviceIp": f"10.0.1.{n}", "connectionStatus": n % 2} for n in range(20)},
        {f"p{n}": {} for n in range(20) if n % 3},
    )
    assert titania.sentinel.run("--verify").status == 0
    assert PASSWORD not in titania.sentinel.said


def test_bad_keys_and_values_are_set_aside(titania: Titania) -> None:
    titania.etcd.put("/Device/d1/2", device("no such status"))
    titania.etcd.put("/Device/d2/0", "{")
    titania.etcd.put("/Device/d3/0", device("x" * 256))
    titania.etcd.put("/Pod/p1/0", pod("p1", deployedAt="soon"))
    titania.etcd.put("/Pod/p2/0/x", pod("p2"))
    titania.etcd.put("/Pod/p3/0", pod("p3'); DROP TABLE pod; --"))
    titania.sentinel.start()
    titania.becomes({}, {"p3'); DROP TABLE pod; --": {}})
    for key in ("/Device/d1/2", "/Device/d2/0", "/Device/d3/0", "/Pod/p1/0", "/Pod/p2/0/x"):
        titania.sentinel.says(f"(?i)reject.*{key}")


def test_full_passes_mend_drift(titania: Titania) -> None:
    titania.etcd.put("/Device/d1/0", device("d1"))
    titania.etcd.put("/Pod/p1/0", pod("p1"))
    titania.sentinel.start()
    MariaDatabase(titania.server, "Device").run("DELETE FROM device")
    MariaDatabase(titania.server, "Pod").run("UPDATE pod SET status = 7")
    titania.becomes({"d1": {}}, {"p1": {"status": 0}})
    titania.sentinel.says("(?i)d1.*drift")
    titania.sentinel.says("(?i)p1.*drift")


@pytest.mark.parametrize("variable", ["MY_ETCD_PORT", "MY_MYSQL_PORT", "DEVICE_INTERVAL"])
def test_a_wrong_variable_is_refused_by_name(titania: Titania, variable: str) -> None:
    titania.sentinel.variables[variable] = "many"
    done = titania.sentinel.run_apart("--once", seconds=20)
    assert done.status not in (0, 1)
    assert variable in done.said
