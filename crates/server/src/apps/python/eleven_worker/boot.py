"""Starts a worker: takes the settings from the queue socket, imports the application, says that it is ready,
and hands over to the WSGI or the ASGI side.

An application that does not import is told to the server with its traceback; the process then ends, or in
development waits for a file to change.
"""

import gc
import importlib
import inspect
import json
import os
import signal
import socket
import sys
import traceback

from . import wire


class Unusable(Exception):
    """The application reference is wrong, said in one sentence."""


def load(reference, factory):
    """The object that `MODULE:ATTR` names. ATTR may be dotted, may be a call without arguments (`make()`),
    and is `application` or `app` when left out."""
    module_name, _, attribute = reference.partition(":")
    call = factory
    if attribute.endswith("()"):
        attribute, call = attribute[:-2], True
    module = importlib.import_module(module_name)
    if attribute:
        target = module
        for part in attribute.split("."):
            try:
                target = getattr(target, part)
            except AttributeError:
                raise Unusable(
                    "module %r has no attribute %r (looked for %r)" % (module_name, part, reference)
                ) from None
    else:
        target = getattr(module, "application", None) or getattr(module, "app", None)
        if target is None:
            raise Unusable(
                "module %r has neither 'application' nor 'app'; write MODULE:ATTR" % module_name
            )
    if call:
        target = target()
    if not callable(target):
        raise Unusable("%r is a %s, not callable" % (reference, type(target).__name__))
    return target


def interface_of(application):
    """`asgi` for a coroutine function or an object whose `__call__` is one, else `wsgi`."""
    call = application
    while hasattr(call, "func"):
        call = call.func
    if inspect.iscoroutinefunction(call):
        return "asgi"
    if not inspect.isfunction(call) and not inspect.isclass(call):
        if inspect.iscoroutinefunction(getattr(call, "__call__", None)):
            return "asgi"
    return "wsgi"


def own_frames_removed(error):
    """The traceback without the frames of this package and of importlib, which tell the reader nothing."""
    here = os.path.dirname(os.path.abspath(__file__))
    frames = error.__traceback__
    while frames is not None:
        name = frames.tb_frame.f_code.co_filename
        if not (name.startswith(here) or name.startswith("<frozen importlib") or "importlib" in name):
            break
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def main():
    # The terminal and the service manager signal the whole group; the server decides when a worker ends, by
    # closing the queue socket.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    queue = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    first = queue.recv(wire.MESSAGE_BYTES_MAX)
    if not first:
        return
    settings = wire.Settings(json.loads(first))
    if settings.preload:
        fork_workers(queue, settings)
    else:
        serve(queue, settings, prepare)


def prepare(settings):
    """Imports the application. Returns it with the name of its interface."""
    if settings.directory:
        os.chdir(settings.directory)
    sys.path[:0] = [*settings.python_path, os.getcwd()]
    application = load(settings.application, settings.factory)
    interface = settings.interface
    if interface == "auto":
        interface = interface_of(application)
    return application, interface


def fork_workers(control, settings):
    """Imports the application once, then forks a worker for every message, which holds its settings and comes with
    its queue socket. Answers with the worker's number and a descriptor of its process.

    An application that does not import is told by each worker, as it is without this process.
    """
    prepared, error = None, None
    try:
        prepared = prepare(settings)
    except BaseException as raised:
        error = raised

    def outcome(_):
        if error is not None:
            raise error
        return prepared

    # What is loaded now is shared with the workers: the collector must not write to it.
    gc.collect()
    gc.freeze()
    # Nobody here asks how a worker ended; the server sees that it did.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, wire.MESSAGE_BYTES_MAX, 1)
        if not message:
            return
        own = wire.Settings(json.loads(message))
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            os.set_inheritable(descriptors[0], False)
            return serve(socket.socket(fileno=descriptors[0]), own, outcome)
        os.close(descriptors[0])
        number = own.worker.to_bytes(4, "little")
        try:
            handle = os.pidfd_open(process)
        except OSError:
            # It has ended already.
            control.send(number)
        else:
            socket.send_fds(control, [number], [handle])
            os.close(handle)


def serve(queue, settings, prepare):
    shelf = wire.shelf_file(settings.threads)
    responders = [
        wire.connect(settings, thread, wire.HELLO_RESPONSES, file=shelf) for thread in range(len(settings.sockets))
    ]
    control = responders[0]
    watcher = None
    if settings.watch:
        from . import watch

        watcher = watch.Watcher(settings.directory or os.getcwd())
    try:
        application, interface = prepare(settings)
        if interface == "asgi":
            from . import asgi as side
        else:
            from . import wsgi as side
    except BaseException as error:
        if isinstance(error, Unusable):
            text = str(error)
        else:
            text = own_frames_removed(error)
        broken(settings, control, text)
        if watcher:
            watcher.add_from(error)
            watcher.run(lambda path: changed(control, path))
        # The server closes the queue when it has seen this.
        while queue.recv(1):
            pass
        return

    def ready():
        if watcher:
            watcher.start(lambda path: changed(control, path))
        text = json.dumps(
            {
                "version": wire.VERSION,
                "interface": interface,
                "pid": os.getpid(),
                "python": "%s %d.%d.%d" % ((sys.implementation.name,) + sys.version_info[:3]),
            }
        )
        control.sendall(wire.frame(0, wire.READY, 0, text.encode()))

    # What is loaded now lives as long as the process: keep the collector away from it.
    gc.collect()
    gc.freeze()
    side.run(
        queue, responders, shelf, application, settings, ready, lambda text: broken(settings, control, text)
    )


def broken(settings, control, text):
    wire.report("eleven: the application %r did not start\n%s" % (settings.application, text))
    try:
        control.sendall(wire.frame(0, wire.BROKEN, 0, text.encode("utf-8", "backslashreplace")[:60000]))
    except OSError:
        pass


def changed(control, path):
    try:
        control.sendall(wire.frame(0, wire.CHANGED, 0, path.encode("utf-8", "surrogateescape")))
    except OSError:
        os._exit(0)
