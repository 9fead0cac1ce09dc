"""Operations of a REQUEST TX, and what they are answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tega import paths
from tega.driver import values
from tega.driver.ephemerals import Operation
from tega.driver.errors import CRUDException
from tega.errors import Malformed


def put(
    instance: Any, version: int | None, ephemeral: bool = False, path: str | None = None
) -> Operation:
    """PUT `instance` at `path`, or where it stands in its own document.

    :raises CRUDException: for a value or path that cannot be
    """
    if path is None:
        path = paths.dotted(values.place_of(instance))
    else:
        values.parsed(path)
    made = {"ope": "PUT", "path": path, "instance": values.jsonable(instance)}
    if version is not None:
        made["version"] = version
    if ephemeral or values.is_ephemeral(instance):
        made["ephemeral"] = True
    return made


def delete(path: str, version: int | None) -> Operation:
    """DELETE the subtree at `path`.

    :raises CRUDException: for what is no path
    """
    values.parsed(path)
    made: Operation = {"ope": "DELETE", "path": path}
    if version is not None:
        made["version"] = version
    return made


class Get:
    """GET the subtree at `path`, or all that match it as a pattern.

    :ivar operation: as it is sent
    :raises CRUDException: for what is no path, or a version beside a pattern
    """

    def __init__(
        self,
        path: str,
        version: int | None,
        internal: bool,
        python_dict: bool,
        regex_flag: bool,
        consistent: bool = False,
    ) -> None:
        if not regex_flag:
            values.parsed(path)
        elif version is not None:
            raise values.malformed(
                Malformed("version: a regex path spans roots, which each count their own")
            )
        self._path = path
        self._plainly = internal or python_dict
        self._regex_flag = regex_flag
        self.operation: Operation = {"ope": "GET", "path": path}
        if version is not None:
            self.operation["version"] = version
        if internal or not python_dict:
            self.operation["internal"] = True
        if regex_flag:
            self.operation["regex_flag"] = True
        if consistent:
            self.operation["consistent"] = True

    def read(self, result: Mapping[str, Any]) -> Any:
        """What was got, in the form that was asked for.

        :raises CRUDException: where there is nothing
        """
        if "error" in result:
            raise values.refusal(CRUDException, result["error"])
        return values.formed(result["instance"], self._path, self._plainly, self._regex_flag)
