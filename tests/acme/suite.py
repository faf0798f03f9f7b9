"""Orders certificates from Pebble. The server is started first, while there is no authority, and has to serve all the
same; then its ports are told to Pebble, which looks for the challenges there. Everything that is waited for is an
event with a generous bound."""

import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import common

ELEVEN = common.binary()
PATIENCE_S = 90
# Short, so that the renewal is seen: it comes after two thirds of it.
VALIDITY_S = 30


class Failed(Exception):
    pass


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """A program that is ended with the test; what it says is kept."""

    def __init__(self, args, **more):
        self.process = subprocess.Popen(args, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, **more)
        self.said = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.said.append(line)

    def text(self):
        return "".join(self.said)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def openssl(*args, **more):
    return subprocess.run(["openssl", *args], check=True, capture_output=True, **more).stdout


def authority_certificate(folder):
    """A root, and what Pebble shows on its own port."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=test root", "-keyout", f"{folder}/root.key", "-out", f"{folder}/root.pem")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=pebble",
            "-keyout", f"{folder}/pebble.key", "-out", f"{folder}/pebble.csr")
    with open(f"{folder}/ext", "w") as file:
        file.write("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", f"{folder}/pebble.csr", "-CA", f"{folder}/root.pem", "-CAkey", f"{folder}/root.key",
            "-CAcreateserial", "-days", "2", "-extfile", f"{folder}/ext", "-out", f"{folder}/pebble.pem")


def shown(port, name):
    """What is shown for a name: issuer, serial number and names."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain:
        with context.wrap_socket(plain, server_hostname=name) as secured:
            der = secured.getpeercert(binary_form=True)
            secured.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while True:
                piece = secured.recv(65536)
                if not piece:
                    break
                answer += piece
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Failed(f"{name}: {answer[:100]!r}")
    text = openssl("x509", "-inform", "DER", "-noout", "-issuer", "-serial", "-ext", "subjectAltName", input=der).decode()
    return {
        "issuer": re.search(r"issuer=(.*)", text).group(1),
        "serial": re.search(r"serial=(.*)", text).group(1),
        "names": sorted(re.findall(r"DNS:([^,\s]+)", text)),
    }


class Adviser:
    """Pebble's directory with a renewalInfo (RFC 9773) that Pebble itself does not have yet: it is always time to renew."""

    def __init__(self, folder, api):
        trusting = ssl.create_default_context(cafile=f"{folder}/root.pem")
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/dir":
                    try:
                        with urllib.request.urlopen(f"https://127.0.0.1:{api}/dir", context=trusting, timeout=20) as answer:
                            found = json.load(answer)
                    except OSError:
                        self.send_error(503)  # Pebble is not there yet.
                        return
                    found["renewalInfo"] = f"https://127.0.0.1:{self.server.server_port}/renewal-info"
                else:
                    asked.append(self.path)
                    found = {"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}}
                content = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Retry-After", "21600")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/pebble.pem", f"{folder}/pebble.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def scenario(challenge, advised=False):
    folder = tempfile.mkdtemp(prefix="eleven-acme-")
    programs = []
    try:
        authority_certificate(folder)
        api, management, dns, control = common.free_port(), common.free_port(), common.free_port(), common.free_port()
        adviser = Adviser(folder, api) if advised else None
        directory = adviser.port if advised else api
        os.mkdir(f"{folder}/www")
        with open(f"{folder}/www/index.html", "w") as file:
            file.write("home\n")
        with open(f"{folder}/eleven.toml", "w") as file:
            file.write(f"""
workers = 2
[log]
access = "off"
[acme]
store = "store"
directory = "https://127.0.0.1:{directory}/dir"
ca = "root.pem"
challenge = "{challenge}"
contact = "mailto:admin@one.test"
[[listener]]
address = "127.0.0.1:0"
[[listener]]
address = "localhost:0"
tls = true
[[site]]
names = ["one.test", "www.one.test"]
root = "www"
acme = true
[[site]]
names = "two.test"
https_only = true
root = "www"
acme = true
[[site]]
names = "elsewhere.test"
root = "www"
acme = true
""")
        server = Program([ELEVEN, "serve", "--config", "eleven.toml"], cwd=folder)
        programs.append(server)
        plain = int(common.wait_for("plain port", lambda: re.search(r" on http://127.0.0.1:(\d+)/", server.text())).group(1))
        secured = int(common.wait_for("TLS port", lambda: re.search(r" on https://127.0.0.1:(\d+)/", server.text())).group(1))

        # Nobody issues anything, and it serves all the same.
        first = shown(secured, "one.test")
        if "stands in" not in first["issuer"]:
            raise Failed(f"what is shown before anything was issued: {first}")
        common.wait_for("word about the authority out of reach", lambda: "no certificate for" in server.text())

        usage = subprocess.run(["pebble-challtestsrv", "-h"], capture_output=True, text=True)
        # Newer versions also speak DNS over HTTPS, on a port of their own unless told not to.
        quiet = ["-doh", ""] if "-doh" in usage.stdout + usage.stderr else []
        programs.append(Program(["pebble-challtestsrv", *quiet, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
                                 "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{control}",
                                 "-http01", "", "-https01", "", "-tlsalpn01", ""]))
        common.wait_for("name server", lambda: is_open(control))
        # This name leads to an address where nobody listens.
        urllib.request.urlopen(urllib.request.Request(
            f"http://127.0.0.1:{control}/add-a",
            data=json.dumps({"host": "elsewhere.test.", "addresses": ["127.0.0.9"]}).encode()), timeout=20).close()
        with open(f"{folder}/pebble.json", "w") as file:
            json.dump({"pebble": {
                "listenAddress": f"127.0.0.1:{api}", "managementListenAddress": f"127.0.0.1:{management}",
                "certificate": f"{folder}/pebble.pem", "privateKey": f"{folder}/pebble.key",
                "httpPort": plain, "tlsPort": secured, "ocspResponderURL": "",
                "externalAccountBindingRequired": False, "certificateValidityPeriod": 90 * 86400 if advised else VALIDITY_S}}, file)
        programs.append(Program(["pebble", "-config", f"{folder}/pebble.json", "-dnsserver", f"127.0.0.1:{dns}"],
                                env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_VA_ALWAYS_VALID": "0",
                                     "PEBBLE_WFE_NONCEREJECT": "10"}))

        def issued(name):
            found = shown(secured, name)
            return found if "Pebble" in found["issuer"] else None

        one = common.wait_for("certificate for one.test", lambda: issued("one.test"))
        two = common.wait_for("certificate for two.test", lambda: issued("two.test"))
        if one["names"] != ["one.test", "www.one.test"] or two["names"] != ["two.test"]:
            raise Failed(f"names {one} {two}")
        for name in os.listdir(f"{folder}/store"):
            mode = os.stat(f"{folder}/store/{name}").st_mode & 0o777
            if mode != 0o600:
                raise Failed(f"{name} has mode {mode:o}")
        accounts = [name for name in os.listdir(f"{folder}/store") if name.startswith("account-")]
        if len(accounts) != 1 or server.text().count("an account was registered") != 1:
            raise Failed(f"accounts: {accounts}")

        # What is refused is said, and hurts nobody else.
        common.wait_for("word about the name that leads elsewhere",
                 lambda: re.search(r"no certificate for elsewhere\.test .*127\.0\.0\.9", server.text()))
        if "stands in" not in shown(secured, "elsewhere.test")["issuer"]:
            raise Failed("a certificate for a name that leads elsewhere")

        if advised:
            # By themselves they are good for two months; a server that starts asks, and renews once, however often the
            # authority would have it.
            server.end()
            if adviser.asked:
                raise Failed(f"a certificate that was just issued was asked about: {adviser.asked}")
            with open(f"{folder}/eleven.toml") as file:
                text = file.read()
            with open(f"{folder}/eleven.toml", "w") as file:
                file.write(text.replace('"127.0.0.1:0"', f'"127.0.0.1:{plain}"').replace('"localhost:0"', f'"localhost:{secured}"'))
            again = Program([ELEVEN, "serve", "--config", "eleven.toml"], cwd=folder)
            programs.append(again)
            common.wait_for("the ports", lambda: is_open(secured))
            for name, before in (("one.test", one), ("two.test", two)):
                common.wait_for(f"renewal of {name}", lambda: (now := issued(name)) and now["serial"] != before["serial"])
            if len(adviser.asked) != 2 or again.text().count("was issued by") != 2:
                raise Failed(f"asked {adviser.asked}")
            print("renewed because the authority said so")
            return

        # And they are renewed before their time is up.
        renewed = common.wait_for("renewal", lambda: (now := issued("one.test")) and now["serial"] != one["serial"] and now)
        print(f"{challenge}: issued {one['serial']} and {two['serial']}, renewed as {renewed['serial']}")
    except BaseException:
        for program in programs:
            print(f"---- {program.process.args[0]}\n{program.text()[-5000:]}", file=sys.stderr)
        raise
    finally:
        for program in programs:
            program.end()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    failures = []

    def run(*what):
        try:
            scenario(*what)
        except BaseException as error:
            failures.append(f"{what}: {error}")

    cases = [("http-01",), ("tls-alpn-01",), ("http-01", True)]
    threads = [threading.Thread(target=run, args=case) for case in cases]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit("\n".join(failures))
    print(f"ok, in {time.monotonic() - started:.0f} s")


main()
