"""Completions, manual pages, units, configuration and maintainer script of the package, by the programs that read them."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ELEVEN = sys.argv[1]
PACKAGING = pathlib.Path(__file__).resolve().parents[2] / "packaging"
# What stands before the cursor, and what must be offered there.
COMPLETED = [
    ("eleven se", ["serve"]),
    ("eleven cache p", ["purge"]),
    ("eleven serve --tls-c", ["--tls-cert", "--tls-client-ca", "--tls-client-optional"]),
    ("eleven get --seg", ["--segments"]),
]


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, **more)
    return done.returncode, done.stdout + done.stderr


def need(condition, what, said=""):
    if not condition:
        sys.exit(f"FAILED: {what}\n{said}")
    print(f"ok: {what}")


def completions(folder):
    files = {}
    for shell in ("bash", "zsh", "fish"):
        code, text = run(ELEVEN, "completions", shell)
        need(code == 0, f"completions for {shell} are written", text)
        files[shell] = folder / shell / ("_eleven" if shell == "zsh" else "eleven")
        files[shell].parent.mkdir()
        files[shell].write_text(text)
    for line, wanted in COMPLETED:
        words = line.split()
        ask = (
            f"source {files['bash']}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            f"_eleven eleven '{words[-1]}' '{words[-2]}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        said = run("bash", "-c", ask)[1]
        need(all(word in said.split() for word in wanted), f"bash completes `{line}`", said)
        said = run("fish", "-c", f"source {files['fish']}; complete -C '{line}'")[1]
        offered = [offer.split("\t")[0] for offer in said.splitlines()]
        need(all(word in offered for word in wanted), f"fish completes `{line}`", said)
        # An interactive zsh on a terminal of its own, which is read until the last of them has come.
        script = (
            "zmodload zsh/zpty; zpty z zsh -f -i\n"
            f"zpty -w z 'fpath=({files['zsh'].parent} $fpath); autoload -U compinit; compinit -u -D; print rea''dy'\n"
            "zpty -r z out '*ready*'\n"
            f"zpty -w -n z $'{line}\\t\\t'\n"
            f"zpty -r z out '*{wanted[-1]}*' && print -r -- $out\n"
        )
        code, said = run("zsh", "-f", "-c", script)
        need(code == 0 and wanted[0] in said, f"zsh completes `{line}`", said)


def pages(folder):
    code, said = run(ELEVEN, "man", "--output", str(folder))
    need(code == 0, "manual pages are written", said)
    found = sorted(folder.glob("*.1"))
    need(len(found) > 15, f"{len(found)} manual pages")
    code, said = run("mandoc", "-Tlint", "-W", "error", *map(str, found))
    need(code == 0, "manual pages have no errors", said)
    for page in found:
        said = re.sub(".\b", "", run("mandoc", "-Tascii", str(page))[1])
        need(page.stem in said and "SYNOPSIS" in said, f"{page.name} can be read", said)



def units(folder):
    for file in PACKAGING.glob("eleven*.s*"):
        text = file.read_text().replace("/usr/bin/eleven", ELEVEN)
        (folder / file.name).write_text(text)
    names = sorted(str(file) for file in folder.iterdir())
    code, said = run("systemd-analyze", "verify", "--man=no", *names)
    ours = [line for line in said.splitlines() if "eleven" in line]
    need(code == 0 and not ours, f"systemd reads {len(names)} units", said)


def configuration(folder):
    text = (PACKAGING / "eleven.toml").read_text()
    # What the package or the service makes, and what it holds.
    for place in ("/usr/share/eleven/www", "/var/log/eleven"):
        need(place in text, f"the first configuration names {place}")
        (folder / place[1:]).mkdir(parents=True)
        text = text.replace(place, str(folder / place[1:]))
    (folder / "eleven.toml").write_text(text)
    code, said = run(ELEVEN, "check", str(folder / "eleven.toml"))
    need(code == 0, "the first configuration is right", said)


def maintainer_script(folder):
    log = folder / "log"

    def script(user_exists, *arguments):
        log.write_text("")
        for name, code in [("getent", 0 if user_exists else 2), ("adduser", 0), ("install", 0), ("eleven", 1)]:
            stub = folder / name
            stub.write_text(f'#!/bin/sh\necho {name} "$@" >>{log}\nexit {code}\n')
            stub.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        code, said = run("sh", str(PACKAGING / "deb/postinst"), *arguments, env=environment)
        need(code == 0, f"postinst {' '.join(arguments)}", said)
        return log.read_text()

    said = script(False, "configure", "")
    need("adduser --system" in said, "a first installation makes the user")
    if not pathlib.Path("/var/log/eleven").exists():
        need("install -d -m 0755 -o eleven -g eleven /var/log/eleven" in said, "and then the folder of its logs")
    need("adduser" not in script(True, "configure", "0.0.9"), "a second one does not")
    need("adduser" not in script(False, "abort-upgrade"), "nor does an installation that is taken back")


with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    for part in (completions, pages, units, configuration, maintainer_script):
        folder = root / part.__name__
        folder.mkdir()
        part(folder)
print("all of it")
