"""A Flask application as people write it: JSON, forms, uploads, cookies, streams, files."""

import os

from flask import Flask, Response, jsonify, request, send_file, session, stream_with_context

app = Flask(__name__)
app.secret_key = "not secret in a test"


@app.get("/")
def index():
    return "Hello, world!"


@app.get("/json/<name>")
def answer(name):
    return jsonify(name=name, host=request.host, url=request.url, args=request.args.to_dict(), https=request.is_secure)


@app.post("/form")
def form():
    upload = request.files.get("file")
    size = len(upload.read()) if upload else 0
    return jsonify(fields=request.form.to_dict(), size=size, length=request.content_length)


@app.post("/raw")
def raw():
    return jsonify(size=len(request.get_data()), length=request.content_length)


@app.get("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])


@app.get("/stream")
def stream():
    return Response(stream_with_context("%d\n" % number for number in range(1000)), mimetype="text/plain")


@app.get("/file")
def file():
    return send_file(os.path.abspath(os.__file__), conditional=True)


@app.get("/boom")
def boom():
    raise RuntimeError("on purpose")
