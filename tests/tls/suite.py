"""TLS of `eleven serve`, seen by OpenSSL's `s_client` and Python's ssl. Whatever is waited for is an event with a
generous bound; the only clock that matters is the end of an OCSP response, which is waited for until it is seen."""

import datetime
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

ELEVEN = os.path.realpath(sys.argv[1])
PATIENCE_S = 60
FOLDER = tempfile.mkdtemp(prefix="eleven-tls-")
FAILED = []


def check(what, got, expected):
    if got != expected:
        FAILED.append(what)
        print(f"FAILED {what}: {got!r} instead of {expected!r}", flush=True)


def path(name):
    return os.path.join(FOLDER, name)


def wait_for(what, look):
    started = time.monotonic()
    while not (found := look()):
        if time.monotonic() - started > PATIENCE_S:
            raise SystemExit(f"FAILED: no {what} within {PATIENCE_S} s")
        time.sleep(0.05)
    return found


def openssl(*args, **more):
    done = subprocess.run(["openssl", *args], capture_output=True, cwd=FOLDER, **more)
    if done.returncode != 0:
        raise SystemExit(f"openssl {args}: {done.stderr.decode()}")
    return done.stdout


# ---- certificates -------------------------------------------------------------------------------------------------

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
RSA = ["-newkey", "rsa:2048"]


def authority(name):
    openssl("req", "-x509", *EC, "-nodes", "-days", "30", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out",
            f"{name}.pem")


def certify(stem, name, kind, issuer):
    openssl("req", *kind, "-nodes", "-subj", f"/CN={name}", "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
    with open(path(f"{stem}.ext"), "w") as file:
        file.write(f"subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial",
            "-days", "30", "-extfile", f"{stem}.ext", "-out", f"{stem}.pem")
    os.chmod(path(f"{stem}.key"), 0o600)


def serial(stem):
    return openssl("x509", "-in", f"{stem}.pem", "-noout", "-serial").decode().strip().split("=")[1]


def respond(stem, state="V", ends_s=None):
    """An OCSP response for a certificate. With `ends_s`, its nextUpdate is set to so many seconds from now: clients would
    then refuse its signature, but s_client only shows it."""
    revoked = "260101000000Z" if state == "R" else ""
    with open(path("index"), "w") as file:
        file.write(f"{state}\t490101000000Z\t{revoked}\t{serial(stem)}\tunknown\t/CN={stem}\n")
    openssl("ocsp", "-index", "index", "-CA", "root.pem", "-rsigner", "root.pem", "-rkey", "root.key", "-issuer",
            "root.pem", "-cert", f"{stem}.pem", "-ndays", "7", "-respout", "response")
    with open(path("response"), "rb") as file:
        response = file.read()
    if ends_s is not None:
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=ends_s)
        at = [match.start() for match in re.finditer(rb"\x18\x0f\d{14}Z", response)][-1] + 2
        response = response[:at] + end.strftime("%Y%m%d%H%M%SZ").encode() + response[at + 15:]
    with open(path("response"), "wb") as file:
        file.write(response)
    os.replace(path("response"), path(f"{stem}.ocsp"))


# ---- the server ---------------------------------------------------------------------------------------------------

CONFIG = """
workers = 2
[log]
access = "off"
[admin]
address = "unix:admin.sock"
[[listener]]
address = "127.0.0.1:0"
tls = true
[[listener]]
address = "127.0.0.2:0"
tls = { preset = "modern" }
[[listener]]
address = "127.0.0.3:0"
tls = { client_ca = "clients.pem" }
[[listener]]
address = "127.0.0.4:0"
tls = { client_ca = "clients.pem", client_optional = true }
[[site]]
names = "a.test"
certificate = "a.pem"
key = "a.key"
ocsp = "a.ocsp"
[[site.route]]
path = "/up"
strip_prefix = true
files = { root = "up", uploads = {} }
[[site.route]]
path = "/"
fixed = { text = "site a" }
[[site]]
names = "b.test"
certificate = "b.pem"
key = "b.key"
[[site.route]]
path = "/"
fixed = { text = "site b" }
"""


class Server:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([ELEVEN, "serve", *arguments], cwd=FOLDER, stderr=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL, text=True)
        self.said = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stderr:
            self.said.append(line)

    def text(self):
        return "".join(self.said)

    def address(self, host):
        pattern = re.compile(rf"https://{re.escape(host)}:(\d+)")
        return host, int(wait_for(f"listener on {host}: {self.text()}", lambda: pattern.search(self.text())).group(1))

    def reload(self):
        before = self.text().count(" read anew\n")
        self.process.send_signal(signal.SIGHUP)
        wait_for("reload", lambda: self.text().count(" read anew\n") > before)

    def end(self):
        self.process.kill()
        self.process.wait()


def s_client(address, *more, name="a.test", send=b""):
    """What `openssl s_client` says."""
    host, port = address
    named = ["-servername", name] if name else ["-noservername"]
    done = subprocess.run(["openssl", "s_client", "-connect", f"{host}:{port}", *named, *more],
                          input=send, capture_output=True, cwd=FOLDER, timeout=PATIENCE_S)
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def agreed(shown):
    """Version and suite that were agreed on; None if none were."""
    found = re.search(r"^New, (\S+), Cipher is (\S+)$", shown, re.M) or re.search(r"^Reused, (\S+), Cipher is (\S+)$",
                                                                                  shown, re.M)
    return found.group(2) if found and found.group(2) != "(NONE)" else None


def context(**more):
    made = ssl.create_default_context(cafile=path("root.pem"))
    if "client" in more:
        made.load_cert_chain(path(f"{more['client']}.pem"), path(f"{more['client']}.key"))
    return made


def ask(address, head, name="a.test", made=None):
    """Everything that is answered. An end without close_notify raises."""
    with socket.create_connection(address, timeout=PATIENCE_S) as plain:
        with (made or context()).wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False) as secured:
            secured.sendall(f"{head}\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := secured.recv(65536):
                answer += piece
            return answer.decode()


def metric(name):
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(path("admin.sock"))
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
        text = b""
        while piece := plain.recv(65536):
            text += piece
    found = re.search(rf"^{re.escape(name)} (\S+)$", text.decode(), re.M)
    return float(found.group(1)) if found else None


# ---- what is checked ----------------------------------------------------------------------------------------------

TLS13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
TLS13_NOT = ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]
TLS12 = [f"ECDHE-{key}-{cipher}" for key in ("ECDSA", "RSA")
         for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")]
# No forward secrecy, no authenticated encryption, no elliptic curves, nobody authenticated.
TLS12_NOT = ["AES128-GCM-SHA256", "AES256-SHA256", "AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384",
             "ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA", "DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-CHACHA20-POLY1305",
             "ECDHE-ECDSA-AES128-CCM", "ADH-AES128-GCM-SHA256", "AECDH-AES128-SHA", "NULL-SHA256", "ECDHE-RSA-NULL-SHA"]


def presets(intermediate, modern):
    """Fault A10: each version and suite against each preset; a name for each certificate, for suites want their key."""
    jobs = []
    for preset, address in (("intermediate", intermediate), ("modern", modern)):
        for suite in TLS13 + TLS13_NOT:
            jobs.append((f"{preset} TLS 1.3 {suite}", address, ["-tls1_3", "-ciphersuites", suite], "a.test",
                         suite if suite in TLS13 else None))
        for suite in TLS12 + TLS12_NOT:
            name = "b.test" if "RSA" in suite or "ECDSA" not in suite else "a.test"
            jobs.append((f"{preset} TLS 1.2 {suite}", address, ["-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0"], name,
                         suite if suite in TLS12 and preset == "intermediate" else None))
        for version in ("-tls1", "-tls1_1"):
            jobs.append((f"{preset} {version}", address, [version, "-cipher", "ALL:@SECLEVEL=0"], "b.test", None))
        for group in ("X25519", "P-256", "P-384"):
            jobs.append((f"{preset} {group}", address, ["-tls1_3", "-groups", group], "a.test",
                         "TLS_AES_256_GCM_SHA384"))
        jobs.append((f"{preset} P-521", address, ["-tls1_3", "-groups", "P-521"], "a.test", None))

    def run(job):
        what, address, options, name, expected = job
        shown = s_client(address, *options, "-CAfile", "root.pem", name=name)
        got = agreed(shown) if "Verification: OK" in shown else "not verified"
        return what, got, expected

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(run, jobs):
            check(*result)
    # What the client wants first is taken: it knows whether it has AES in hardware.
    shown = s_client(modern, "-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")
    check("the client's order", agreed(shown), "TLS_CHACHA20_POLY1305_SHA256")
    print(f"presets: {len(jobs)} versions, suites and groups", flush=True)


def names(address):
    """Fault A13: each name has its certificate, an unknown one and none the first."""
    for name, subject in (("a.test", "a.test"), ("B.Test", "b.test"), ("c.test", "a.test")):
        check(f"certificate for {name}", f"subject=CN = {subject}\n" in s_client(address, name=name), True)
    check("certificate for no name", "subject=CN = a.test\n" in s_client(address, name=None), True)
    check("site a", ask(address, "GET / HTTP/1.1").endswith("site a"), True)
    check("site b", ask(address, "GET / HTTP/1.1", "b.test").endswith("site b"), True)


def tickets(server, address, other):
    """A ticket is good at every worker, and stays good when certificates are read anew."""
    for version in ("-tls1_3", "-tls1_2"):
        # TLS 1.3 tickets come after the handshake: the answer to a request has them before it.
        request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
        s_client(address, version, "-sess_out", f"session{version}", "-ign_eof", send=request)
        again = [s_client(address, version, "-sess_in", f"session{version}") for _ in range(8)]
        check(f"resumed {version}", ["Reused, " in shown for shown in again], [True] * 8)
    server.reload()
    check("resumed after a reload", "Reused, " in s_client(address, "-tls1_3", "-sess_in", "session-tls1_3"), True)
    # One that is not of this server is no reason to refuse.
    shown = s_client(other, "-tls1_3", "-sess_in", "session-tls1_3")
    check("a session of another server", (agreed(shown) is not None, "Reused, " in shown), (True, False))
    # Fault A16: no early data.
    shown = s_client(address, "-tls1_3", "-ign_eof", send=request)
    check("early data", re.findall(r"Max Early Data: (\d+)", shown), ["0", "0"])


def alpn(address):
    """Fault A21."""
    for offered, expected in (("http/1.1", "http/1.1"), ("h2,http/1.1", "http/1.1"), ("h2", None), ("http/1.0", None)):
        shown = s_client(address, "-alpn", offered)
        found = re.search(r"ALPN protocol: (\S+)", shown)
        check(f"ALPN {offered}", found and found.group(1), expected)
        if expected is None:
            check(f"ALPN {offered} is refused", "no application protocol" in shown, True)
    check("no ALPN", agreed(s_client(address)) is not None, True)


def clients(required, optional):
    """Client certificates, asked for and required."""
    for what, address, client, expected in (
            ("required, none", required, None, False), ("required, good", required, "client", True),
            ("required, stranger", required, "stranger", False), ("optional, none", optional, None, True),
            ("optional, good", optional, "client", True), ("optional, stranger", optional, "stranger", False)):
        made = context(client=client) if client else context()
        try:
            got = ask(address, "GET / HTTP/1.1", made=made).endswith("site a")
        except (ssl.SSLError, ConnectionError):
            got = False
        check(f"client certificate {what}", got, expected)


def stapling(server, address):
    """RFC 6066 §8: given, changed, revoked, expired; each is said, and each is in the metrics."""
    name = 'eleven_certificate_ocsp_until_seconds{name="a.test"}'

    def stapled(version="-tls1_3"):
        shown = s_client(address, "-status", version)
        if "OCSP response: no response sent" in shown:
            return None
        return re.search(r"Cert Status: (\w+)", shown).group(1)

    check("no response at first", (stapled(), metric(name)), (None, 0.0))
    check("that is said", "a.ocsp` is not stapled: it cannot be read" in server.text(), True)
    respond("a")
    server.reload()
    check("stapled", [stapled(), stapled("-tls1_2")], ["good", "good"])
    check("metric", metric(name) > time.time(), True)
    check("none for the other site", "OCSP response: no response sent" in s_client(address, "-status", name="b.test"),
          True)
    respond("a", "R")
    # Nobody tells: the files are looked at every ten seconds.
    wait_for("word of the revocation", lambda: "the certificate is REVOKED" in server.text())
    check("a bad word is not stapled", (stapled(), metric(name)), (None, 0.0))
    respond("b")
    os.replace(path("b.ocsp"), path("a.ocsp"))
    server.reload()
    check("another's is not stapled", (stapled(), "it is for another certificate" in server.text()), (None, True))
    respond("a", ends_s=15)
    server.reload()
    check("stapled while it holds", stapled(), "good")
    wait_for("end of the response", lambda: stapled() is None)
    wait_for("word of the end", lambda: "is not stapled to" in server.text() and "it has expired" in server.text())
    check("metric after the end", metric(name), 0.0)
    check("and the site goes on", ask(address, "GET / HTTP/1.1").endswith("site a"), True)
    # `check` says the same, and that it is no reason not to start.
    checked = subprocess.run([ELEVEN, "check", "eleven.toml"], cwd=FOLDER, capture_output=True, text=True)
    check("eleven check", (checked.returncode, "a.ocsp` is not stapled: it has expired" in checked.stderr), (0, True))


def ends(address):
    """9112-9.8: our end is announced; an end that is not announced is no end of a message."""
    check("close_notify", ask(address, "GET / HTTP/1.1").startswith("HTTP/1.1 200 "), True)  # raises without one
    for what, head, body, announced, status in (
            ("whole by length", "Content-Length: 4", b"1234", False, "201"),
            ("cut by length", "Content-Length: 9", b"1234", False, None),
            ("cut by length, announced", "Content-Length: 9", b"1234", True, None),
            ("whole by chunks", "Transfer-Encoding: chunked", b"4\r\n1234\r\n0\r\n\r\n", False, "201"),
            ("cut by chunks", "Transfer-Encoding: chunked", b"4\r\n1234\r\n", False, None)):
        file = what.replace(" ", "-").replace(",", "")
        with socket.create_connection(address, timeout=PATIENCE_S) as plain:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context().wrap_bio(incoming, outgoing, server_hostname="a.test")

            def until_done(step):
                while True:
                    try:
                        done = step()
                    except ssl.SSLWantReadError:
                        done = None
                    if outgoing.pending:
                        plain.sendall(outgoing.read())
                    if done is not None:
                        return done
                    piece = plain.recv(65536)
                    incoming.write(piece) if piece else incoming.write_eof()

            until_done(lambda: tls.do_handshake() or True)
            request = f"PUT /up/{file} HTTP/1.1\r\nHost: a.test\r\n{head}\r\n\r\n".encode() + body
            until_done(lambda: tls.write(request))
            if announced:
                try:
                    tls.unwrap()
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
            plain.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := until_done(lambda: tls.read(65536)):
                    answer += piece
            except (ssl.SSLError, ConnectionError):
                pass
        got = answer[9:12].decode() or None
        check(f"PUT {what}", got if status else (got or "408")[0], status or "4")
        check(f"PUT {what} is kept", os.path.exists(path(f"up/{file}")), status is not None)


def plain_on_tls(address):
    """Fault A19."""
    with socket.create_connection(address, timeout=PATIENCE_S) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        answer = b""
        while piece := plain.recv(65536):
            answer += piece
    check("plain HTTP", (answer[:13], b"This port speaks TLS" in answer), (b"HTTP/1.1 400 ", True))


def self_signed():
    """A certificate made on the spot, for development, by the command line; and the preset there."""
    server = Server("www", "--tls-self-signed", "--listen", "127.0.0.1:0", "--tls-preset", "modern", "--quiet")
    try:
        address = server.address("127.0.0.1")
        shown = s_client(address, name="localhost")
        check("self-signed", (agreed(shown), "self-signed certificate" in shown), ("TLS_AES_256_GCM_SHA384", True))
        check("self-signed TLS 1.2", agreed(s_client(address, "-tls1_2", name="localhost")), None)
        made = ssl._create_unverified_context()
        check("self-signed answer", ask(address, "GET / HTTP/1.1", "localhost", made).endswith("home\n"), True)
    finally:
        server.end()


def main():
    authority("root")
    authority("clients")
    authority("strangers")
    certify("a", "a.test", EC, "root")
    certify("b", "b.test", RSA, "root")
    certify("client", "someone", EC, "clients")
    certify("stranger", "somebody", EC, "strangers")
    os.mkdir(path("www"))
    os.mkdir(path("up"))
    with open(path("www/index.html"), "w") as file:
        file.write("home\n")
    with open(path("eleven.toml"), "w") as file:
        file.write(CONFIG)
    finished = False
    server = Server("--config", "eleven.toml")
    try:
        intermediate, modern = server.address("127.0.0.1"), server.address("127.0.0.2")
        presets(intermediate, modern)
        names(intermediate)
        tickets(server, intermediate, modern)
        alpn(intermediate)
        clients(server.address("127.0.0.3"), server.address("127.0.0.4"))
        ends(intermediate)
        plain_on_tls(intermediate)
        stapling(server, intermediate)
        self_signed()
        check("it still runs", server.process.poll(), None)
        finished = True
    finally:
        server.end()
        if FAILED or not finished:
            print(server.text())
        shutil.rmtree(FOLDER, ignore_errors=True)
    print("TLS by OpenSSL: " + (f"{len(FAILED)} FAILED" if FAILED else "all as it should be"))
    sys.exit(1 if FAILED else 0)


main()
