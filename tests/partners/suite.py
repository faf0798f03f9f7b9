"""The proxies with other people's programs. See run.sh. Each test is a function: servers on free ports, eleven between them
and a well-known client, and what arrives on either side compared with what should.
"""
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import random
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import common

ELEVEN = common.binary()
HERE = pathlib.Path(__file__).parent
SECONDS_MAX = 60
os.environ["PATH"] += ":/usr/sbin"
for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]:
    os.environ.pop(name, None)


def folder():
    return tempfile.TemporaryDirectory(prefix="eleven-partners-")


def end(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)


@contextlib.contextmanager
def eleven(*args, log=None, listen="127.0.0.1:0"):
    """`eleven ARGS` on a free port; gives the port."""
    sink = open(log or os.devnull, "w")
    quiet = [] if log else ["--quiet"]
    process = subprocess.Popen([ELEVEN, *args, "--listen", listen, "--workers", "2", *quiet], stdout=sink, stderr=subprocess.PIPE, text=True)
    try:
        port = None
        for line in process.stderr:
            # "Gateway to http://… on http://…": the last is its own.
            found = re.search(r" on https?://127\.0\.0\.1:(\d+)/", line)
            if found:
                port = int(found.group(1))
                break
        assert port, "no URL was printed"
        threading.Thread(target=shutil.copyfileobj, args=(process.stderr, sys.stderr), daemon=True).start()
        yield port
        assert process.poll() is None, f"eleven ended with {process.returncode}"
    finally:
        end(process)
        sink.close()


@contextlib.contextmanager
def node(page="", log=""):
    process = subprocess.Popen(["node", str(HERE / "origin.mjs"), str(page), str(log)], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        end(process)


def reachable(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def configured(command, write_config, work):
    """A program that must be told its port: tried with others until it gets one that nobody else took."""
    for _ in range(10):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        write_config(port)
        process = subprocess.Popen(command, cwd=work, stdout=subprocess.DEVNULL, stderr=open(work + "/stderr", "w"))
        until = time.monotonic() + SECONDS_MAX
        while process.poll() is None and not reachable(port):
            assert time.monotonic() < until, f"{command[0]} does not answer"
            time.sleep(0.02)
        if process.poll() is None:
            try:
                yield port
            finally:
                end(process)
            return
    raise AssertionError(f"{command[0]} does not start: {pathlib.Path(work, 'stderr').read_text()[-800:]}")


@contextlib.contextmanager
def nginx(server_block, work=None):
    with contextlib.ExitStack() as stack:
        work = work or stack.enter_context(folder())
        def config(port):
            paths = "".join(f"{name}_temp_path {work}/{name};" for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
            pathlib.Path(work, "nginx.conf").write_text(
                f"daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/error.log; events {{}}\n"
                f"http {{ access_log off; {paths} types {{ text/plain txt; }} keepalive_timeout 5;\n"
                + server_block.replace("PORT", str(port)) + "\n}\n")
        yield stack.enter_context(configured(["nginx", "-p", work, "-e", f"{work}/error.log", "-c", f"{work}/nginx.conf"], config, work))


@contextlib.contextmanager
def apache(root):
    with folder() as work:
        modules = "/usr/lib/apache2/modules"
        def config(port):
            loads = "".join(f"LoadModule {name}_module {modules}/mod_{name}.so\n" for name in ["mpm_event", "authz_core", "mime", "deflate", "filter"])
            pathlib.Path(work, "apache.conf").write_text(
                f"{loads}ServerName localhost\nListen 127.0.0.1:{port}\nPidFile {work}/pid\nErrorLog {work}/error.log\n"
                f"DefaultRuntimeDir {work}\nMutex file:{work}\nTypesConfig /etc/mime.types\nDocumentRoot {root}\n"
                f"AddOutputFilterByType DEFLATE text/plain\n<Directory {root}>\nRequire all granted\n</Directory>\n")
            if not os.path.exists("/etc/mime.types"):
                path = pathlib.Path(work, "apache.conf")
                path.write_text(path.read_text().replace("TypesConfig /etc/mime.types", f"TypesConfig {work}/mime.types"))
                pathlib.Path(work, "mime.types").write_text("text/plain txt\n")
        with configured(["apache2", "-X", "-f", f"{work}/apache.conf"], config, work) as port:
            yield port


@contextlib.contextmanager
def haproxy(backend_port, send_proxy):
    with folder() as work:
        def config(port):
            pathlib.Path(work, "haproxy.cfg").write_text(
                "defaults\n mode tcp\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n"
                f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\n"
                f"backend b\n server s 127.0.0.1:{backend_port} {send_proxy}\n")
        with configured(["haproxy", "-db", "-f", f"{work}/haproxy.cfg"], config, work) as port:
            yield port


@contextlib.contextmanager
def python_server(root, protocol):
    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = protocol
        def __init__(self, *args):
            super().__init__(*args, directory=root)
        def log_message(self, *args):
            pass
        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            if protocol == "HTTP/1.1":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
        request_queue_size = 100
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def run(*command, code=0, **options):
    done = subprocess.run(command, capture_output=True, timeout=SECONDS_MAX, **options)
    codes = code if isinstance(code, tuple) else (code,)
    assert done.returncode in codes, f"{command} ended with {done.returncode}, not {code}: {done.stderr.decode()[-800:]}"
    return done.stdout


def curl(*args, **options):
    return run("curl", "--silent", "--show-error", "--max-time", "40", *args, **options)


def status(*args, **options):
    return curl("-o", "/dev/null", "-w", "%{http_code}", *args, **options).decode()


def never_whole(*args):
    """A response that its server cuts: an error of curl (18, or 56 for a reset), or of the gateway if nothing was passed on."""
    done = subprocess.run(["curl", "--silent", "--max-time", "40", "-o", os.devnull, "-w", "%{http_code}", *args], capture_output=True, timeout=SECONDS_MAX)
    assert done.returncode in (18, 56) or (done.returncode, done.stdout) == (0, b"502"), (args, done)


def asked(port, *args):
    return json.loads(curl(*args, f"http://127.0.0.1:{port}/asked"))


def fields_of(answer):
    raw = answer["fields"]
    return [(raw[i].lower(), raw[i + 1]) for i in range(0, len(raw), 2)]


# ---- behind the gateway

def files(root):
    content = random.Random(5).randbytes(20_000_000)
    pathlib.Path(root, "large.bin").write_bytes(content)
    pathlib.Path(root, "text.txt").write_text("a line of text\n" * 2000)
    os.chmod(root, 0o755)
    return content


def check_files(port, content, ranges=True):
    """A file server behind us: whole, in part, conditionally, many at once on few connections."""
    url = f"http://127.0.0.1:{port}"
    assert curl(f"{url}/large.bin") == content
    assert curl("--http1.0", f"{url}/large.bin") == content
    assert curl("--compressed", f"{url}/text.txt") == b"a line of text\n" * 2000
    assert status(f"{url}/absent") == "404"
    head = curl("-I", f"{url}/large.bin").decode().lower()
    assert "content-length: 20000000\r\n" in head and "\r\nvia: 1." in head, head
    modified = re.search(r"(?i)last-modified: (.*)\r\n", curl("-I", f"{url}/text.txt").decode()).group(1)
    assert status("-H", f"If-Modified-Since: {modified}", f"{url}/text.txt") == "304"
    if ranges:
        assert curl("-r", "1000-1999", f"{url}/large.bin") == content[1000:2000]
        assert status("-r", "99999999-", f"{url}/large.bin") == "416"
    urls = [part for n in range(20) for part in ("-o", "/dev/null", f"{url}/text.txt?{n}")]
    counts = curl("-w", "%{num_connects} %{http_code}\n", *urls).decode().splitlines()
    assert all(line.endswith(" 200") for line in counts), counts
    assert sum(int(line.split()[0]) for line in counts) == 1, "our connection to the client did not persist"


def test_nginx_behind():
    with folder() as root:
        content = files(root)
        with nginx(f"server {{ listen 127.0.0.1:PORT; root {root}; gzip on; gzip_min_length 100; }}") as origin, eleven("proxy", f"http://127.0.0.1:{origin}") as port:
            check_files(port, content)


def test_apache_behind():
    with folder() as root:
        content = files(root)
        with apache(root) as origin, eleven("proxy", f"http://127.0.0.1:{origin}") as port:
            check_files(port, content)


def test_python_behind():
    for protocol in ["HTTP/1.0", "HTTP/1.1"]:
        with folder() as root:
            content = files(root)
            with python_server(root, protocol) as origin, eleven("proxy", f"http://127.0.0.1:{origin}") as port:
                check_files(port, content, ranges=False)
                # The server's version is known now: what a client expects of one of HTTP/1.0 is refused (RFC 2616 section 8.2.3).
                upload = pathlib.Path(root, "upload")
                upload.write_bytes(content[:1_500_000])
                url = f"http://127.0.0.1:{port}/"
                if protocol == "HTTP/1.1":
                    assert curl("-H", "Expect: 100-continue", "--data-binary", f"@{upload}", url) == content[:1_500_000]
                assert curl("-H", "Expect:", "--data-binary", f"@{upload}", url) == content[:1_500_000]


def test_node_behind():
    with folder() as work, node() as origin, eleven("proxy", f"http://127.0.0.1:{origin}") as port:
        url = f"http://127.0.0.1:{port}"
        content = random.Random(6).randbytes(3_000_000)
        upload = pathlib.Path(work, "upload")
        upload.write_bytes(content)
        assert curl("--data-binary", f"@{upload}", f"{url}/echo") == content
        assert curl("-T", "-", "-X", "POST", f"{url}/echo", input=content) == content
        # Node says 100 itself, and it comes all the way.
        began = time.monotonic()
        assert curl("-H", "Expect: 100-continue", "--expect100-timeout", "30", "--data-binary", f"@{upload}", f"{url}/echo") == content
        assert time.monotonic() - began < 25, "the 100 did not come"
        seen = asked(port, "-H", "Connection: x-hop, close", "-H", "X-Hop: 1", "-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-a: 1", "-H", "x-A: 2")
        fields = fields_of(seen)
        names = [name for name, _ in fields]
        assert "x-hop" not in names and ("x-forwarded-for", "127.0.0.1") in fields and names.count("x-forwarded-for") == 1, fields
        assert [value for name, value in fields if name == "x-a"] == ["1", "2"] and "via" in names, fields
        # Trailers, without those that may not be one; interim responses to clients of 1.1 and not of 1.0.
        raw = curl("--raw", "-i", f"{url}/chunks").decode().lower()
        assert raw.endswith("0\r\nx-sum: 100\r\n\r\n"), raw[-80:]
        assert curl("-i", f"{url}/hints").startswith(b"HTTP/1.1 103 ")
        assert b" 103 " not in curl("--http1.0", "-i", f"{url}/hints")
        # A response that is cut is never whole: for a client of 1.1, and of 1.0.
        never_whole(f"{url}/cut")
        never_whole("--http1.0", f"{url}/cut")
        with eleven("proxy", f"http://127.0.0.1:{origin}", "--buffer-requests") as buffered:
            assert curl("-T", "-", "-X", "POST", f"http://127.0.0.1:{buffered}/echo", input=content) == content
            seen = json.loads(curl("-T", "-", "-X", "POST", f"http://127.0.0.1:{buffered}/asked", input=content))
            assert ("content-length", "3000000") in fields_of(seen) and seen["bytes"] == 3_000_000


def test_a_chain_of_gateways():
    """eleven in front of nginx in front of eleven in front of Node."""
    with node() as origin, eleven("proxy", f"http://127.0.0.1:{origin}", "--via", "inner") as inner:
        block = f"upstream e {{ server 127.0.0.1:{inner}; keepalive 8; }} server {{ listen 127.0.0.1:PORT; client_max_body_size 0; location / {{ proxy_pass http://e; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; }} }}"
        with nginx(block) as middle, eleven("proxy", f"http://127.0.0.1:{middle}", "--via", "outer") as outer:
            seen = asked(outer)
            vias = [value for name, value in fields_of(seen) if name == "via"]
            assert ", ".join(vias) == "1.1 outer, 1.1 inner", vias
            content = random.Random(7).randbytes(5_000_000)
            assert curl("-T", "-", "-X", "POST", f"http://127.0.0.1:{outer}/echo", input=content) == content
            for port in [middle, outer]:
                for _ in range(3):
                    assert curl(f"http://127.0.0.1:{port}/chunks").count(b"\n") == 100
                never_whole(f"http://127.0.0.1:{port}/cut")


def test_a_loop_is_noticed():
    with folder() as work:
        path = f"{work}/socket"
        process = subprocess.Popen([ELEVEN, "proxy", f"unix:{path}", "--listen", f"unix:{path}", "--quiet"], stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + SECONDS_MAX
            while not os.path.exists(path):
                assert time.monotonic() < until
                time.sleep(0.02)
            assert status("--unix-socket", path, "http://localhost/") == "502"
        finally:
            end(process)


def test_haproxy_in_front():
    """HAProxy says whose connection it is, in both versions, and over TLS."""
    with node() as origin:
        for version in ["send-proxy", "send-proxy-v2"]:
            with eleven("proxy", f"http://127.0.0.1:{origin}", "--proxy-protocol", "127.0.0.1/32") as port:
                with haproxy(port, version) as front:
                    seen = asked(front, "--interface", "127.0.0.55")
                    assert ("x-forwarded-for", "127.0.0.55") in fields_of(seen), seen
                # Whoever says nothing gets nothing (curl: 52, or 56 for a reset).
                curl(f"http://127.0.0.1:{port}/", code=(52, 56))
        with eleven("proxy", f"http://127.0.0.1:{origin}", "--proxy-protocol", "127.0.0.1/32", "--tls-self-signed") as port:
            with haproxy(port, "send-proxy-v2") as front:
                seen = json.loads(curl("-k", "--interface", "127.0.0.56", f"https://127.0.0.1:{front}/asked"))
                assert ("x-forwarded-for", "127.0.0.56") in fields_of(seen) and ("x-forwarded-proto", "https") in fields_of(seen), seen
        with eleven("proxy", f"http://127.0.0.1:{origin}", "--proxy-protocol", "192.0.2.0/24") as port, haproxy(port, "send-proxy") as front:
            curl(f"http://127.0.0.1:{front}/", code=(52, 56))


# ---- Chromium

def test_chromium_through_the_gateway():
    """A page whose WebSocket and server-sent events go through the gateway; it reports what it saw."""
    with folder() as work:
        page = pathlib.Path(work, "page.html")
        shutil.copy(HERE / "page.html", page)
        result = pathlib.Path(work, "page.html.result")
        with node(page) as origin, eleven("proxy", f"http://127.0.0.1:{origin}") as port:
            browser = subprocess.Popen(
                ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 f"--user-data-dir={work}/profile", "--remote-debugging-port=0", f"http://127.0.0.1:{port}/"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                until = time.monotonic() + SECONDS_MAX
                while not result.exists() or not result.read_text():
                    assert browser.poll() is None and time.monotonic() < until, "the browser reported nothing"
                    time.sleep(0.05)
            finally:
                end(browser)
        found = json.loads(result.read_text())
        events = [line for line in found if line.startswith("event")]
        assert events == [f"event {n}" for n in range(5)], found
        assert [line for line in found if line not in events] == ["message 0", "message 1", "message 2", "closed true"], found


# ---- servers that are killed

def test_killed_servers():
    """Three servers are killed and restarted in turn, as processes are: no idempotent request fails, no other is done twice."""
    with folder() as work, contextlib.ExitStack() as stack:
        script = pathlib.Path(work, "origin.py")
        script.write_text(KILLED)
        sockets, logs, processes = [], [], []
        def start(n):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(sockets[n])
            process = subprocess.Popen([sys.executable, "-I", "-S", str(script), sockets[n], logs[n]], stdout=subprocess.PIPE)
            assert process.stdout.readline() == b"ready\n"
            return process
        for n in range(3):
            sockets.append(f"{work}/s{n}")
            logs.append(f"{work}/log{n}")
            processes.append(start(n))
        stack.callback(lambda: [process.kill() for process in processes])
        port = stack.enter_context(eleven("proxy", *[f"unix:{path}" for path in sockets]))
        failures, answered, stop = [], [0] * 6, threading.Event()

        def client(number):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
            try:
                for n in range(REQUESTS // 6):
                    method = ["GET", "PUT", "DELETE", "POST"][n % 4]
                    body = b"content" if method in ("PUT", "POST") else None
                    connection.request(method, f"/{number}-{n}", body=body)
                    response = connection.getresponse()
                    content = response.read()
                    if response.status != 200 and method != "POST":
                        failures.append((method, response.status, content))
                    answered[number] += 1
            except Exception:
                failures.append(traceback.format_exc())

        def killer():
            turn = 0
            while not stop.is_set():
                before = sum(answered)
                n = turn % 3
                processes[n].kill()
                processes[n].wait()
                processes[n] = start(n)
                turn += 1
                while sum(answered) < before + 100 and not stop.is_set():
                    time.sleep(0.002)
            kills.append(turn)

        kills = []
        threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
        killing = threading.Thread(target=killer)
        [thread.start() for thread in [*threads, killing]]
        [thread.join() for thread in threads]
        stop.set()
        killing.join()
        assert not failures, failures[:3]
        posts = [line for path in logs for line in pathlib.Path(path).read_text().splitlines() if line.startswith("POST ")]
        assert len(posts) == len(set(posts)), "a request was done twice"
        assert kills[0] >= 5 and len(posts) > REQUESTS // 5, (kills, len(posts))
        print(f"      {REQUESTS // 6 * 6} requests, {kills[0]} kills, {len(posts)} POSTs done once, 0 failed", flush=True)


REQUESTS = int(os.environ.get("REQUESTS", "3000"))
KILLED = '''
import socket, sys, threading
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(100)
log = open(sys.argv[2], "a", buffering=1)
lock = threading.Lock()
def serve(connection):
    data = b""
    while True:
        while b"\\r\\n\\r\\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        head, data = data.split(b"\\r\\n\\r\\n", 1)
        length = 0
        for line in head.split(b"\\r\\n")[1:]:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(data) < length:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        data = data[length:]
        method, target, _ = head.split(b"\\r\\n")[0].decode().split(" ")
        with lock:
            log.write(method + " " + target + "\\n")
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
'''


# ---- the forward proxy

LOCAL = ["--allow-destination", "127.0.0.0/8"]


def test_forward_proxy_with_curl():
    with node() as origin, eleven("forward", *LOCAL) as port:
        proxy = f"http://127.0.0.1:{port}"
        url = f"http://127.0.0.1:{origin}"
        seen = json.loads(curl("--proxy", proxy, f"{url}/asked?x"))
        names = [name for name, _ in fields_of(seen)]
        assert seen["target"] == "/asked?x" and "via" in names and "proxy-connection" not in names, seen
        assert "x-forwarded-for" not in names, "the client is nobody's business"
        content = random.Random(8).randbytes(2_000_000)
        assert curl("--proxy", proxy, "-T", "-", "-X", "POST", f"{url}/echo", input=content) == content
        # Tunnels to other ports are refused, and the connection ends (RFC 9931).
        assert curl("--proxy", proxy, "-p", "-w", "%{http_connect}", f"{url}/", code=56) == b"403"
        with eleven("forward", *LOCAL, "--connect-port", str(origin)) as tunnels:
            assert curl("--proxy", f"http://127.0.0.1:{tunnels}", "-p", "-T", "-", "-X", "POST", f"{url}/echo", input=content) == content


def test_forward_proxy_tunnels_tls():
    with folder() as root:
        pathlib.Path(root, "x.txt").write_text("secret")
        with eleven("serve", root, "--tls-self-signed") as origin, eleven("forward", *LOCAL, "--connect-port", str(origin)) as port:
            assert curl("-k", "--proxy", f"http://127.0.0.1:{port}", f"https://127.0.0.1:{origin}/x.txt") == b"secret"


def test_forward_proxy_asks_for_passwords():
    with folder() as work, node() as origin:
        users = pathlib.Path(work, "users")
        users.write_text("u:" + run("openssl", "passwd", "-apr1", "password").decode().strip() + "\n")
        digest = pathlib.Path(work, "digest")
        digest.write_text("u:proxy:" + hashlib.md5(b"u:proxy:password").hexdigest() + "\n" + "u:proxy:" + hashlib.sha256(b"u:proxy:password").hexdigest() + "\n")
        url = f"http://127.0.0.1:{origin}"
        for option, file, flag in [("--users", users, "--proxy-basic"), ("--digest", digest, "--proxy-digest")]:
            with eleven("forward", *LOCAL, option, str(file), "--connect-port", str(origin)) as port:
                proxy = ["--proxy", f"http://127.0.0.1:{port}", flag]
                assert status(*proxy, f"{url}/asked") == "407"
                assert status(*proxy, "--proxy-user", "u:wrong", f"{url}/asked") == "407"
                seen = json.loads(curl(*proxy, "--proxy-user", "u:password", f"{url}/asked"))
                assert "proxy-authorization" not in [name for name, _ in fields_of(seen)], seen
                assert curl(*proxy, "--proxy-user", "u:password", "-d", "hello", f"{url}/echo") == b"hello"
                assert curl(*proxy, "--proxy-user", "u:password", "-p", "-d", "hello", f"{url}/echo") == b"hello"
                assert curl(*proxy, "-p", "-w", "%{http_connect}", f"{url}/", code=56) == b"407"


def test_forward_proxy_with_a_parent():
    with folder() as work, node() as origin:
        users = pathlib.Path(work, "users")
        users.write_text("me:" + run("openssl", "passwd", "-apr1", "secret").decode().strip() + "\n")
        with eleven("forward", *LOCAL, "--users", str(users), "--connect-port", str(origin), "--via", "parent") as parent:
            child = ["forward", *LOCAL, "--connect-port", str(origin), "--via", "child"]
            with eleven(*child, "--parent", f"http://me:secret@127.0.0.1:{parent}") as port:
                proxy = f"http://127.0.0.1:{port}"
                seen = json.loads(curl("--proxy", proxy, f"http://127.0.0.1:{origin}/asked"))
                assert ", ".join(value for name, value in fields_of(seen) if name == "via") == "1.1 child, 1.1 parent", seen
                assert curl("--proxy", proxy, "-p", "-d", "hello", f"http://127.0.0.1:{origin}/echo") == b"hello"
                assert status("--proxy", proxy, "http://10.0.0.1/") == "502"
            with eleven(*child, "--parent", f"http://me:wrong@127.0.0.1:{parent}") as port:
                assert curl("--proxy", f"http://127.0.0.1:{port}", "-p", "-w", "%{http_connect}", f"http://127.0.0.1:{origin}/", code=56) == b"502"


def test_no_open_proxy_by_any_default():
    for listen in ["0.0.0.0:0", ":0", "[::]:0"]:
        done = subprocess.run([ELEVEN, "forward", "--listen", listen], capture_output=True, timeout=SECONDS_MAX, text=True)
        assert done.returncode != 0 and "--allow-client" in done.stderr, done
    with folder() as work:
        for table, good in [("forward = true", False), ("forward = { clients = \"192.0.2.0/24\" }", True)]:
            config = pathlib.Path(work, "eleven.toml")
            config.write_text(f"[[listener]]\naddress = \":8080\"\n[[site]]\n[[site.route]]\n{table}\n")
            done = subprocess.run([ELEVEN, "check", str(config)], capture_output=True, timeout=SECONDS_MAX, text=True)
            assert (done.returncode == 0) == good, done
    # What it refuses of what it is asked, by default: this machine, other machines nearby, names for them, ports, schemes.
    with eleven("forward") as port, eleven("echo") as echo:
        proxy = ["--proxy", f"http://127.0.0.1:{port}", "--noproxy", ""]
        for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "0x7f.0.0.1", "017700000001", "2130706433", "[::ffff:127.0.0.1]",
                     "[::]", "169.254.169.254", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]"]:
            code = status(*proxy, "--path-as-is", "-H", "Host: x", "--request-target", f"http://{host}:{echo}/", f"http://127.0.0.1:{echo}/")
            assert code in ("400", "502"), (host, code)
        for target in ["127.0.0.1:443", f"127.0.0.1:{port}", "example.com:25", "example.com:22", "example.com:80", "example.com"]:
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX) as plain:
                plain.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nGET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                answer = plain.makefile("rb").read()
                assert answer.split(b" ")[1] in (b"400", b"403", b"502"), (target, answer)
                assert answer.count(b"HTTP/1.1 ") == 1 and b"\r\nConnection: close\r\n" in answer, (target, answer)
    # A gateway and a file server are no proxies, whatever the form of the target.
    with node() as origin, eleven("proxy", f"http://127.0.0.1:{origin}") as port:
        seen = json.loads(curl("--request-target", "http://elsewhere.example/asked", f"http://127.0.0.1:{port}/"))
        assert seen["target"] == "/asked", seen
        assert status("-X", "CONNECT", "--request-target", "127.0.0.1:443", f"http://127.0.0.1:{port}/") in ("400", "405")


common.main(globals())
