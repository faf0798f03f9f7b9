#!/usr/bin/env python3
"""Real applications behind `eleven run`: Flask, Django (WSGI and ASGI) and FastAPI, from PyPI.

    python3 tests/applications/suite.py [--eleven target/release/eleven] [--venv DIR]

Makes a virtual environment and installs what is needed, then runs the tests. For CI.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ["flask", "django", "fastapi", "python-multipart", "websockets"]
OPTIONS = None


def prepare(folder, packages):
    """The interpreter of a virtual environment with these packages."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    stamp = os.path.join(folder, "installed")
    wanted = " ".join(packages)
    if not os.path.exists(stamp) or open(stamp).read() != wanted:
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        with open(stamp, "w") as file:
            file.write(wanted)
    return python


class Server:
    """`eleven run`, on a port of the system's choice."""

    def __init__(self, application, *options):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [OPTIONS.eleven, "run", application, "--listen", "127.0.0.1:0", "--python", OPTIONS.python, "--quiet",
             *(options if "--chdir" in options else ("--chdir", os.path.join(HERE, "apps"), *options))],
            stderr=self.errors,
        )
        end = time.monotonic() + 60
        while True:
            self.errors.seek(0)
            found = [line for line in self.errors.read().splitlines() if line.startswith("Running ")]
            if found:
                self.port = int(found[0].rstrip("/").rsplit(":", 1)[1])
                return
            if self.process.poll() is not None or time.monotonic() > end:
                self.errors.seek(0)
                raise RuntimeError("did not start: " + self.errors.read())
            time.sleep(0.02)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def close(self):
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


class Case(unittest.TestCase):
    application = None
    options = ()

    @classmethod
    def setUpClass(cls):
        if cls.application is None:
            raise unittest.SkipTest("a base")
        cls.server = Server(cls.application, *cls.options)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.close()
        assert code == 0, code

    def setUp(self):
        self.connection = self.server.connect()

    def tearDown(self):
        self.connection.close()

    def ask(self, method, path, content=None, fields=None, chunked=False):
        self.connection.request(method, path, content, fields or {}, encode_chunked=chunked)
        response = self.connection.getresponse()
        return response, response.read()

    def json(self, *arguments, **more):
        response, content = self.ask(*arguments, **more)
        self.assertEqual(response.status, 200, content)
        return json.loads(content)

    def multipart(self, size):
        lines = (
            b'--b\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"x" * size + b"\r\n--b--\r\n"
        )
        return lines, {"Content-Type": "multipart/form-data; boundary=b"}

    def common(self):
        """What all of them do, on one connection."""
        for _ in range(3):
            response, content = self.ask("GET", "/")
            self.assertEqual((response.status, content), (200, b"Hello, world!"))
        response, content = self.ask("GET", "/stream")
        self.assertEqual(content, b"".join(b"%d\n" % number for number in range(1000)))
        self.assertEqual(response.getheader("transfer-encoding"), "chunked")
        response, content = self.ask("GET", "/file")
        self.assertEqual((response.status, int(response.getheader("content-length"))), (200, len(content)))
        self.assertEqual(self.json("POST", "/raw", b"x" * 3_000_000)["size"], 3_000_000)
        # Without a length: the frameworks see all of it all the same.
        parts = iter([b"abc", b"d" * 100_000])
        more = {"Transfer-Encoding": "chunked"}
        self.assertEqual(self.json("POST", "/raw", parts, more, chunked=True)["size"], 100_003)
        response, content = self.ask("GET", "/none")
        self.assertEqual(response.status, 404)

    def load(self, paths, seconds=2, threads=8):
        """Requests in a hurry; every one must be answered. Returns how many there were."""
        end = time.monotonic() + seconds

        def work(index):
            connection, count = self.server.connect(), 0
            while time.monotonic() < end:
                connection.request("GET", paths[(index + count) % len(paths)])
                response = connection.getresponse()
                response.read()
                assert response.status == 200, response.status
                count += 1
            return count

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(work, range(threads)))


class Flask(Case):
    application = "flask_app:app"
    options = ("--workers", "2")

    def test_common(self):
        self.common()

    def test_request(self):
        found = self.json("GET", "/json/caf%C3%A9?a=1&b=%20", fields={"Host": "example.org:81"})
        self.assertEqual(found["name"], "café")
        self.assertEqual((found["host"], found["args"]), ("example.org:81", {"a": "1", "b": " "}))

    def test_form(self):
        content, fields = self.multipart(200_000)
        found = self.json("POST", "/form", content, fields)
        self.assertEqual((found["fields"], found["size"]), ({"field": "value"}, 200_000))

    def test_session_and_range(self):
        response, content = self.ask("GET", "/count")
        cookie = response.getheader("set-cookie").split(";")[0]
        self.assertEqual((content, self.ask("GET", "/count", fields={"Cookie": cookie})[1]), (b"1", b"2"))
        response, content = self.ask("GET", "/file", fields={"Range": "bytes=2-5"})
        self.assertEqual((response.status, len(content)), (206, 4))

    def test_error(self):
        self.assertEqual(self.ask("GET", "/boom")[0].status, 500)
        self.assertEqual(self.ask("GET", "/")[0].status, 200)

    def test_load_with_reloads_and_kills(self):
        stop = threading.Event()

        def reload():
            while not stop.wait(0.3):
                self.server.process.send_signal(signal.SIGHUP)

        thread = threading.Thread(target=reload)
        thread.start()
        try:
            self.assertGreater(self.load(["/", "/json/x", "/stream"]), 0)
        finally:
            stop.set()
            thread.join()

    def test_slow_uploads_hold_no_worker(self):
        slow = []
        for _ in range(100):
            connection = socket.create_connection(("127.0.0.1", self.server.port))
            connection.sendall(b"POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
            slow.append(connection)
        self.assertGreater(self.load(["/"], seconds=1, threads=2), 0)
        for connection in slow:
            connection.sendall(b"x" * 999)
        for connection in slow:
            self.assertIn(b" 200 ", connection.recv(100))
            connection.close()


class DjangoWsgi(Case):
    application = "django_app:application"
    options = ("--threads", "4")

    def test_common(self):
        self.common()

    def test_request(self):
        found = self.json("PUT", "/info/x", fields={"Host": "example.org:81"})
        self.assertEqual(found, {"name": "x", "host": "example.org:81", "method": "PUT", "path": "/info/x"})
        content, fields = self.multipart(3_000_000)
        self.assertEqual(self.json("POST", "/form", content, fields), {"fields": {"field": "value"}, "size": 3_000_000})

    def test_chunked_content_has_a_length(self):
        found = self.json("POST", "/raw", iter([b"abc"]), {"Transfer-Encoding": "chunked"}, chunked=True)
        self.assertEqual(found, {"size": 3, "length": "3"})

    def test_load(self):
        self.assertGreater(self.load(["/", "/info/x", "/stream"]), 0)


class DjangoAsgi(DjangoWsgi):
    application = "django_app:asgi_application"
    options = ("--interface", "asgi")

    def test_chunked_content_has_a_length(self):
        found = self.json("POST", "/raw", iter([b"abc"]), {"Transfer-Encoding": "chunked"}, chunked=True)
        self.assertEqual(found["size"], 3)


class FastApi(Case):
    application = "fastapi_app:app"

    def test_common(self):
        self.common()

    def test_request(self):
        found = self.json("GET", "/info/x?q=1", fields={"Host": "example.org:81"})
        self.assertEqual(found["url"], "http://example.org:81/info/x?q=1")
        self.assertEqual((found["client"], found["started"]), ("127.0.0.1", True))
        fields = {"Content-Type": "application/json"}
        self.assertEqual(self.json("POST", "/item", b'{"name": "a", "price": 2}', fields), {"twice": 4.0})
        self.assertEqual(self.ask("POST", "/item", b"{}", fields)[0].status, 422)
        content, fields = self.multipart(200_000)
        self.assertEqual(self.json("POST", "/form", content, fields), {"field": "value", "size": 200_000})
        self.assertEqual(self.json("GET", "/sync"), {"in": "a thread"})

    def test_background_work_goes_on_after_the_response(self):
        before = self.json("GET", "/background")["done"]
        end = time.monotonic() + 30
        while self.json("GET", "/background")["done"] <= before + 1:
            self.assertLess(time.monotonic(), end)

    def test_error(self):
        self.assertEqual(self.ask("GET", "/boom")[0].status, 500)
        self.assertEqual(self.ask("GET", "/")[0].status, 200)

    def test_load(self):
        self.assertGreater(self.load(["/", "/info/x", "/stream", "/sync"]), 0)

    def test_websocket_with_a_real_client(self):
        script = (
            "from websockets.sync.client import connect\n"
            "with connect('ws://127.0.0.1:%d/ws') as socket:\n"
            "    for text in ('hello', 'é' * 100_000, ''):\n"
            "        socket.send(text)\n"
            "        assert socket.recv() == text[::-1]\n"
            "print('good')" % self.server.port
        )
        result = subprocess.run([OPTIONS.python, "-c", script], capture_output=True, text=True, timeout=60)
        self.assertEqual(result.stdout.strip(), "good", result.stderr)


class Reloading(unittest.TestCase):
    """`--reload`: a changed file is served, a broken one is shown."""

    def test(self):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "dev_app.py")
            source = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%s']\n"

            def write(text):
                with open(name + ".new", "w") as file:
                    file.write(text)
                os.replace(name + ".new", name)

            write(source % "first")
            server = Server("dev_app:app", "--reload", "--chdir", folder)
            try:

                def wait_for(words, status):
                    end = time.monotonic() + 60
                    while True:
                        connection = server.connect()
                        connection.request("GET", "/")
                        response = connection.getresponse()
                        content = response.read().decode()
                        if words in content:
                            self.assertEqual(response.status, status)
                            return
                        self.assertLess(time.monotonic(), end, content)
                        time.sleep(0.05)

                wait_for("first", 200)
                write(source % "second")
                wait_for("second", 200)
                write("this is no Python")
                wait_for("SyntaxError", 500)
                write(source % "third")
                wait_for("third", 200)
            finally:
                server.close()


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = os.path.dirname(os.path.dirname(HERE))
    parser.add_argument("--eleven", default=os.path.join(root, "target", "release", "eleven"))
    parser.add_argument("--venv", default=os.path.join(root, "target", "applications-venv"))
    OPTIONS, rest = parser.parse_known_args()
    OPTIONS.eleven = os.path.abspath(OPTIONS.eleven)
    try:
        OPTIONS.python = os.path.abspath(prepare(OPTIONS.venv, PACKAGES))
    except subprocess.CalledProcessError as error:
        # Without the package index there is nothing to test with; nothing is skipped silently.
        sys.exit("the applications cannot be installed: %s" % error)
    unittest.main(argv=[sys.argv[0], *rest], warnings="ignore")


if __name__ == "__main__":
    main()
