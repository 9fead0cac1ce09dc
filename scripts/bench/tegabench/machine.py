"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tegabench.process import Cores


def facts(directory: Path, cores: Cores) -> list[tuple[str, str]]:
    """Name and value of what matters for the figures.

    :param directory: where the data of the servers is
    """
    return [
        ("date", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")),
        ("processor", f"{_processor()}, {os.cpu_count()} cores; {cores}"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("file system", file_system(directory)),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        *[(package, _version(package)) for package in ("tornado", "msgspec", "immutables")],
        ("load when it began", " ".join(f"{load:.2f}" for load in os.getloadavg())),
    ]


def file_system(directory: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds a directory."""
    place = directory.resolve()
    best, found = -1, "unknown"
    if mounts.exists():
        for line in mounts.read_text().splitlines():
            _device, mounted, kind = line.split()[:3]
            # Spaces in a mount point are written as octal escapes, which no measured place has.
            if place.is_relative_to(mounted) and len(mounted) >= best:
                best, found = len(mounted), kind
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
