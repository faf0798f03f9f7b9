"""Tests of the worker package, from the server's side of the sockets: `python test_worker.py`.

Every test starts a real worker process. Nothing but Python is needed.
"""

import ast
import os
import tempfile
import time
import unittest

from harness import TIMEOUT_S, Worker, wire

OK = wire.END | wire.DONE


class WsgiTest(unittest.TestCase):
    application = "wsgi_apps:application"
    settings = {}

    def setUp(self):
        self.worker = Worker(self.application, **self.settings)
        self.assertEqual(self.worker.first.kind, wire.READY, self.worker.first)

    def tearDown(self):
        self.assertEqual(self.worker.close(), 0)

    def get(self, path, content=b"", **more):
        return self.worker.whole(self.worker.wsgi(path, content, **more))

    def error(self, path, **more):
        """A request that must fail before its head; returns what the log says."""
        frame, _, flags = self.get(path, **more)
        self.assertEqual((frame.kind, flags), (wire.FAILED, [wire.DONE]))
        return self.worker.stderr()


class Wsgi(WsgiTest):
    def test_one_frame_for_a_small_response(self):
        frame, content, flags = self.get("/")
        self.assertEqual((frame.kind, frame.status, flags), (wire.RESPONSE, "200 OK", [OK]))
        self.assertEqual((frame.fields, content, frame.length), ([("Content-Type", "text/plain")], b"hello", 5))

    def test_requests_are_answered_in_order(self):
        numbers = [self.worker.wsgi("/echo", b"%d" % number, "POST") for number in range(20)]
        for index, number in enumerate(numbers):
            self.assertEqual(self.worker.whole(number)[1], b"%d" % index)

    def holdable(self, path, content=b"", flags=0):
        return self.worker.wsgi(path, content, flags=wire.CONTENT_INLINE | wire.MAY_HOLD | flags)

    def wait_for_shelf(self, count):
        """Waits until so many octets stand on the shelf, and returns them."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            shelved = self.worker.shelved()
            if len(shelved) == count:
                return shelved
            self.assertLess(time.monotonic(), end, shelved)
            time.sleep(0.01)

    def test_answers_of_many_that_wait(self):
        """All of them come, whatever is kept and whatever is sent at once."""
        waiting = set()

        def take_one():
            frame = self.worker.frame()
            if frame.flags & wire.DONE:
                waiting.remove(frame.request)

        for index in range(300):
            path = ("/", "/generator", "/echo", "/raises", "/empty")[index % 5]
            send = self.holdable if index % 7 else self.worker.wsgi
            size = 40_000 if index == 152 else index * 301 % 2000
            waiting.add(send(path, b"x" * size if path == "/echo" else b""))
            while len(waiting) > 16:
                take_one()
        while waiting:
            take_one()
        self.assertEqual(self.worker.shelved(), b"")

    def test_an_answer_stands_on_the_shelf_while_the_next_request_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            gate = os.path.join(folder, "gate")
            # The first makes the worker wait, so that both others are there when it comes to them.
            gates = [gate + "0", gate + "1"]
            numbers = [self.worker.wsgi("/wait", QUERY_STRING=gates[0]), self.holdable("/"), 0]
            numbers[2] = self.worker.wsgi(
                "/wait", flags=wire.CONTENT_INLINE | wire.MAY_HOLD, QUERY_STRING=gates[1]
            )
            open(gates[0], "w").close()
            self.assertEqual(self.worker.whole(numbers[0])[1], b"waited")
            shelved = self.wait_for_shelf(wire.FRAME.size + len("200 OK\0Content-Type\0text/plain") + len("hello"))
            self.assertEqual(wire.FRAME.unpack_from(shelved)[1], numbers[1])
            self.assertTrue(shelved.endswith(b"hello"))
            open(gates[1], "w").close()
            self.assertEqual(self.worker.whole(numbers[1])[1], b"hello")
            self.assertEqual(self.worker.whole(numbers[2])[1], b"waited")
            self.assertEqual(self.worker.shelved(), b"")

    def packet(self, *requests):
        """Sends requests, each a path and content, in one packet; returns their numbers."""
        messages, numbers = [], []
        for path, content in requests:
            head, self.worker.number = self.worker.wsgi_head(path, content), self.worker.number + 1
            messages.append(self.worker.message(head, content, wire.CONTENT_INLINE | wire.MAY_HOLD))
            numbers.append(self.worker.number)
        self.worker.queue.send(b"".join(messages))
        return numbers

    def test_several_requests_in_a_packet(self):
        contents = [b"", b"one", b"", b"x" * 5000, b"last"]
        numbers = self.packet(*(("/echo", content) for content in contents))
        for number, content in zip(numbers, contents):
            self.assertEqual(self.worker.whole(number)[1], content)
        # One of them goes wrong, one comes in parts, one has no content. What is on the shelf comes later than what is not.
        paths = ("/", "/raises", "/generator", "/empty", "/")
        numbers = self.packet(*((path, b"") for path in paths))
        frames = {number: [] for number in numbers}
        while not all(own and own[-1].flags & wire.DONE for own in frames.values()):
            frame = self.worker.frame()
            frames[frame.request].append(frame)
        for number, path in zip(numbers, paths):
            kind = wire.FAILED if path == "/raises" else wire.RESPONSE
            self.assertEqual(frames[number][0].kind, kind)
        self.assertEqual([frames[number][0].content for number in (numbers[0], numbers[4])], [b"hello"] * 2)

    def test_a_dead_worker_has_told_what_it_had_begun(self):
        self.assertEqual(self.worker.begun(), 0)
        first = self.worker.wsgi("/")
        self.assertEqual(self.worker.whole(first)[1], b"hello")
        self.assertEqual(self.worker.begun(), first)
        numbers = self.packet(("/", b""), ("/crash", b""), ("/", b""))
        self.worker.process.wait(TIMEOUT_S)
        self.assertEqual(self.worker.begun(), numbers[1])
        self.assertIn(b"hello", self.worker.responses.rest() or self.worker.shelved())
        # The end of this one is that of every test.
        self.worker.close()
        self.worker = Worker(self.application)

    def test_variables_without_names(self):
        """The usual variables come as values, others follow with their names."""
        values = ["GET", "/environ", "a=b", "/environ?a=b", "HTTP/1.1", "h", "h:81", "81", "192.0.2.7", "4711"]
        lines = ["%s=%r" % pair for pair in zip(wire.USUAL_VARIABLES, values)]
        for more in ([], ["HTTP_X", "\xe9", "HTTP_Y", ""]):
            head = "\0".join(values + more).encode("latin-1")
            _, content, _ = self.worker.whole(self.worker.send(head, flags=wire.CONTENT_INLINE | wire.USUAL))
            found = content.decode().split("\n")
            for line in lines + (["HTTP_X='\xe9'", "HTTP_Y=''"] if more else ["wsgi.version=(1, 0)"]):
                self.assertIn(line, found)
        # A request that lacks some has no empty ones instead.
        content = self.get("/environ")[1].decode()
        self.assertNotIn("REMOTE_PORT=", content)

    def test_what_stands_on_the_shelf_outlives_the_worker(self):
        with tempfile.TemporaryDirectory() as folder:
            gate = os.path.join(folder, "gate")
            first, second = self.worker.wsgi("/wait", QUERY_STRING=gate), self.holdable("/")
            self.holdable("/crash")
            open(gate, "w").close()
            self.assertEqual(self.worker.whole(first)[1], b"waited")
            self.worker.process.wait(TIMEOUT_S)
            sent = self.worker.responses.rest()
            self.assertIn(b"hello", sent or self.worker.shelved(), second)
            # The end of this one is that of every test.
            self.worker.close()
            self.worker = Worker(self.application)

    def test_environ(self):
        _, content, _ = self.get("/environ", HTTP_X="\xe9", PATH_INFO="/environ/", QUERY_STRING="a=%20")
        lines = content.decode().split("\n")
        for line in (
            "PATH_INFO='/environ/'",
            "QUERY_STRING='a=%20'",
            "HTTP_X='é'",
            "SERVER_NAME='localhost'",
            "SCRIPT_NAME=''",
            "wsgi.version=(1, 0)",
            "wsgi.multithread=False",
            "wsgi.input_terminated=True",
            "wsgi.url_scheme='http'",
        ):
            self.assertIn(line, lines)
        # Nothing of one request is left in the next.
        _, content, _ = self.get("/environ")
        self.assertNotIn("HTTP_X=", content.decode())

    def test_inline_content(self):
        self.assertEqual(self.get("/echo", b"abc\ndef", method="POST")[1], b"abc\ndef")
        lines = self.get("/lines", b"abcdef\nghi\njkl", method="POST")[1]
        self.assertEqual(ast.literal_eval(lines.decode()), [b"abc", b"def\n", b"ghi\n", b"jkl"])

    def test_streamed_content_is_asked_for_only_when_read(self):
        self.assertEqual(self.get("/unread", method="POST", flags=wire.CONTENT_STREAM)[1], b"did not read")
        number = self.worker.wsgi("/trailers", method="POST", flags=wire.CONTENT_STREAM)
        request, channel = self.worker.channel()
        self.assertEqual((request, channel.piece()), (number, (wire.PIECE_READ, b"")))
        for part in (b"ab", b"c" * 60000, b"", b"d"):
            channel.connection.sendall(wire.PIECE.pack(len(part), wire.PIECE_DATA) + part)
        trailers = b"X-Sum\x0012"
        channel.connection.sendall(
            wire.PIECE.pack(len(trailers), wire.PIECE_TRAILERS) + trailers + wire.PIECE.pack(0, wire.PIECE_END)
        )
        self.assertEqual(self.worker.whole(number)[1], b"ab" + b"c" * 60000 + b"d[('X-Sum', '12')]")

    def test_content_that_ends_early_is_an_error_without_a_traceback(self):
        number = self.worker.wsgi("/echo", method="POST", flags=wire.CONTENT_STREAM)
        _, channel = self.worker.channel()
        channel.piece()
        channel.connection.close()
        frame, _, flags = self.worker.whole(number)
        self.assertEqual((frame.kind, flags), (wire.FAILED, [wire.DONE]))
        self.assertEqual(self.worker.stderr(), "")

    def test_parts_leave_one_by_one(self):
        number = self.worker.wsgi("/generator")
        frames = [self.worker.frame() for _ in range(3)]
        self.assertEqual([frame.content for frame in frames[:2]], [b"one,", b"two"])
        self.assertEqual([frame.flags for frame in frames], [0, 0, wire.END])
        self.assertEqual(self.worker.frame().flags, wire.DONE)
        self.assertEqual(frames[0].request, number)

    def test_close_is_called_once(self):
        self.assertEqual(self.get("/closing")[1], b"abcdef")
        self.assertEqual(self.get("/closed")[1], b"closing")

    def test_write_callable(self):
        self.assertEqual(self.get("/write")[1], b"written and returned")

    def test_large_content_takes_its_own_connection(self):
        for path, size, length in (("/big", 300000, 300000), ("/long", 1000000, -1)):
            number = self.worker.wsgi(path)
            _, channel = self.worker.channel()
            content = b""
            while True:
                kind, data = channel.piece()
                if kind == wire.PIECE_END:
                    break
                self.assertEqual(kind, wire.PIECE_DATA)
                self.assertLessEqual(len(data), wire.PIECE_BYTES_MAX)
                content += data
            frame, before, flags = self.worker.whole(number)
            self.assertEqual((frame.length, flags[-1]), (length, wire.DONE))
            self.assertTrue(any(flag & wire.CONTINUED for flag in flags))
            self.assertEqual(len(before + content), size)

    def test_reader_that_leaves_stops_the_iteration_and_close_is_called(self):
        number = self.worker.wsgi("/long")
        _, channel = self.worker.channel()
        channel.piece()
        channel.connection.close()
        self.assertEqual(self.worker.whole(number)[2][-1], wire.ABORT | wire.DONE)
        self.assertEqual(self.get("/closed")[1], b"long")
        self.assertEqual(self.worker.stderr(), "")

    def test_file_is_handed_over(self):
        number = self.worker.wsgi("/file")
        _, channel = self.worker.channel()
        kind, data = channel.piece()
        self.assertEqual((kind, wire.FILE.unpack(data)), (wire.PIECE_FILE, (7, 199993)))
        with open(channel.descriptors[0], "rb") as file:
            file.seek(7)
            self.assertEqual(len(file.read()), 199993)
        self.assertEqual(channel.piece(), (wire.PIECE_END, b""))
        self.assertEqual(self.worker.whole(number)[0].length, 199993)

    def test_file_wrapper_of_something_else(self):
        self.assertEqual(self.get("/smallfile")[1], b"not a real file")

    def test_early_hints(self):
        number = self.worker.wsgi("/hints")
        frame = self.worker.frame()
        self.assertEqual((frame.kind, frame.status), (wire.HINTS, "103"))
        self.assertEqual(frame.fields, [("Link", "</a.css>; rel=preload")])
        self.assertEqual(self.worker.whole(number)[1], b"after hints")

    def test_head_and_statuses_without_content(self):
        for path, length in (("/", 5), ("/big", 300000), ("/file", 199993)):
            frame, content, flags = self.get(path, method="HEAD")
            self.assertEqual((content, frame.length), (b"", length), path)
            self.assertTrue(flags[0] & wire.END)
        self.assertEqual(self.get("/long", method="HEAD")[1], b"")
        frame, content, _ = self.get("/empty")
        self.assertEqual((frame.status, content, frame.length), ("204 No Content", b"", 0))

    def test_errors_before_the_head(self):
        for path, words in (
            ("/raises", "RuntimeError: before the head, \N{SNOWMAN}"),
            ("/exits", "SystemExit: 3"),
            ("/twice", "start_response was called again"),
            ("/str", "TypeError: content must be bytes, not str"),
            ("/strpart", "TypeError: content must be bytes, not str"),
            ("/nostart", "without calling start_response"),
            ("/none", "TypeError: 'NoneType' object is not iterable"),
            ("/linebreak", "contains a line break"),
            ("/badheaders", "headers must be a list"),
            ("/bytesname", "TypeError"),
            ("/unicode", "UnicodeEncodeError"),
            ("/missing", "KeyError: 'at_missing'"),
        ):
            text = self.error(path)
            self.assertIn(words, text, path)
            self.assertIn("eleven: the application raised in GET " + path, text)
        self.assertEqual(self.get("/")[1], b"hello")

    def test_errors_after_the_head(self):
        for path, words in (("/raiseslate", "after the head"), ("/excinfolate", "KeyError: 'too late'")):
            frame, content, flags = self.get(path)
            self.assertEqual((frame.status, content, flags[-1]), ("200 OK", b"some", wire.ABORT | wire.DONE))
            self.assertIn(words, self.worker.stderr())

    def test_exc_info_replaces_the_head(self):
        frame, content, _ = self.get("/excinfo")
        self.assertEqual((frame.status, frame.fields), ("500 Replaced", [("X-Second", "2")]))

    def test_path_in_the_log_cannot_break_the_line(self):
        self.assertIn("GET /missing\\nINJECTED", self.error("/missing\nINJECTED"))


class Threads(WsgiTest):
    settings = {"threads": 2}

    def test_two_requests_at_once(self):
        numbers = {self.worker.wsgi("/meet"), self.worker.wsgi("/meet")}
        frames = [self.worker.frame() for _ in numbers]
        self.assertEqual({frame.request for frame in frames}, numbers)
        self.assertEqual({frame.content for frame in frames}, {b"met"})

    def test_environ_says_so(self):
        self.assertIn(b"wsgi.multithread=True", self.get("/environ")[1])


class Validated(WsgiTest):
    """wsgiref.validate finds nothing to complain about."""

    application = "wsgi_apps:validated"

    def test_valid(self):
        for path, expected in (("/", b"hello"), ("/write", b"written and returned")):
            frame, content, flags = self.get(path)
            self.assertEqual((frame.kind, content), (wire.RESPONSE, expected), self.worker.stderr())
        self.assertEqual(self.get("/echo", b"abc", method="POST")[0].kind, wire.FAILED)
        # The validator forbids read() without a size, and says so: proof that it is at work.
        self.assertIn("AssertionError", self.worker.stderr())


class Development(WsgiTest):
    settings = {"development": True}

    def test_traceback_is_told_to_the_server(self):
        frame, content, _ = self.get("/raises")
        self.assertEqual(frame.kind, wire.FAILED)
        self.assertIn("before the head", content.decode())


class Starting(unittest.TestCase):
    def start(self, application, **settings):
        worker = Worker(application, **settings)
        self.addCleanup(worker.close)
        return worker

    def test_references(self):
        for reference in ("wsgi_apps", "wsgi_apps:at_", "wsgi_apps:Holder.nested", "wsgi_apps:make()"):
            worker = Worker(reference)
            self.assertEqual(worker.first.kind, wire.READY, reference)
            self.assertEqual(worker.whole(worker.wsgi("/"))[1], b"hello")
            self.assertEqual(worker.close(), 0)

    def test_unusable_references(self):
        for reference, words in (
            ("no_such_module:app", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("wsgi_apps:missing", "has no attribute 'missing'"),
            ("wsgi_apps:not_callable", "is a int, not callable"),
            ("wsgi_apps:fails()", "ValueError: the factory failed"),
            ("harness", "neither 'application' nor 'app'"),
            ("broken_module:app", "SyntaxError"),
            ("asgi_apps:failing", "no database"),
        ):
            worker = Worker(reference)
            self.assertEqual(worker.first.kind, wire.BROKEN, reference)
            self.assertIn(words, worker.first.content.decode())
            self.assertIn(words, worker.stderr())
            self.assertEqual(worker.close(), 0)

    def test_crash_is_seen_as_the_end_of_the_connection(self):
        worker = Worker("wsgi_apps:application")
        worker.wsgi("/crash")
        self.assertRaises(EOFError, worker.frame)
        self.assertEqual(worker.close(), 9)


class Asgi(unittest.TestCase):
    application = "asgi_apps:application"

    def setUp(self):
        self.worker = Worker(self.application)
        self.assertEqual(self.worker.first.kind, wire.READY, self.worker.first)
        self.assertIn(b'"asgi"', self.worker.first.content)

    def tearDown(self):
        self.assertEqual(self.worker.close(), 0)

    def get(self, path, content=b"", **more):
        return self.worker.whole(self.worker.asgi(path, content, **more))

    def seen(self):
        return ast.literal_eval(self.get("/seen")[1].decode())

    def test_small_response(self):
        frame, content, flags = self.get("/")
        self.assertEqual((frame.status, frame.fields, content, frame.length), ("200", [("x-a", "1")], b"hello", 5))
        self.assertEqual(flags, [wire.END, wire.DONE])

    def test_scope(self):
        content = self.get("/scope", query="a=b%20", method="PUT", raw_path="/%73cope", fields=[("x-a", "\xe9")])[1]
        self.assertEqual(
            ast.literal_eval(content.decode()),
            [
                "PUT",
                "/scope",
                b"/%73cope",
                b"a=b%20",
                "1.1",
                ("127.0.0.1", 4711),
                ("localhost", 8000),
                "http",
                [(b"host", b"localhost:8000"), (b"x-a", b"\xe9")],
                {"from_lifespan": "kept"},
            ],
        )

    def test_content(self):
        self.assertEqual(self.get("/echo", b"abc", method="POST")[1], b"abc")
        number = self.worker.asgi("/echo", method="POST", flags=wire.CONTENT_STREAM)
        _, channel = self.worker.channel()
        self.assertEqual(channel.piece(), (wire.PIECE_READ, b""))
        channel.connection.sendall(wire.PIECE.pack(3, wire.PIECE_DATA) + b"abc" + wire.PIECE.pack(0, wire.PIECE_END))
        self.assertEqual(self.worker.whole(number)[1], b"abc")
        number = self.worker.asgi("/echo", method="POST", flags=wire.CONTENT_STREAM)
        _, channel = self.worker.channel()
        channel.piece()
        channel.connection.close()
        self.assertEqual(self.worker.whole(number)[2][-1] & wire.DONE, wire.DONE)
        self.assertEqual(self.seen(), [False, False, True])

    def test_streams(self):
        frame, content, flags = self.get("/stream")
        self.assertEqual((content, frame.length), (b"0,1,2,", -1))
        for path, size in (("/big", 300000), ("/long", 1000000)):
            number = self.worker.asgi(path)
            _, channel = self.worker.channel()
            content = b""
            while True:
                kind, data = channel.piece()
                if kind == wire.PIECE_END:
                    break
                content += data
            frame, before, flags = self.worker.whole(number)
            self.assertEqual(len(before + content), size)

    def test_requests_run_side_by_side(self):
        stuck = self.worker.asgi("/stuck")
        self.assertEqual(self.get("/")[1], b"hello")
        self.worker.cancel(stuck, wire.FORCE)
        self.assertEqual(self.worker.whole(stuck)[0].kind, wire.FAILED)
        self.assertEqual(self.seen(), ["cancelled"])
        self.assertEqual(self.worker.stderr(), "")

    def test_disconnect_is_told(self):
        waits = self.worker.asgi("/waits")
        self.worker.cancel(waits)
        self.worker.whole(waits)
        self.assertEqual(self.seen(), ["http.disconnect"])
        self.get("/latedisconnect")
        self.assertEqual(self.seen()[1:], ["http.request", "http.disconnect"])

    def test_head(self):
        self.assertEqual(self.get("/big", method="HEAD")[0].length, 300000)
        self.assertEqual(self.get("/long", method="HEAD")[1], b"")
        self.assertEqual(self.get("/path", method="HEAD")[0].length, 200000)

    def test_hints_and_trailers(self):
        number = self.worker.asgi("/hints")
        frame = self.worker.frame()
        self.assertEqual((frame.kind, frame.fields), (wire.HINTS, [("link", "</a.css>; rel=preload")]))
        self.assertEqual(self.worker.whole(number)[1], b"after hints")
        number = self.worker.asgi("/trailers")
        frames = [self.worker.frame() for _ in range(3)]
        self.assertEqual([frame.kind for frame in frames], [wire.RESPONSE, wire.TRAILERS, wire.CONTENT])
        self.assertEqual([frame.flags for frame in frames], [0, wire.END, wire.DONE])
        self.assertEqual((frames[1].count, frames[1].content), (1, b"\0x-sum\x007"))

    def test_file(self):
        number = self.worker.asgi("/path")
        _, channel = self.worker.channel()
        self.assertEqual(channel.piece(), (wire.PIECE_DATA, b""))
        kind, data = channel.piece()
        self.assertEqual((kind, wire.FILE.unpack(data)), (wire.PIECE_FILE, (0, 200000)))
        self.assertEqual(channel.piece()[0], wire.PIECE_END)
        self.assertEqual(self.worker.whole(number)[0].length, 200000)

    def test_errors(self):
        for path, words in (
            ("/raises", "RuntimeError: before the head"),
            ("/nothing", "returned without starting a response"),
            ("/linebreak", "contains a line break"),
            ("/missing", "KeyError: 'at_missing'"),
        ):
            frame, _, flags = self.get(path)
            self.assertEqual((frame.kind, flags), (wire.FAILED, [wire.DONE]), path)
            self.assertIn(words, self.worker.stderr())
        _, content, flags = self.get("/raiseslate")
        self.assertEqual((content, flags[-1]), (b"some", wire.ABORT | wire.DONE))

    def socket(self, path, fields=()):
        return self.worker.asgi(path, flags=wire.WEBSOCKET, fields=fields)

    def test_websocket(self):
        number = self.socket("/", [("sec-websocket-protocol", "chat, other")])
        _, channel = self.worker.channel()
        frame = self.worker.frame()
        self.assertEqual((frame.status, frame.flags), ("101", wire.CONTINUED))
        self.assertEqual(frame.fields, [("sec-websocket-protocol", "chat")])

        def tell(kind, data):
            channel.connection.sendall(wire.PIECE.pack(len(data), kind) + data)

        tell(wire.PIECE_TEXT, "é".encode())
        self.assertEqual(channel.piece(), (wire.PIECE_TEXT, "É".encode()))
        tell(wire.PIECE_BINARY, b"123")
        self.assertEqual(channel.piece(), (wire.PIECE_BINARY, b"321"))
        tell(wire.PIECE_TEXT, b"bye")
        self.assertEqual(channel.piece(), (wire.PIECE_CLOSE, (4001).to_bytes(2, "big") + b"as asked"))
        self.assertEqual(self.worker.whole(number)[2], [wire.DONE])

    def test_websocket_closed_by_the_client(self):
        number = self.socket("/")
        _, channel = self.worker.channel()
        channel.connection.sendall(wire.PIECE.pack(2, wire.PIECE_CLOSE) + (1001).to_bytes(2, "big"))
        self.worker.whole(number)
        number = self.socket("/")
        _, channel = self.worker.channel()
        channel.connection.close()
        self.worker.whole(number)
        self.assertEqual(self.seen(), [1001, 1006])

    def test_websocket_refused(self):
        frame, _, flags = self.worker.whole(self.socket("/refuse"))
        self.assertEqual((frame.status, flags), ("403", [wire.END, wire.DONE]))
        frame, content, _ = self.worker.whole(self.socket("/deny"))
        self.assertEqual((frame.status, frame.fields, content), ("401", [("x-why", "no")], b"denied"))


class AsgiWithoutLifespan(Asgi):
    application = "asgi_apps:no_lifespan"

    def test_only(self):
        self.assertEqual(self.get("/")[1], b"fine")

    for name in [name for name in dir(Asgi) if name.startswith("test_")]:
        locals()[name] = None
    del name


if __name__ == "__main__":
    unittest.main(warnings="ignore")
