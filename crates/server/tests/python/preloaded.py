"""An application that knows which process imported it."""

import os
import subprocess
import sys

IMPORTER = os.getpid()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/die":
        os._exit(1)
    text = "%d %d" % (IMPORTER, os.getpid())
    if environ["PATH_INFO"] == "/child":
        text = str(subprocess.run([sys.executable, "-c", "raise SystemExit(7)"]).returncode)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
