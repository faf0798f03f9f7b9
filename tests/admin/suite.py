"""The admin page as a person sees it: a server with traffic of every kind, some of it hostile, and headless Chromium
driven over its debugging pipe. Started by run.sh. With SCREENSHOTS=DIR, pictures are left there to be looked at.
"""
import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import common

ELEVEN = common.binary()
SCREENSHOTS = os.environ.get("SCREENSHOTS")
PATIENCE = 60
TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = [
    "/<script>document.title='owned'</script>",
    "/%3Cimg%20src=x%20onerror=document.title='owned'%3E",
    "/'\"><svg/onload=document.title='owned'>",
    "/\u202egnp.exe",
]


@contextlib.contextmanager
def eleven(*args, env=None):
    """A server; gives the URLs it prints, by the word before them."""
    process = subprocess.Popen([ELEVEN, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **(env or {})})
    urls, lines = [], []

    def read():
        for line in process.stderr:
            lines.append(line)
            urls.extend(re.findall(r" on (https?://\S+|unix:\S+)", line))

    threading.Thread(target=read, daemon=True).start()
    try:
        common.wait_for(f"the start of {args}", lambda: any("Serving" in line or "Echo" in line for line in lines) or process.poll() is not None)
        time.sleep(0.05)
        assert process.poll() is None, "".join(lines)
        yield urls
        assert process.poll() is None, f"ended with {process.returncode}: {''.join(lines)}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Browser:
    """Chromium over its debugging pipe: JSON that ends with a zero octet, both ways."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="eleven-chromium-")
        theirs_in, self.to = os.pipe()
        self.source, theirs_out = os.pipe()
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--no-first-run", f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *command],
                                        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.number, self.session, self.said = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                piece = os.read(self.source, 1 << 16)
                assert piece, "Chromium is gone"
                self.buffer += piece
            text, self.buffer = self.buffer.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(json.dumps(answer["params"])[:500])

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def holds(self, expression):
        """Whether it is true by now, on a page that may still be loading."""
        try:
            return self.evaluate(expression)
        except AssertionError:
            return False

    def open(self, url, width, height, dark):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=url)

    def picture(self, name):
        if not SCREENSHOTS:
            return
        height = self.evaluate("document.documentElement.scrollHeight")
        width = self.evaluate("innerWidth")
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True,
                         clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})
        pathlib.Path(SCREENSHOTS, name + ".png").write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        shutil.rmtree(self.profile, ignore_errors=True)


def get(url, target, method="GET", host=None, headers=None):
    scheme, rest = url.split("://")
    place = rest.strip("/")
    if scheme == "https":
        connection = http.client.HTTPSConnection(place, timeout=PATIENCE, context=ssl._create_unverified_context())
    else:
        connection = http.client.HTTPConnection(place, timeout=PATIENCE)
    try:
        connection.request(method, target, headers={**({"Host": host} if host else {}), **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def send_raw(url, octets):
    host, port = url.split("://")[1].strip("/").split(":")
    with socket.create_connection((host, int(port)), PATIENCE) as stream:
        stream.sendall(octets)
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(65536):
            pass


def traffic(plain, secure, stop):
    """A little of everything, until told to stop."""
    n = 0
    while not stop.is_set():
        n += 1
        for path in ["/", "/", "/", "/style.css", "/nothing", "/api/", "/api/stream/20", "/cached/fresh/bytes/20000", "/cached/fresh/bytes/500", f"/cached/bytes/{n}"]:
            get(plain, path, host="www.example")
        get(plain, "/delay/0.02", host="echo.example")
        get(plain, "/status/503", host="echo.example")
        get(secure, "/", host="www.example")
        get(plain, "/private/", host="www.example")
        get(plain, "/", host="nobody.example")
        for path in HOSTILE:
            send_raw(plain, f"GET {path} HTTP/1.1\r\nHost: echo.example\r\nConnection: close\r\n\r\n".encode())
            get(plain, "/private/" + path.replace("/", "").encode("ascii", "ignore").decode().replace(" ", "") .replace("<", "%3C").replace(">", "%3E").replace('"', "%22"), host="www.example")
        send_raw(plain, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        send_raw(plain, b"\x16\x03\x01\x02\x00\x01\x00")
        stop.wait(0.05)


def check_page(admin, plain, secure, browser):
    stop = threading.Event()
    failure = []

    def make_traffic():
        try:
            traffic(plain, secure, stop)
        except Exception as error:  # shown by the main thread
            failure.append(error)

    thread = threading.Thread(target=make_traffic)
    thread.start()
    try:
        for name, width, height, dark in [("desktop", 1280, 900, False), ("phone-dark", 390, 844, True), ("phone", 390, 844, False), ("desktop-dark", 1280, 900, True)]:
            browser.open(admin, width, height, dark)
            common.wait_for("the third event", lambda: browser.holds("Number(document.documentElement.dataset.shown || 0) >= 3"))
            common.wait_for("figures", lambda: browser.holds("document.getElementById('refusals').rows.length > 3"))
            common.wait_for("rates", lambda: browser.holds("document.getElementById('rps').textContent.includes('/s')"))
            overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, f"{name}: {overflow} pixels too wide"
            assert browser.evaluate("document.title") == "eleven", "a client's text was run"
            assert browser.evaluate("document.querySelectorAll('main script, main img, main svg:not(.spark)').length") == 0
            assert browser.evaluate("document.getElementById('state').textContent") == "running"
            background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(18, 22, 26)") == dark, background
            for expected in ["www.example", "healthy", "failing", "uri-miss", "HIT", "11 days", "address", "5xx", "no-such-site"]:
                common.wait_for(expected, lambda: browser.holds(f"document.getElementById('main').textContent.includes({expected!r})"))
            browser.picture(name)
            text = browser.evaluate("document.getElementById('main').textContent")
            assert "\u202e" not in text, "a client turned the text round"
            fetched = browser.evaluate("performance.getEntriesByType('resource').map(e => new URL(e.name).origin)")
            assert all(origin in (admin.rstrip("/"), "null") for origin in fetched), fetched
        assert not browser.said, browser.said
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not failure, failure


def check_token(browser, folder):
    with eleven("serve", str(folder), "--listen", "127.0.0.1:0", "--quiet", "--admin", "127.0.0.1:0", env={"ELEVEN_ADMIN_TOKEN": TOKEN}) as urls:
        admin = common.wait_for("the admin listener", lambda: urls[:1])[0]
        browser.open(admin, 390, 844, False)
        common.wait_for("the question for the token", lambda: browser.holds("!document.getElementById('token').hidden"))
        browser.said.clear()
        browser.evaluate(f"document.getElementById('secret').value = '{TOKEN}'; document.getElementById('ask').requestSubmit()")
        common.wait_for("figures", lambda: browser.holds("Number(document.documentElement.dataset.shown || 0) >= 1"))
        assert browser.evaluate("document.getElementById('token').hidden")
        assert not browser.said, browser.said


def check_metrics(admin):
    """The figures in both formats, by the parsers of Prometheus' own client, and the same families in both."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
    from prometheus_client.parser import text_string_to_metric_families as read_prometheus

    status, text = get(admin, "/metrics")
    assert status == 200
    plain = {family.name: family for family in read_prometheus(text.decode())}
    status, open_text = get(admin, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert status == 200
    strict = {family.name: family for family in read_openmetrics(open_text.decode())}
    assert plain.keys() == strict.keys(), plain.keys() ^ strict.keys()
    for name, kind, labels in [
        ("eleven_requests", "counter", {"site": "www.example", "handler": "proxy", "class": "2xx"}),
        ("eleven_request_duration_seconds", "histogram", {"site": "www.example", "handler": "files", "le": "+Inf"}),
        ("eleven_refusals", "counter", {"reason": "address"}),
        ("eleven_queue_requests", "gauge", {"state": "waiting"}),
        ("eleven_cache_requests", "counter", {"verdict": "HIT"}),
        ("eleven_tls_handshakes", "counter", {}),
        ("eleven_upstream_healthy", "gauge", {"upstream": "http://127.0.0.1:1"}),
        ("eleven_upstream_connections_opened", "counter", {}),
        ("eleven_upstream_connections_idle", "gauge", {}),
        ("eleven_upstream_duration_seconds", "histogram", {"le": "+Inf"}),
        ("eleven_reloads", "counter", {"result": "taken"}),
        ("eleven_log_lines_dropped", "counter", {}),
        ("eleven_certificate_not_after_seconds", "gauge", {"name": "www.example"}),
        ("process_resident_memory_bytes", "gauge", {}),
    ]:
        for families in (plain, strict):
            family = families[name]
            assert family.type == kind and family.documentation, family
            fitting = [sample for sample in family.samples if labels.items() <= sample.labels.items()]
            assert fitting, f"no sample of {name} with {labels}: {family.samples}"
    measured = [sample.value for sample in plain["eleven_upstream_duration_seconds"].samples if sample.name.endswith("_count")]
    assert sum(measured) > 0, "the gateway's server was asked, and its time not noted"
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr


def check_drain(admin):
    """The operator's switch: a server is taken out and put back, and everybody is told."""
    place = admin.split("://")[1].strip("/")

    def upstreams(*args, code=0):
        command = [ELEVEN, "upstreams", "--admin", place, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == code, done
        return done.stdout or done.stderr

    name = "http://127.0.0.1:1"
    line = lambda text: next(line for line in text.splitlines() if line.startswith(name + " "))
    assert " down " in line(upstreams())
    assert " draining " in line(upstreams("--drain", name))
    assert f'eleven_upstream_draining{{upstream="{name}"}} 1'.encode() in get(admin, "/metrics")[1]
    assert " down " in line(upstreams("--undrain", name))
    assert "no gateway" in upstreams("--drain", "http://nobody:1", code=1)


def check_top(admin):
    place = admin.split("://")[1].strip("/")
    done = subprocess.run([ELEVEN, "top", "--once", "--admin", place], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for expected in ["running", "www.example", "healthy", "failing", "11 days", "LAST REFUSALS", "403  address"]:
        assert expected in done.stdout, f"no {expected!r} in\n{done.stdout}"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", done.stdout), repr(done.stdout)
    nobody = subprocess.run([ELEVEN, "top", "--once", "--admin", "127.0.0.1:1"], capture_output=True, text=True, timeout=PATIENCE)
    assert nobody.returncode == 1 and "--admin" in nobody.stderr, nobody


def check_ids(plain):
    """The server behind the gateway, the client and nobody else are told the same id; a stranger's is replaced."""
    connection = http.client.HTTPConnection(plain.split("://")[1].strip("/"), timeout=PATIENCE)
    connection.request("GET", "/api/echo", headers={"Host": "www.example", "X-Request-Id": "forged", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    response = connection.getresponse()
    text, given = response.read().decode(), response.getheader("X-Request-Id")
    connection.close()
    assert re.fullmatch("[0-9a-f]{32}", given), given
    assert re.findall("(?im)^x-request-id: (.*)$", text) == [given], text
    [parent] = re.findall("(?im)^traceparent: (.*)$", text)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", parent) and "0af7651916cd43dd" not in parent, parent


def main():
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        www = folder / "www"
        www.mkdir()
        (www / "index.html").write_text("<h1>hello</h1>")
        (www / "style.css").write_text("body { color: red }")
        inner = folder / "origin.toml"
        inner.write_text("""
log.access = "off"
[[listener]]
address = "127.0.0.1:0"
[[site]]
[[site.route]]
path = "/"
echo = true
[[site.route]]
path = "/fresh"
strip_prefix = true
echo = true
cache_control = "max-age=60"
""")
        origin = stack.enter_context(eleven("serve", "--config", str(inner)))
        origin_url = common.wait_for("the origin", lambda: origin[:1])[0].rstrip("/")
        config = folder / "eleven.toml"
        config.write_text(f"""
log.access = "off"
cache = true
trace = true
admin.address = "127.0.0.2:0"
[[listener]]
address = "127.0.0.1:0"
[[listener]]
address = "[::1]:0"
tls = {{ self_signed = true }}
[[upstream]]
name = "app"
servers = ["{origin_url}", "http://127.0.0.1:1"]
health = {{ path = "/", interval = "1s", fall = 1 }}
[[site]]
names = ["www.example"]
root = "www"
certificate = "cert.pem"
key = "key.pem"
[[site.route]]
path = "/api"
strip_prefix = true
proxy = {{ upstream = "app" }}
[[site.route]]
path = "/cached"
strip_prefix = true
proxy = {{ upstream = "app", cache = true }}
[[site.route]]
path = "/private"
echo = true
access.deny = ["127.0.0.0/8"]
[[site]]
names = ["echo.example"]
[[site.route]]
echo = true
""")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "12",
                        "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=www.example",
                        "-addext", "subjectAltName=DNS:www.example,DNS:example"], check=True, capture_output=True)
        os.chmod(folder / "key.pem", 0o600)
        with eleven("serve", "--config", str(config)) as urls:
            common.wait_for("three listeners", lambda: len(urls) >= 3)
            admin = next(url for url in urls if url.startswith("http://127.0.0.2"))
            plain = next(url for url in urls if url.startswith("http://127.0.0.1"))
            secure = next(url for url in urls if url.startswith("https://"))
            browser = Browser()
            try:
                check_page(admin, plain, secure, browser)
                check_metrics(admin)
                check_top(admin)
                check_drain(admin)
                check_ids(plain)
                check_token(browser, www)
            finally:
                browser.close()
    print("the admin page: ok")


main()
