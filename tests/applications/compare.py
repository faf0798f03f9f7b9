#!/usr/bin/env python3
"""The same cases on raw sockets against eleven, Gunicorn, Granian and Uvicorn, as the table of docs/applications.md.

    python3 tests/applications/compare.py [--eleven target/release/eleven] [--only NAME,…] [--check]

Installs the others into a virtual environment. Every server runs one worker of the same application with its defaults,
and where it has a time-out for requests, with one of 3 seconds. `--check` runs eleven alone and fails if it does not do
best in every case: that is the form for CI.
"""

import argparse
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from cpu import free_port
from suite import HERE, prepare

PACKAGES = ["granian", "gunicorn", "uvicorn", "httptools", "uvloop"]
# How long the absence of an answer is watched. With `--check` nothing is absent, and a busy machine has its time.
WAIT_S = 3
CHECK_WAIT_S = 30
# With `--check`, how often a case is tried before it has failed.
CHECK_TRIES = 3
CASES = []


def case(name, best, asgi=True):
    """A case of the table: its name and the outcome that is right."""

    def add(function):
        CASES.append((name, best, function, asgi))
        return function

    return add


class Server:
    def __init__(self, name, command, port, quiet):
        self.name, self.command, self.port, self.quiet = name, command, port, quiet
        self.process = None

    def start(self):
        said = tempfile.TemporaryFile("w+") if self.port == 0 else None
        self.process = subprocess.Popen(
            self.command, cwd=os.path.join(HERE, "apps"), start_new_session=True,
            stdout=self.quiet, stderr=said or self.quiet,
        )
        end = time.monotonic() + 60
        while said:
            said.seek(0)
            found = re.search(r"Running .* on http://127.0.0.1:(\d+)/", said.read())
            if found:
                self.port = int(found.group(1))
                # Where it is from now on, also when it has to be started again.
                self.command = [part.replace("127.0.0.1:0", "127.0.0.1:%d" % self.port) for part in self.command]
                break
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError("%s does not start" % self.name)
            time.sleep(0.02)
        self.wait_until_it_answers()

    def wait_until_it_answers(self, seconds=60):
        end = time.monotonic() + seconds
        while True:
            try:
                with Client(self) as client:
                    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    if client.response()[0] == 200:
                        return
            except (OSError, Broken):
                pass
            if time.monotonic() > end:
                raise RuntimeError("%s does not answer" % self.name)
            time.sleep(0.05)

    def stop(self):
        if self.process is None:
            return
        for name in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, name)
                self.process.wait(10)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break
        self.process.wait()
        self.process = None


class Broken(Exception):
    """The connection ended, or nothing came, before the response was whole. Says which."""


class Client:
    """A socket, and a reader that believes nothing."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))

    def more(self):
        try:
            data = self.socket.recv(65536)
        except socket.timeout:
            raise Broken("nothing comes") from None
        except OSError:
            raise Broken("reset") from None
        if not data:
            raise Broken("closed")
        self.buffer += data

    def head(self):
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        match = re.match(r"HTTP/1\.[01] (\d{3})", lines[0])
        if not match:
            raise Broken("nonsense")
        return int(match.group(1)), fields

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def response(self, method="GET"):
        """Status, fields, content of the next final response."""
        status, fields = self.head()
        while 100 <= status < 200:
            status, fields = self.head()
        if method == "HEAD" or status in (204, 304):
            return status, fields, b""
        if fields.get("transfer-encoding", "").lower() == "chunked":
            content = b""
            while True:
                while b"\r\n" not in self.buffer:
                    self.more()
                line, _, self.buffer = self.buffer.partition(b"\r\n")
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    while not self.buffer.startswith(b"\r\n"):
                        self.more()
                    self.buffer = self.buffer[2:]
                    return status, fields, content
                content += self.take(size)
                self.take(2)
        if "content-length" in fields:
            return status, fields, self.take(int(fields["content-length"]))
        try:
            while True:
                self.more()
        except Broken as end:
            if str(end) != "closed":
                raise
        content, self.buffer = self.buffer, b""
        return status, fields, content

    def closed(self):
        """Whether the server ends the connection soon."""
        try:
            while True:
                self.more()
        except Broken as end:
            return str(end) != "nothing comes"


def get(path, more="", version="1.1"):
    return "GET %s HTTP/%s\r\nHost: a.example\r\n%s\r\n" % (path, version, more)


def status_of(server, text):
    """The status of the answer to octets that no server should take, or what happens instead."""
    with Client(server) as client:
        client.send(text)
        status = client.response()[0]
        return "refused" if status in (400, 411, 501) else "taken (%d)" % status


@case("persistent connections", "yes")
def _(server):
    with Client(server) as client:
        for _ in range(2):
            client.send(get("/"))
            client.response()
    return "yes"


@case("20 pipelined requests", "all answered")
def _(server):
    with Client(server) as client:
        client.send(get("/") * 20)
        for number in range(20):
            try:
                client.response()
            except Broken as end:
                return "%d answered, then %s" % (number, end)
    return "all answered"


@case("chunked upload", "yes")
def _(server):
    with Client(server) as client:
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.send("2;ext=1\r\nde\r\n0\r\n\r\n")
        content = client.response()[2]
    return "yes" if content == b"abcde" else "content lost"


@case("length of a chunked upload, as Django needs it", "known", asgi=False)
def _(server):
    with Client(server) as client:
        client.send("POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        return "known" if client.response()[2] == b"3" else "unknown"


@case("request trailers", "readable", asgi=False)
def _(server):
    with Client(server) as client:
        client.send("POST /trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: v\r\n\r\n")
        content = client.response()[2]
        client.send(get("/"))
        client.response()
    return "readable" if b"'v'" in content else "dropped"


@case("request trailers do not disturb the next request", "yes")
def _(server):
    with Client(server) as client:
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: v\r\n\r\n")
        client.response()
        client.send(get("/"))
        return "yes" if client.response()[2] == b"hello" else "no"


@case("`Expect: 100-continue`, application does not read", "no 100")
def _(server):
    with Client(server) as client:
        client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        status = client.head()[0]
        return "no 100" if status == 403 else "100 all the same" if status == 100 else str(status)


@case("`Expect: 100-continue`, application reads", "100, 200")
def _(server):
    with Client(server) as client:
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        first = client.head()[0]
        client.send("abc")
        return "%d, %d" % (first, client.response()[0])


@case("no Host", "refused")
def _(server):
    return status_of(server, "GET / HTTP/1.1\r\n\r\n")


@case("two Hosts", "refused")
def _(server):
    return status_of(server, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")


@case("Host with nonsense (`a b`, `a/b`, `a@b`)", "refused")
def _(server):
    for host in ("a b", "a/b", "a@b"):
        found = status_of(server, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
        if found != "refused":
            return found
    return "refused"


@case("Content-Length and Transfer-Encoding", "refused")
def _(server):
    return status_of(server, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


@case("Content-Length `+3`, and 3 beside 4", "refused")
def _(server):
    for lines in ("Content-Length: +3\r\n", "Content-Length: 3\r\nContent-Length: 4\r\n"):
        found = status_of(server, "POST /echo HTTP/1.1\r\nHost: a\r\n%s\r\nabcd" % lines)
        if found != "refused":
            return found
    return "refused"


@case("chunk size `0x3`, chunk without its CRLF", "refused")
def _(server):
    head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body in ("0x3\r\nabc\r\n0\r\n\r\n", "3\r\nabcXX0\r\n\r\n"):
        try:
            found = status_of(server, head + body)
        except Broken as end:
            found = "refused" if str(end) in ("closed", "reset") else str(end)
        if found != "refused":
            return found
    return "refused"


@case("bare LF, folded line, space before the colon", "refused")
def _(server):
    for text in ("GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"):
        found = status_of(server, text)
        if found != "refused":
            return found
    return "refused"


@case("absolute-form overrides Host", "yes")
def _(server):
    with Client(server) as client:
        client.send("GET http://right.example/host HTTP/1.1\r\nHost: wrong.example\r\n\r\n")
        status, _, content = client.response()
    if status != 200:
        return str(status)
    return {b"right.example": "yes", b"hello": "path is wrong"}.get(content, "no")


@case("`X_User` taken for `X-User`", "no", asgi=False)
def _(server):
    with Client(server) as client:
        client.send(get("/field", "X_User: evil\r\n"))
        return "yes" if b"evil" in client.response()[2] else "no"


@case("HTTP/1.0: stream without chunks, then the end", "yes")
def _(server):
    with Client(server) as client:
        client.send(get("/stream", version="1.0"))
        _, fields, content = client.response()
    if "transfer-encoding" in fields:
        return "chunked"
    return "yes" if content == b"one,two" else "content lost"


@case("HTTP/1.0 with keep-alive", "kept")
def _(server):
    with Client(server) as client:
        for _ in range(2):
            client.send(get("/", "Connection: keep-alive\r\n", "1.0"))
            client.response()
    return "kept"


def in_step(server, method, path):
    """Whether the next response is found where it should be."""
    with Client(server) as client:
        client.send("%s %s HTTP/1.1\r\nHost: a\r\n\r\n" % (method, path))
        client.response(method)
        client.send(get("/"))
        status, _, content = client.response()
        return "in step" if (status, content) == (200, b"hello") else "out of step"


@case("HEAD for a stream", "in step")
def _(server):
    return in_step(server, "HEAD", "/stream")


@case("204 and 304 with content given", "in step")
def _(server):
    for path in ("/204", "/304"):
        found = in_step(server, "GET", path)
        if found != "in step":
            return found
    return "in step"


@case("answer while 20 MB of upload are coming", "arrives")
def _(server):
    with Client(server) as client:
        client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        try:
            for _ in range(200):
                client.send(b"x" * 100_000)
        except socket.timeout:
            pass
        except OSError:
            # A client that cannot send any more still looks for an answer.
            pass
        return "arrives" if client.response()[0] == 403 else "does not arrive"


@case("too little content for its length", "connection ends")
def _(server):
    with Client(server) as client:
        client.send(get("/little"))
        try:
            status = client.response()[0]
        except Broken as end:
            return "client waits" if str(end) == "nothing comes" else "connection ends"
        return "connection ends" if status == 500 else "out of step"


@case("too much content for its length", "never on the wire")
def _(server):
    with Client(server) as client:
        client.send(get("/much"))
        status = client.response()[0]
        if status != 200:
            return "never on the wire"
        client.send(get("/"))
        try:
            status, _, content = client.response()
        except Broken as end:
            return "out of step" if str(end) == "nonsense" else "never on the wire"
        return "never on the wire" if (status, content) == (200, b"hello") else "out of step"


@case("exception before the head", "500, kept")
def _(server):
    with Client(server) as client:
        client.send(get("/raise"))
        status = client.response()[0]
        client.send(get("/"))
        try:
            client.response()
        except (Broken, OSError):
            return "%d, closed" % status
        return "%d, kept" % status


@case("exception amid chunks", "seen by the client")
def _(server):
    with Client(server) as client:
        client.send(get("/raise-later"))
        try:
            status = client.response()[0]
        except Broken as end:
            return "client waits" if str(end) == "nothing comes" else "seen by the client"
        return "seen by the client" if status == 500 else "looks whole"


@case("CR LF in a response field", "refused")
def _(server):
    with Client(server) as client:
        client.send(get("/inject"))
        status, fields, _ = client.response()
        if "x-b" in fields:
            return "injected"
        return "refused" if status == 500 else "changed (%d)" % status


@case("early hints (103)", "sent")
def _(server):
    with Client(server) as client:
        client.send(get("/hints"))
        return "sent" if client.head()[0] == 103 else "not offered"


def short_meanwhile(server):
    """Whether another client is answered while the one before is slow."""
    with Client(server) as client:
        client.send(get("/"))
        try:
            client.response()
        except (Broken, OSError):
            return "have to wait"
    return "answered"


@case("others, while a reader takes nothing of 8 MiB", "answered")
def _(server):
    with Client(server) as slow:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.send(get("/large"))
        slow.head()
        time.sleep(0.3)
        return short_meanwhile(server)


@case("others, while 50 uploads stand still", "answered")
def _(server):
    slow = [Client(server) for _ in range(50)]
    try:
        for client in slow:
            client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        time.sleep(0.3)
        return short_meanwhile(server)
    finally:
        for client in slow:
            client.socket.close()


@case("others, while 50 heads stand still", "answered")
def _(server):
    slow = [Client(server) for _ in range(50)]
    try:
        for client in slow:
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow:")
        time.sleep(0.3)
        return short_meanwhile(server)
    finally:
        for client in slow:
            client.socket.close()


@case("client leaves amid a stream", "application told")
def _(server):
    client = Client(server)
    client.send(get("/watched"))
    client.head()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()
    end = time.monotonic() + WAIT_S + 1
    while time.monotonic() < end:
        try:
            with Client(server) as other:
                other.send(get("/events"))
                if other.response()[2] == b"closed":
                    return "application told"
        except (Broken, OSError):
            pass
        time.sleep(0.1)
    return "goes on for nobody"


@case("request over its time-out (3 s)", "504")
def _(server):
    with Client(server) as client:
        client.socket.settimeout(WAIT_S + 7)
        client.send(get("/sleep"))
        try:
            return str(client.response()[0])
        except Broken as end:
            return {"nothing comes": "never ends"}.get(str(end), str(end))


@case("worker dies", "502")
def _(server):
    with Client(server) as client:
        client.send(get("/die"))
        try:
            return str(client.response()[0])
        except Broken as end:
            return {"nothing comes": "client waits"}.get(str(end), str(end))


def servers(options, python):
    bin = os.path.dirname(python)
    quiet = None if options.loud else subprocess.DEVNULL

    def make(name, command):
        # The others do not say which port the system chose.
        port = 0 if name == "eleven" else free_port()
        return Server(name, [part.replace("PORT", str(port)) for part in command], port, quiet)

    eleven = [options.eleven, "run", "--quiet", "--listen", "127.0.0.1:PORT", "--python", python, "--timeout", "3"]
    gunicorn = [bin + "/gunicorn", "-b", "127.0.0.1:PORT", "--timeout", "3"]
    granian = [bin + "/granian", "--host", "127.0.0.1", "--port", "PORT", "--respawn-failed-workers"]
    uvicorn = [bin + "/uvicorn", "--host", "127.0.0.1", "--port", "PORT", "cases:asgi"]
    return {
        "WSGI": [
            make("eleven", [*eleven, "cases:app"]),
            make("Gunicorn sync", [*gunicorn, "cases:app"]),
            make("Gunicorn gthread", [*gunicorn, "-k", "gthread", "--threads", "2", "cases:app"]),
            make("Granian", [*granian, "--interface", "wsgi", "cases:app"]),
        ],
        "ASGI": [
            make("eleven", [*eleven, "cases:asgi"]),
            make("Uvicorn", uvicorn),
            make("Granian", [*granian, "--interface", "asgi", "cases:asgi"]),
        ],
    }


def outcome(function, server):
    try:
        return function(server)
    except Broken as end:
        return str(end)
    except OSError as error:
        return "reset" if isinstance(error, ConnectionError) else str(error)


def outcomes(server, is_asgi, tries):
    """What this server does, by case."""
    found = {}
    server.start()
    try:
        for name, best, function, for_asgi in CASES:
            if is_asgi and not for_asgi:
                found[name] = "–"
                continue
            for _ in range(tries):
                found[name] = outcome(function, server)
                try:
                    server.wait_until_it_answers(WAIT_S + 5)
                except RuntimeError:
                    server.stop()
                    server.start()
                if found[name] == best:
                    break
    finally:
        server.stop()
    return found


def versions(python):
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "freeze"], capture_output=True, text=True, check=True).stdout
    wanted = ("granian", "gunicorn", "uvicorn", "httptools")
    return ", ".join(line.replace("==", " ") for line in listed.splitlines() if line.split("==")[0].lower() in wanted)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = os.path.dirname(os.path.dirname(HERE))
    parser.add_argument("--eleven", default=os.path.join(root, "target", "release", "eleven"))
    parser.add_argument("--venv", default=os.path.join(root, "target", "comparison-venv"))
    parser.add_argument("--only", help="names of servers, separated by commas")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--loud", action="store_true", help="show what the servers say")
    options = parser.parse_args()
    options.eleven = os.path.abspath(options.eleven)
    python = sys.executable if options.check else os.path.abspath(prepare(options.venv, PACKAGES))
    if options.check:
        global WAIT_S
        options.only, WAIT_S = "eleven", CHECK_WAIT_S
    columns, threads = [], []
    for interface, all_of_them in servers(options, python).items():
        for server in all_of_them:
            if options.only and server.name not in options.only.split(","):
                continue
            column = ["%s (%s)" % (server.name, interface), {}]
            columns.append(column)

            def run(column=column, server=server, interface=interface):
                column[1] = outcomes(server, interface == "ASGI", CHECK_TRIES if options.check else 1)

            threads.append(threading.Thread(target=run))
    for thread in threads:
        thread.start()
        if not options.check:
            # One after the other: nothing here may depend on what else runs.
            thread.join()
    for thread in threads:
        thread.join()
    print("| case | %s |\n|---%s|" % (" | ".join(column[0] for column in columns), "|---" * len(columns)))
    wrong = 0
    for name, best, _, _ in CASES:
        cells = []
        for title, found in columns:
            cell = found.get(name, "did not run")
            is_right = cell in (best, "–")
            wrong += title.startswith("eleven") and not is_right
            cells.append(cell if is_right else "**%s**" % cell)
        print("| %s | %s |" % (name, " | ".join(cells)))
    if not options.check:
        print("\n" + versions(python))
    sys.exit(1 if wrong and options.check else 0)


if __name__ == "__main__":
    main()
