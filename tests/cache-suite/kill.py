#!/usr/bin/env python3
"""Kills `eleven proxy --cache-dir` with SIGKILL again and again while it fills and serves, and harms its files in
between: flips octets, cuts files short, removes some; in every third cycle also while it serves. Every response that arrives
whole must be, octet for octet, what the origin server gives, and only the kill may break one off.
Usage: kill.py PATH-OF-ELEVEN [CYCLES [all]] (all: harm while it serves in every cycle)"""

import http.client
import http.server
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

eleven = sys.argv[1]
cycles = int(sys.argv[2]) if len(sys.argv) > 2 else 30
every = 1 if len(sys.argv) > 3 else 3
chance = random.Random(11)
SIZES = [0, 1, 500, 16_384, 16_385, 65_536, 65_537, 300_000, 1_048_576, 1_048_577, 2_500_000]


def content(path):
    number = int(path.rsplit("/", 1)[1])
    pattern = (str(number) + " of the pattern that fills this content; ").encode()
    size = SIZES[number % len(SIZES)]
    return (pattern * (size // len(pattern) + 1))[:size]


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self):
        Origin.asked += 1
        octets = content(self.path)
        tag = '"%d"' % len(octets)
        fields = {"Cache-Control": "max-age=3600", "ETag": tag}
        status = 200
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.headers.get("If-None-Match") == tag:
            status, octets = 304, b""
        elif ranged and octets and self.headers.get("If-Range", tag) == tag and int(ranged[1]) < len(octets):
            last = min(int(ranged[2] or len(octets) - 1), len(octets) - 1)
            fields["Content-Range"] = "bytes %s-%d/%d" % (ranged[1], last, len(octets))
            status, octets = 206, octets[int(ranged[1]):last + 1]
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


origin = Server(("127.0.0.1", 0), Origin)
threading.Thread(target=origin.serve_forever, daemon=True).start()
directory = tempfile.mkdtemp(prefix="eleven-kill-")
counts = {"whole": 0, "hits": 0, "cut": 0, "wrong": 0}
lock = threading.Lock()


def start():
    process = subprocess.Popen(
        [eleven, "proxy", "http://127.0.0.1:%d" % origin.server_port, "--listen", "127.0.0.1:0", "--quiet",
         "--cache=2M", "--cache-dir", directory, "--cache-dir-size", "40M", "--x-cache"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        found = re.search(r" on (?:http://)?127\.0\.0\.1:(\d+)", line)
        if found:
            threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
            return process, int(found[1])
    raise SystemExit("eleven did not start: %s" % process.wait())


def ask(port, stop, seed):
    mine = random.Random(seed)
    while not stop.is_set():
        path = "/%d" % mine.randrange(60)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path)
            response = connection.getresponse()
            octets = response.read()
            if response.status != 200:
                raise OSError(response.status)
        except (OSError, http.client.HTTPException) as why:
            if not stop.is_set():
                with lock:
                    counts["cut"] += 1
                    print("failed:", path, repr(why), flush=True)
            continue
        with lock:
            counts["whole"] += 1
            counts["hits"] += response.getheader("X-Cache") == "HIT"
            if octets != content(path):
                counts["wrong"] += 1
                print("wrong octets for", path, len(octets), response.getheader("X-Cache"))


def harm():
    files = [os.path.join(base, name) for base, _, names in os.walk(directory) for name in names if name != "lock"]
    for path in chance.sample(files, min(len(files), 1 + len(files) // 10)):
        try:
            size = os.path.getsize(path)
            way = chance.randrange(4)
            if way == 0 or size == 0:
                os.remove(path)
                continue
            with open(path, "r+b") as file:
                if way == 1:
                    file.truncate(chance.randrange(size))
                else:
                    at = chance.randrange(size)
                    file.seek(at)
                    old = file.read(1)
                    file.seek(at)
                    file.write(bytes([old[0] ^ (1 << chance.randrange(8))]))
        except FileNotFoundError:
            pass  # evicted meanwhile


try:
    for cycle in range(cycles):
        process, port = start()
        stop = threading.Event()
        threads = [threading.Thread(target=ask, args=(port, stop, cycle * 100 + n)) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.05, 0.6))
        if cycle % every == every - 1:
            # Also while it serves.
            harm()
            time.sleep(chance.uniform(0.05, 0.6))
        # Requests under way are cut by the kill; those that failed before it should not have.
        stop.set()
        process.send_signal(signal.SIGKILL)
        process.wait()
        for thread in threads:
            thread.join()
        harm()
    print("%d cycles: %d whole responses (%d from the store), %d failed, %d wrong; the origin server was asked %d times"
          % (cycles, counts["whole"], counts["hits"], counts["cut"], counts["wrong"], Origin.asked))
    # All have a strong validator, so what is harmed on disk is healed within the request.
    sys.exit(1 if counts["wrong"] or counts["cut"] or not counts["hits"] else 0)
finally:
    shutil.rmtree(directory, ignore_errors=True)
