#!/usr/bin/env python3
"""Proof under load, with the figures for docs/applications.md: reloads, killed workers, slow readers, slow uploads.

    python3 tests/applications/proof.py [--eleven target/release/eleven] [--short]

`--short` is for CI: fewer of each, and no figure of time has to hold.
"""

import argparse
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from compare import Broken, Client
from cpu import family
from suite import HERE


class Eleven:
    """`eleven run` of the comparison's application."""

    def __init__(self, options, workers, *more):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [options.eleven, "run", "cases:app", "--quiet", "--log", "info", "--workers", str(workers),
             "--listen", "127.0.0.1:0", "--python", sys.executable, *more],
            cwd=os.path.join(HERE, "apps"), stderr=self.log,
        )
        self.wait_for("Running .*/\n", 1)
        self.log.seek(0)
        self.port = int(re.search(r"Running .* on http://127.0.0.1:(\d+)/", self.log.read()).group(1))

    def said(self, words):
        self.log.seek(0)
        return len(re.findall(words, self.log.read()))

    def wait_for(self, words, times, seconds=120):
        """Waits until the log holds `words` so many times."""
        end = time.monotonic() + seconds
        while self.said(words) < times:
            if time.monotonic() > end or self.process.poll() is not None:
                self.log.seek(0)
                sys.exit("waited in vain for %r:\n%s" % (words, self.log.read()[-3000:]))
            time.sleep(0.02)

    def workers(self):
        return family(self.process.pid)[1:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


class Load:
    """Clients with persistent connections that ask for something short without a pause, and keep what went wrong."""

    def __init__(self, server, clients):
        self.server, self.stop = server, False
        self.times, self.wrong = [], {}
        self.threads = [threading.Thread(target=self.work) for _ in range(clients)]

    def work(self):
        client, request = None, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        while not self.stop:
            try:
                if client is None:
                    client = Client(self.server)
                    client.socket.settimeout(60)
                began = time.monotonic()
                client.send(request)
                status, fields, _ = client.response()
                self.times.append(time.monotonic() - began)
                what = str(status)
                if fields.get("connection") == "close":
                    client = None
            except (Broken, OSError) as error:
                client, what = None, str(error) or type(error).__name__
            if what != "200":
                self.wrong[what] = self.wrong.get(what, 0) + 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        for thread in self.threads:
            thread.join()

    def percentile(self, share):
        times = sorted(self.times)
        return times[min(int(len(times) * share), len(times) - 1)] * 1000


def reloads(options):
    """Code reloads under load: no request fails."""
    count = 5 if options.short else 50
    with Eleven(options, 2) as server, Load(server, 8) as load:
        for number in range(1, count + 1):
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("the reload is over", number)
    print("%d reloads under load: %d requests, %d failed %s" % (count, len(load.times), sum(load.wrong.values()), load.wrong or ""))
    return not load.wrong and len(load.times) > 0


def kills(options):
    """`kill -9` of workers under load: each costs the request in that worker at most, which is answered 502."""
    count = 5 if options.short else 30
    with Eleven(options, 2) as server, Load(server, 8) as load:
        for _ in range(count):
            before = len(load.times)
            while len(load.times) < before + 200:
                time.sleep(0.01)
            workers = server.workers()
            if workers:
                os.kill(random.choice(workers), signal.SIGKILL)
    lost = load.wrong.pop("502", 0)
    print("%d workers killed under load: %d requests, %d answered 502, %d failed otherwise %s" % (
        count, len(load.times), lost, sum(load.wrong.values()), load.wrong or ""))
    return not load.wrong and lost <= count


def crowd(server, count, request, small_buffer):
    """So many clients that have sent `request`."""
    clients = []
    for _ in range(count):
        client = Client(server)
        if small_buffer:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(request)
        clients.append(client)
    return clients


def latency(server, options):
    with Load(server, 2) as load:
        time.sleep(1 if options.short else 8)
    return load


def beside(options, what, request, small_buffer):
    """Short requests beside a crowd of slow clients, against short requests alone."""
    count = 100 if options.short else 1000
    with Eleven(options, 2) as server:
        latency(server, options)
        alone = latency(server, options)
        clients = crowd(server, count, request, small_buffer)
        if small_buffer:
            # All of them have the beginning: the workers have done their part.
            for client in clients:
                client.socket.settimeout(120)
                client.head()
        crowded = latency(server, options)
        for client in clients:
            client.socket.close()
    ratio = crowded.percentile(0.99) / alone.percentile(0.99)
    print("%d %s, 2 workers: short requests take %.2f ms (median) and %.2f ms (99 of 100); alone %.2f ms and %.2f ms: %.2f times"
          % (count, what, crowded.percentile(0.5), crowded.percentile(0.99), alone.percentile(0.5), alone.percentile(0.99), ratio))
    failed = {**alone.wrong, **crowded.wrong}
    if failed:
        print("  failed: %s" % failed)
    return not failed and (options.short or ratio < 2)


def slow_readers(options):
    return beside(options, "slow readers of 1 MiB", b"GET /mebibyte HTTP/1.1\r\nHost: a\r\n\r\n", True)


def slow_uploads(options):
    return beside(options, "slow uploads", b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx", False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = os.path.dirname(os.path.dirname(HERE))
    parser.add_argument("--eleven", default=os.path.join(root, "target", "release", "eleven"))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", help="names, separated by commas")
    options = parser.parse_args()
    options.eleven = os.path.abspath(options.eleven)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    good = True
    for proof in (reloads, kills, slow_readers, slow_uploads):
        if not options.only or proof.__name__ in options.only.split(","):
            good &= proof(options)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
