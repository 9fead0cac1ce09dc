"""The preset ``titania``: what the sentinel of titaniadb did, driven by the same variables."""

from __future__ import annotations

from collections.abc import Mapping as Variables
from importlib.resources import files
from typing import Any, Final, NamedTuple

from sqlalchemy.engine import URL

from tega.errors import Malformed
from tega.sentinel import mappingfile
from tega.sentinel.mapping import Mapping

#: The mapping, for people to copy.
FILE: Final = "titania.yaml"

#: Service to table.
_TABLES: Final = {"Device": "Device.device", "Pod": "Pod.pod"}


class Preset(NamedTuple):
    """What a preset settles."""

    mapping: Mapping
    source: str
    sink: URL


def titania(variables: Variables[str, str]) -> Preset:
    """The preset, as the environment has it.

    ``MY_ETCD_HOST`` (127.0.0.1), ``MY_ETCD_PORT`` (2379), ``MY_MYSQL_HOST`` (127.0.0.1),
    ``MY_MYSQL_PORT`` (3306), ``MY_MYSQL_USER`` (root), ``MY_MYSQL_PASSWORD``; ``SERVICE``, one of
    Device and Pod, or both with a comma between (both); ``DEVICE_INTERVAL`` (30) and
    ``POD_INTERVAL`` (5), seconds.

    :raises Malformed: naming the variable and what would be right
    """
    given = mappingfile.parse(files("tega.sentinel").joinpath(FILE).read_text("utf-8"), FILE)
    services = _services(variables.get("SERVICE", ""))
    tables: dict[str, Any] = {}
    for service in services:
        table = _TABLES[service]
        tables[table] = given["tables"][table]
        variable = f"{service.upper()}_INTERVAL"
        if variable in variables:
            tables[table]["interval"] = _seconds(variable, variables[variable])
    host = variables.get("MY_ETCD_HOST") or "127.0.0.1"
    return Preset(
        mappingfile.make({"tables": tables}, FILE),
        f"etcd://{f'[{host}]' if ':' in host else host}:{_port(variables, 'MY_ETCD_PORT', 2379)}/",
        URL.create(
            "mysql+pymysql",
            variables.get("MY_MYSQL_USER") or "root",
            variables.get("MY_MYSQL_PASSWORD") or None,
            variables.get("MY_MYSQL_HOST") or "127.0.0.1",
            _port(variables, "MY_MYSQL_PORT", 3306),
        ),
    )


def _services(text: str) -> list[str]:
    names = {name.lower(): name for name in _TABLES}
    wanted = [part.strip().lower() for part in text.split(",") if part.strip()] or list(names)
    for name in wanted:
        if name not in names:
            raise Malformed(f"variable SERVICE: {text[:64]!r} is wrong; right is Device, Pod, or "
                            "both with a comma between")
    return [service for name, service in names.items() if name in wanted]


def _port(variables: Variables[str, str], name: str, default: int) -> int:
    text = variables.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise Malformed(f"variable {name}: {text[:64]!r} is wrong; right is a port, 1 to 65535")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e9:
        raise Malformed(f"variable {name}: {text[:64]!r} is wrong; right is seconds over 0")
    return value
