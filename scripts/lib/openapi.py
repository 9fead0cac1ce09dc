"""Prints doc/openapi.json."""

from __future__ import annotations

import json

from tega.web.app import COMMANDS, DOCUMENTS
from tega.web.openapi import describe

print(json.dumps(describe(COMMANDS, DOCUMENTS), indent=2))
