"""What the suites of this directory share. A suite is a file whose functions named test_* are its tests; each fails by
raising. `main` runs them, those whose names contain one of the words of the command line if there are any.
"""
import os
import socket
import sys
import time
import traceback


def binary():
    """The first argument: the binary to test."""
    return os.path.abspath(sys.argv[1])


def free_port():
    """A port that was free just now. Another program may take it: for programs that cannot choose one themselves."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait_for(what, condition, seconds=90):
    """What `condition` gives as soon as it is true; a failure that names `what` if that never happens."""
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.05)


def main(names):
    """Runs the tests among `names`, the suite's globals, and ends the program."""
    wanted = sys.argv[2:]
    passed = failed = 0
    for name, function in list(names.items()):
        if not name.startswith("test_") or (wanted and not any(word in name for word in wanted)):
            continue
        begun = time.monotonic()
        try:
            function()
            passed += 1
            print(f"ok    {name} ({time.monotonic() - begun:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)
