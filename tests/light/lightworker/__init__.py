# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers for tests of the rollout: one process speaks the control API for as many as a test wants.

What is open, solved and failed is computed when somebody asks; nothing is solved. The rules of the drain are the
reference worker's own (solver_worker.drain), so the two cannot differ in them.
"""
