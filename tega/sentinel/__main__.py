"""``python -m tega.sentinel``."""

import sys

from tega.sentinel.main import main

sys.exit(main())
