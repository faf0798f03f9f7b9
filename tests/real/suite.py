"""Tests of the real binary with other people's programs. Started by run.sh, which sees to it that they are there.

Each function named test_* is a test; it fails by raising. What they have in common: a server is started on a
free port, a well-known client talks to it, and what the client has in the end is compared with what should be.
"""
import contextlib
import hashlib
import http.client
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import common

ELEVEN = common.binary()
SECONDS_MAX = 120


@contextlib.contextmanager
def server(*args, log=None):
    """`eleven ARGS` on a free port; gives host and port. With `log`, the access log goes to that file."""
    quiet = [] if log else ["--quiet"]
    sink = open(log or os.devnull, "w")
    process = subprocess.Popen([ELEVEN, *args, "--listen", "127.0.0.1:0", *quiet], stdout=sink, stderr=subprocess.PIPE, text=True)
    try:
        port = None
        for line in process.stderr:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                port = int(found.group(1))
                break
        assert port, "no URL was printed"
        # Whatever else it says is shown, and cannot fill the pipe.
        threading.Thread(target=shutil.copyfileobj, args=(process.stderr, sys.stderr), daemon=True).start()
        yield "127.0.0.1", port
        assert process.poll() is None, f"the server ended with {process.returncode}"
    finally:
        process.terminate()
        process.wait(20)
        sink.close()


def run(*command, **options):
    """Runs a program to its end; its output as bytes. An exit code other than `code` is a failure."""
    code = options.pop("code", 0)
    done = subprocess.run(command, capture_output=True, timeout=SECONDS_MAX, **options)
    assert done.returncode == code, f"{command} ended with {done.returncode}, not {code}: {done.stderr.decode()[-800:]}"
    return done.stdout


def curl(*args, **options):
    return run("curl", "--silent", "--show-error", "--max-time", "60", *args, **options)


def folder():
    return tempfile.TemporaryDirectory(prefix="eleven-real-")


def write(root, name, content):
    path = pathlib.Path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def documentation():
    """A real tree of thousands of files: a language's documentation as it is installed."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True).stdout.strip()
    for tree in [f"{sysroot}/share/doc/rust/html", "/usr/share/doc/python3/html", sys.base_prefix + "/lib", "/usr/lib/python3"]:
        if sum(1 for _ in zip(range(2000), pathlib.Path(tree).rglob("*"))) == 2000:
            return tree
    raise AssertionError("no tree of thousands of files on this machine")


# ---- Python's http.client

def test_python_reads_a_documentation():
    """Every file of a sample, on four connections that stay open: the octets, and a 304 for the validators."""
    root = documentation()
    hidden = lambda path: any(part.startswith(".") for part in path.relative_to(root).parts)
    paths = [p for p in pathlib.Path(root).rglob("*") if p.is_file() and not p.is_symlink() and not hidden(p)]
    random.Random(11).shuffle(paths)
    sample = paths[:4000]
    assert len(sample) >= 1500, f"only {len(sample)} files in {root}"
    failures = []

    def fetch(part, host, port):
        try:
            connection = http.client.HTTPConnection(host, port, timeout=30)
            connection.connect()
            opened = connection.sock
            for path in part:
                target = "/" + "/".join(quote(piece) for piece in path.relative_to(root).parts)
                connection.request("GET", target)
                response = connection.getresponse()
                content = response.read()
                assert response.status == 200, (target, response.status)
                assert content == path.read_bytes(), target
                assert int(response.headers["Content-Length"]) == len(content)
                connection.request("GET", target, headers={"If-None-Match": response.headers["ETag"]})
                second = connection.getresponse()
                assert second.status == 304 and second.read() == b"", target
            assert connection.sock is opened, "the connection did not persist"
            connection.close()
        except Exception:
            failures.append(traceback.format_exc())

    with server("serve", root) as (host, port):
        threads = [threading.Thread(target=fetch, args=(sample[at::4], host, port)) for at in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert not failures, failures[0]


def quote(piece):
    import urllib.parse
    return urllib.parse.quote(os.fsencode(piece))


def test_python_chunks_and_trailers():
    with server("echo") as (host, port):
        connection = http.client.HTTPConnection(host, port, timeout=30)
        parts = [b"x" * 10, b"y" * 100_000, b"z"]
        connection.request("POST", "/", body=iter(parts), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked", "Content-Type": "text/x-test"})
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"".join(parts))
        assert response.headers["Content-Type"] == "text/x-test"
        connection.request("GET", "/stream/1000")
        lines = connection.getresponse().read()
        assert lines.count(b"\n") == 1000
        connection.request("HEAD", "/bytes/100")
        response = connection.getresponse()
        assert (response.headers["Content-Length"], response.read()) == ("100", b"")
        connection.request("GET", "/status/404")
        assert connection.getresponse().read() is not None
        connection.request("POST", "/", body=b"q" * 3_000_000)
        assert connection.getresponse().read() == b"q" * 3_000_000


# ---- curl

def test_curl_keeps_the_connection():
    with server("echo") as (host, port):
        url = f"http://{host}:{port}"
        out = curl("-w", "%{num_connects} ", "-o", "/dev/null", f"{url}/", "-o", "/dev/null", f"{url}/bytes/5", "-o", "/dev/null", f"{url}/stream/3")
        assert out.split() == [b"1", b"0", b"0"], out
        assert curl("--http1.0", "-w", "%{http_version}", "-o", "/dev/null", f"{url}/") in (b"1.0", b"1.1")
        # An HTTP/1.0 client gets no chunks (RFC 9112 section 6.1).
        assert b"chunked" not in curl("--http1.0", "-i", f"{url}/stream/3").lower()
        assert b"103" in curl("-i", f"{url}/early-hints").split(b"\r\n")[0]


def test_curl_uploads():
    with folder() as work, server("echo") as (host, port):
        url = f"http://{host}:{port}/"
        content = random.Random(1).randbytes(2_000_000)
        path = write(work, "upload", content)
        # curl expects 100 for large content, and sends it in chunks when it does not know the length.
        assert curl("--data-binary", f"@{path}", url) == content
        assert curl("-H", "Expect: 100-continue", "--expect100-timeout", "30", "--request-target", "/", "-T", str(path), url) == content
        assert curl("-T", "-", url, input=content) == content
        assert curl("-H", "Expect: something", "-o", "/dev/null", "-w", "%{http_code}", "-d", "x", url) == b"417"
        assert curl("-F", f"file=@{path}", "-o", "/dev/null", "-w", "%{http_code}", url) == b"200"


def test_curl_files():
    with folder() as work:
        content = random.Random(2).randbytes(5_000_000)
        write(work, "root/file.bin", content)
        write(work, "root/dir/index.html", "home")
        with server("serve", work + "/root") as (host, port):
            url = f"http://{host}:{port}"
            assert curl(f"{url}/file.bin") == content
            assert curl("-r", "100-199", f"{url}/file.bin") == content[100:200]
            assert curl("-r", "-10", f"{url}/file.bin") == content[-10:]
            assert curl("-r", "0-9,100-109", f"{url}/file.bin").count(b"Content-Range: ") == 2
            assert curl("-L", f"{url}/dir") == b"home"
            # Resume, and the wish for something newer.
            part = write(work, "part", content[:1_234_567])
            curl("-C", "-", "-o", str(part), f"{url}/file.bin")
            assert part.read_bytes() == content
            assert curl("-z", str(write(work, "new", "x")), "-o", "/dev/null", "-w", "%{http_code}", f"{url}/file.bin") == b"304"
            assert curl("--etag-save", work + "/etag", f"{url}/file.bin") == content
            assert curl("--etag-compare", work + "/etag", "-w", "%{http_code}", f"{url}/file.bin") == b"304"
            assert curl("--tr-encoding", f"{url}/file.bin") == content
            assert curl("-I", f"{url}/file.bin").count(b"\r\nContent-Length: 5000000\r\n") == 1
            assert curl("-T", str(part), "-o", "/dev/null", "-w", "%{http_code}", f"{url}/file.bin") == b"405"
            assert curl("--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/../secret") in (b"400", b"403", b"404")
            # A refused upload is answered, although curl is still sending (RFC 9112 section 9.6).
            huge = subprocess.Popen(["head", "-c", "200000000", "/dev/zero"], stdout=subprocess.PIPE)
            code = curl("-X", "POST", "-T", "-", "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/file.bin", stdin=huge.stdout)
            assert code == b"405", code
            huge.kill()


def test_curl_http09():
    with folder() as work:
        write(work, "index.html", "old times")
        with server("serve", work, "--http09") as (host, port):
            with socket.create_connection((host, port)) as plain:
                plain.sendall(b"GET /\r\n")
                assert plain.makefile("rb").read() == b"old times"
        with server("serve", work) as (host, port):
            with socket.create_connection((host, port)) as plain:
                plain.sendall(b"GET /\r\n")
                assert plain.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_curl_unix_socket():
    with folder() as work:
        write(work, "root/x.txt", "over a file")
        with server("serve", work + "/root", "--listen", f"unix:{work}/socket"):
            assert curl("--unix-socket", f"{work}/socket", "http://localhost/x.txt") == b"over a file"


# ---- wget2

def test_wget2_mirrors_a_site():
    with folder() as work:
        pages = {"index.html": "".join(f'<a href="page{n}.html">{n}</a>' for n in range(200))}
        for n in range(200):
            pages[f"page{n}.html"] = f'<a href="/">home</a><img src="images/{n}.png">' + "x" * n
            pages[f"images/{n}.png"] = hashlib.sha256(str(n).encode()).digest() * (n + 1)
        for name, content in pages.items():
            write(work, "root/" + name, content)
        with server("serve", work + "/root") as (host, port):
            run("wget2", "--quiet", "--recursive", "--level=3", "--no-robots", "--max-threads=8", "--no-host-directories",
                "--directory-prefix", work + "/copy", f"http://{host}:{port}/")
        for name in pages:
            assert pathlib.Path(work, "copy", name).read_bytes() == pathlib.Path(work, "root", name).read_bytes(), name


# ---- headless Chromium

PAGE = """<!doctype html><title>waiting</title><h1>A hundred images</h1>
<style>img{width:48px;height:48px;margin:2px}</style>
<script>
addEventListener('load', () => {
  const images = [...document.images], entries = performance.getEntriesByType('resource');
  const good = images.filter(image => image.complete && image.naturalWidth === 8).length;
  const opened = entries.filter(entry => entry.connectEnd > entry.connectStart).length;
  document.title = 'loaded';
  document.getElementById('result').textContent = `good=${good} opened=${opened} protocol=${entries[0].nextHopProtocol}`;
});
</script><p id="result">nothing yet</p>
"""


def png(seed):
    """A PNG of 8 x 8 points in one colour."""
    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
    colour = bytes([seed * 53 % 256, seed * 101 % 256, seed * 197 % 256])
    rows = (b"\0" + colour * 8) * 8
    header = (8).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_chromium_loads_a_hundred_images():
    """All arrive, over few connections that persist. With SCREENSHOT=PATH, a picture of the page is kept."""
    with folder() as work:
        images = "".join(f'<img src="images/{n}.png" alt="{n}">' for n in range(100))
        write(work, "root/index.html", PAGE + images)
        for n in range(100):
            write(work, f"root/images/{n}.png", png(n))
        log = work + "/log"
        browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--user-data-dir=" + work + "/profile", "--virtual-time-budget=20000", "--window-size=900,700"]
        with server("serve", work + "/root", log=log) as (host, port):
            url = f"http://{host}:{port}/"
            page = run(*browser, "--dump-dom", url).decode()
            picture = os.environ.get("SCREENSHOT", work + "/page.png")
            run(*browser, "--screenshot=" + picture, url)
            assert os.path.getsize(picture) > 5000
        found = re.search(r"good=(\d+) opened=(\d+) protocol=(\S+)<", page)
        assert found, page[-500:]
        assert int(found.group(1)) == 100, found.group(0)
        assert int(found.group(2)) <= 6, found.group(0)
        assert found.group(3) == "http/1.1", found.group(0)
        lines = pathlib.Path(log).read_text().splitlines()
        assert len([line for line in lines if re.search(r'"GET /images/\d+\.png HTTP/1\.1" (200|304) ', line)]) >= 100, lines[:3]


def test_chromium_streams_and_posts():
    with folder() as work, server("echo") as (host, port):
        page = run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--user-data-dir=" + work + "/profile", "--virtual-time-budget=10000", "--dump-dom",
                   f"http://{host}:{port}/stream/500").decode()
        assert "</html>" in page and page.count("\n") >= 500, page[:300]


common.main(globals())
