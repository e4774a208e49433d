# SPDX-License-Identifier: GPL-3.0-or-later
# The one place that knows the version; a release build stamps this line.
__version__ = "1.3.0"
