# SPDX-License-Identifier: GPL-3.0-or-later
"""Steady load on a fleet, and the audit that compares the client's, the workers' and the provider's books."""
