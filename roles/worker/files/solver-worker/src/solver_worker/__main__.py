# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m solver_worker`` is the console script by another name."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
