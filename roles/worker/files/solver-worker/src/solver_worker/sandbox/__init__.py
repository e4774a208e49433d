# SPDX-License-Identifier: GPL-3.0-or-later
"""A CAPTCHA provider on loopback: the in.php/res.php protocol, scripted faults and a ledger."""
