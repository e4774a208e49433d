# SPDX-License-Identifier: GPL-3.0-or-later
"""ctl.py ADMIN_SOCKET VERB WORKER: the start and stop commands. It imports next to nothing, because it runs often."""

import _socket
import sys

admin = _socket.socket(_socket.AF_UNIX)
admin.connect(sys.argv[1])
admin.sendall(b'["%s", "%s"]\n' % (sys.argv[2].encode(), sys.argv[3].encode()))
answer = admin.recv(4096).decode()
if answer != "ok\n":
    sys.exit(answer or "no answer")
