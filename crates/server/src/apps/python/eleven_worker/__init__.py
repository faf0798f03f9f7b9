"""The worker side of eleven's application host: runs one Python application and answers requests that the
server passes over Unix sockets. No HTTP is parsed here. The frames are described in docs/worker-protocol.md.

Needs Python 3.9 and nothing else.
"""
