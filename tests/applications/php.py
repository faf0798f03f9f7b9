#!/usr/bin/env python3
"""A PHP application behind the eight lines of configuration that docs/applications.md shows, run by a real PHP-FPM.

    python3 tests/applications/php.py [--eleven target/release/eleven]

Installs PHP-FPM from the system's packages if there is none.
"""

import argparse
import glob
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from suite import HERE

OPTIONS = None


def php_fpm():
    """The program, installed if need be."""
    for _ in range(2):
        found = sorted(glob.glob("/usr/sbin/php-fpm*")) + [path for path in [shutil.which("php-fpm")] if path]
        if found:
            return found[0]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "php-fpm"], check=True, env=environment,
            stdout=subprocess.DEVNULL,
        )
    sys.exit("there is no php-fpm, also after installing it")


def documented():
    """The configuration that the documentation shows."""
    with open(os.path.join(HERE, "..", "..", "docs", "applications.md")) as file:
        text = file.read().split("## PHP and other FastCGI servers")[1]
    return re.search(r"```toml\n(.*?)```", text, re.S).group(1)


class Php(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="eleven-php-")
        site = os.path.join(cls.folder, "site")
        shutil.copytree(os.path.join(HERE, "php"), site)
        os.chmod(cls.folder, 0o755)
        book = os.path.join(cls.folder, "book")
        os.mkdir(book)
        os.chmod(book, 0o777)
        server = os.path.join(cls.folder, "fpm.sock")
        user = "user = nobody\ngroup = nogroup\nlisten.mode = 0666\n" if os.getuid() == 0 else ""
        with open(os.path.join(cls.folder, "fpm.conf"), "w") as file:
            file.write(
                "[global]\nerror_log = %s/fpm.log\ndaemonize = no\n[www]\n%slisten = %s\npm = static\npm.max_children = 4\n"
                "env[GUESTBOOK_FILE] = %s/entries.json\nphp_value[session.save_path] = %s\nphp_flag[display_errors] = off\n"
                "php_value[upload_max_filesize] = 64M\nphp_value[post_max_size] = 64M\nphp_flag[log_errors] = on\n"
                % (cls.folder, user, server, book, book)
            )
        cls.fpm = subprocess.Popen([php_fpm(), "-n", "-y", os.path.join(cls.folder, "fpm.conf")], stderr=subprocess.DEVNULL)
        configuration = documented()
        cls.lines = [line for line in configuration.splitlines() if line.strip()]
        for before, after in [
            (":80", "127.0.0.1:0"),
            ("www.example.org", "localhost"),
            ("unix:/run/php/php8.2-fpm.sock", "unix:" + server),
            ("/srv/www/public", os.path.join(site, "public")),
        ]:
            assert configuration.count(before) == 1, before
            configuration = configuration.replace(before, after)
        with open(os.path.join(cls.folder, "site.toml"), "w") as file:
            file.write(configuration)
        cls.log = open(os.path.join(cls.folder, "eleven.log"), "w+")
        cls.eleven = subprocess.Popen(
            [OPTIONS.eleven, "serve", "--config", os.path.join(cls.folder, "site.toml"), "--quiet"], stderr=cls.log,
        )
        end = time.monotonic() + 60
        cls.port = None
        while True:
            try:
                found = re.search(r"Serving .* on http://127.0.0.1:(\d+)/", cls.said())
                cls.port = found and int(found.group(1))
                if cls.port and cls.get("/style.css")[0].status == 200 and cls.get("/empty")[0].status == 204:
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                raise RuntimeError("does not start:\n" + cls.said())
            time.sleep(0.05)

    @classmethod
    def tearDownClass(cls):
        cls.eleven.terminate()
        code = cls.eleven.wait(60)
        cls.fpm.terminate()
        cls.fpm.wait(60)
        cls.log.close()
        shutil.rmtree(cls.folder)
        assert code == 0, code

    @classmethod
    def said(cls):
        cls.log.seek(0)
        return cls.log.read()

    @classmethod
    def ask(cls, method, path, content=None, fields=None, connection=None, **more):
        own = connection or http.client.HTTPConnection("127.0.0.1", cls.port, timeout=60)
        own.request(method, path, content, {"Host": "localhost", **(fields or {})}, **more)
        response = own.getresponse()
        content = response.read()
        if connection is None:
            own.close()
        return response, content

    @classmethod
    def get(cls, path, **more):
        return cls.ask("GET", path, **more)

    def test_eight_lines(self):
        self.assertLessEqual(len(self.lines), 8)

    def test_pages_and_a_form(self):
        response, _ = self.ask("POST", "/sign", "name=Ann&text=%3Cb%3E", {"Content-Type": "application/x-www-form-urlencoded"})
        self.assertEqual((response.status, response.getheader("location")), (303, "/"))
        response, content = self.get("/")
        self.assertEqual(response.status, 200)
        self.assertIn(b"<li>Ann: &lt;b&gt;</li>", content)
        self.assertTrue(response.getheader("content-type").startswith("text/html"))
        self.assertEqual(json.loads(self.get("/api/entries/0")[1])["name"], "Ann")
        self.assertEqual(self.get("/api/entries/999")[0].status, 404)
        response, content = self.get("/no/such/page?x=1")
        self.assertEqual((response.status, content), (404, b"no page at /no/such/page"))
        self.assertEqual(self.get("/caf%C3%A9")[1], "café".encode())

    def test_files_are_served_and_scripts_are_never_text(self):
        response, content = self.get("/style.css")
        self.assertEqual((response.getheader("content-type").split(";")[0], content), ("text/css", b"body { margin: 0 }\n"))
        self.assertEqual(self.get("/info.php/more?a=1")[1], b"/info.php /more a=1")
        for path in ("/index.php", "/INFO.PHP", "/info.php%00.css", "/../src/Guestbook.php", "/style.css/x.php", "/info.php.", "//info.php"):
            response, content = self.get(path)
            self.assertNotIn(b"<?php", content, path)

    def test_variables(self):
        found = json.loads(self.get("/server?a=%20b", fields={"X_A": "evil", "X-A": "good", "Proxy": "evil"})[1])
        self.assertEqual(
            (found["HTTP_HOST"], found["SERVER_NAME"], found["REQUEST_URI"], found["QUERY_STRING"], found["SCRIPT_NAME"]),
            ("localhost", "localhost", "/server?a=%20b", "a=%20b", "/index.php"),
        )
        self.assertEqual((found["HTTP_X_A"], found["HTTP_PROXY"], found["REMOTE_ADDR"]), ("good", None, "127.0.0.1"))
        self.assertTrue(found["SCRIPT_FILENAME"].endswith("/site/public/index.php"))

    def test_upload(self):
        data = os.urandom(3_000_000)
        content = (
            b'--b\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n' + data + b"\r\n--b--\r\n"
        )
        found = json.loads(self.ask("POST", "/upload", content, {"Content-Type": "multipart/form-data; boundary=b"})[1])
        self.assertEqual(found, {"name": "f.bin", "sha1": hashlib.sha1(data).hexdigest(), "field": "value"})

    def test_content_without_a_length_gets_one(self):
        parts = [os.urandom(70_000) for _ in range(5)]
        found = json.loads(
            self.ask("POST", "/raw", iter(parts), {"Transfer-Encoding": "chunked", "Content-Type": "x/y"}, encode_chunked=True)[1]
        )
        self.assertEqual(found, {"length": "350000", "sha1": hashlib.sha1(b"".join(parts)).hexdigest()})

    def test_session(self):
        response, content = self.get("/visits")
        cookie = response.getheader("set-cookie").split(";")[0]
        self.assertEqual((content, self.get("/visits", fields={"Cookie": cookie})[1]), (b"1", b"2"))

    def test_large_streamed_and_none(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for _ in range(2):
            self.assertEqual(len(self.get("/large", connection=connection)[1]), 64 * 65536)
            self.assertEqual(self.get("/stream", connection=connection)[1], b"one\ntwo\nthree\n")
            response, content = self.get("/empty", connection=connection)
            self.assertEqual((response.status, content), (204, b""))
            response, content = self.ask("HEAD", "/large", connection=connection)
            self.assertEqual((response.status, content), (200, b""))
        connection.close()

    def test_an_error_is_500_and_in_the_log(self):
        self.assertEqual(self.get("/boom")[0].status, 500)
        end = time.monotonic() + 20
        while "the guest book burns" not in self.said():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def test_more_at_once_than_php_has_processes(self):
        wrong = []

        def work():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            for _ in range(20):
                response, content = self.get("/stream", connection=connection)
                if (response.status, content) != (200, b"one\ntwo\nthree\n"):
                    wrong.append((response.status, content))
            connection.close()

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = os.path.dirname(os.path.dirname(HERE))
    parser.add_argument("--eleven", default=os.path.join(root, "target", "release", "eleven"))
    OPTIONS, rest = parser.parse_known_args()
    OPTIONS.eleven = os.path.abspath(OPTIONS.eleven)
    unittest.main(argv=[sys.argv[0], *rest])
