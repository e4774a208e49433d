# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference worker of solver.fleet."""

from ._version import __version__

__all__ = ["__version__"]
