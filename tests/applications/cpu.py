#!/usr/bin/env python3
"""Requests per second of CPU time: eleven beside Granian, Gunicorn and Uvicorn, same application, same number of
processes, persistent connections, rounds interleaved.

    python3 tests/applications/cpu.py [--eleven target/release/eleven] [--rounds 5] [--connections 32] [--workers 1] [--asgi]

Needs `wrk`. CPU time is that of the server and all its workers (user and system), from /proc; what a server answers in
a second depends on the load generator as well, CPU time hardly.
"""

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

from suite import HERE, prepare

PACKAGES = ["granian", "gunicorn", "uvicorn", "httptools", "uvloop"]
TICK = os.sysconf("SC_CLK_TCK")


def commands(options, python, port):
    """Every server with the command line that makes it what it is."""
    bin = os.path.dirname(python)
    workers = str(options.workers)
    address = "127.0.0.1:%d" % port
    eleven = [options.eleven, "run", "--quiet", "--listen", address, "--workers", workers, "--python", python]
    granian = [
        bin + "/granian", "--host", "127.0.0.1", "--port", str(port), "--workers", workers,
        "--no-ws", "--log-level", "warning",
    ]
    gunicorn = [bin + "/gunicorn", "-b", address, "-w", workers, "--log-level", "warning"]
    if options.asgi:
        uvicorn = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
        return {
            "eleven": [*eleven, "hello:asgi"],
            "granian": [*granian, "--interface", "asgi", "hello:asgi"],
            "uvicorn": [bin + "/uvicorn", *uvicorn, "--workers", workers, "hello:asgi"],
        }
    return {
        "eleven": [*eleven, "hello:app"],
        "granian": [*granian, "--interface", "wsgi", "hello:app"],
        "gunicorn gthread": [*gunicorn, "-k", "gthread", "--threads", "4", "hello:app"],
        "gunicorn sync": [*gunicorn, "-k", "sync", "hello:app"],
    }


def family(root):
    """The process and all below it."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as file:
                    parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    found = [root]
    for process in found:
        found.extend(child for child, parent in parents.items() if parent == process)
    return found


def cpu_seconds(root):
    """User and system time of the family, from the kernel's clock of nanoseconds where it can be had."""
    total = 0
    for process in family(root):
        try:
            for task in os.listdir("/proc/%d/task" % process):
                with open("/proc/%d/task/%s/schedstat" % (process, task)) as file:
                    total += int(file.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port):
    """Whether the server is there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return b"200" in connection.recv(1000)
    except OSError:
        return False


def load(port, connections, seconds):
    """Runs the load; requests that were answered."""
    out = subprocess.run(
        ["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "http://127.0.0.1:%d/" % port],
        capture_output=True, text=True, check=True,
    ).stdout
    if "Non-2xx" in out:
        sys.exit("answers that are no success:\n" + out)
    return int(re.search(r"(\d+) requests in", out).group(1)), float(re.search(r"Requests/sec:\s*([\d.]+)", out).group(1))


def measure(command, port, options):
    process = subprocess.Popen(
        command, cwd=os.path.join(HERE, "apps"), stdout=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        end = time.monotonic() + 30
        while not answers(port):
            if time.monotonic() > end or process.poll() is not None:
                sys.exit("%s did not start" % command[0])
            time.sleep(0.05)
        load(port, options.connections, 1)
        before = cpu_seconds(process.pid)
        requests, rate = load(port, options.connections, options.seconds)
        used = cpu_seconds(process.pid) - before
        return requests / used, rate
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = os.path.dirname(os.path.dirname(HERE))
    parser.add_argument("--eleven", default=os.path.join(root, "target", "release", "eleven"))
    parser.add_argument("--venv", default=os.path.join(root, "target", "comparison-venv"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--asgi", action="store_true")
    parser.add_argument("--only", help="names, separated by commas")
    options = parser.parse_args()
    options.eleven = os.path.abspath(options.eleven)
    python = os.path.abspath(prepare(options.venv, PACKAGES))
    results, rates = {}, {}
    for _ in range(options.rounds):
        port = free_port()
        for name, command in commands(options, python, port).items():
            if options.only and name not in options.only.split(","):
                continue
            per_second, rate = measure(command, port, options)
            results.setdefault(name, []).append(per_second)
            rates.setdefault(name, []).append(rate)
    print("| server | requests per CPU second | eleven is … times as good | answered per second |\n|---|---|---|---|")
    for name, found in results.items():
        # Ratios are taken within a round: the speed of shared machines changes from minute to minute.
        ratios = [mine / theirs for mine, theirs in zip(results.get("eleven", found), found)]
        print("| %s | %d | %.2f (%.2f–%.2f) | %d |" % (
            name, statistics.median(found), statistics.median(ratios), min(ratios), max(ratios), statistics.median(rates[name]),
        ))


if __name__ == "__main__":
    main()
