"""Watches the application's source files for changes, for development only.

It looks at the modification times of what was imported and of the Python files beneath the application's
directory. Polling works on every file system, network shares and containers included, which notification does
not; the counts below bound its cost.
"""

import os
import sys
import threading
import time

POLL_MS = 400
FILES_MAX = 5000
SKIPPED = {".git", ".hg", ".tox", ".venv", "venv", "env", "node_modules", "__pycache__", "site-packages"}


class Watcher:
    def __init__(self, directory):
        self.directory = directory
        self.extra = set()
        self.started = time.time_ns()
        self.known = self.scan()

    def add_from(self, error):
        """Files named by a failed import, which are not in `sys.modules`."""
        name = getattr(error, "filename", None)
        if isinstance(name, str):
            self.extra.add(name)
        frames = error.__traceback__
        while frames is not None:
            self.extra.add(frames.tb_frame.f_code.co_filename)
            frames = frames.tb_next

    def files(self):
        found = set(self.extra)
        for module in list(sys.modules.values()):
            name = getattr(module, "__file__", None)
            if isinstance(name, str) and "site-packages" not in name:
                found.add(name)
        for folder, folders, names in os.walk(self.directory):
            folders[:] = [name for name in folders if name not in SKIPPED]
            for name in names:
                if name.endswith(".py"):
                    found.add(os.path.join(folder, name))
            if len(found) > FILES_MAX:
                break
        return found

    def scan(self):
        times = {}
        for name in self.files():
            try:
                status = os.stat(name)
                times[name] = (status.st_mtime_ns, status.st_size, status.st_ino)
            except OSError:
                pass
        return times

    def difference(self):
        """A file that changed, appeared or went since the last look; None if there is none."""
        now = self.scan()
        before, self.known = self.known, now
        for name, seen in now.items():
            old = before.get(name)
            # A module imported since is not a change of a file.
            if old is not None and old != seen:
                return name
            if old is None and name.startswith(self.directory) and seen[0] > self.started:
                return name
        for name in before:
            if name not in now:
                return name
        return None

    def run(self, tell):
        while True:
            time.sleep(POLL_MS / 1000)
            name = self.difference()
            if name:
                tell(name)

    def start(self, tell):
        threading.Thread(target=self.run, args=(tell,), name="eleven-watch", daemon=True).start()
