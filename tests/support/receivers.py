"""Where messages to people arrive: a web hook and a mail server on this machine."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class Hook(ThreadingHTTPServer):
    """Keeps the path and the JSON of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HookHandler)
        self.received: list[tuple[str, Any]] = []


class _HookHandler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class Mail(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs, and keeps subject and body of each mail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.received: list[tuple[str, str]] = []


class _MailHandler(socketserver.StreamRequestHandler):
    server: Mail
    replies: ClassVar = {"DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        for line in self.rfile:
            command = line[:4].decode().upper()
            self.wfile.write(self.replies.get(command, b"250 ok\r\n"))
            if command == "DATA":
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part)
                mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                body = mail.get_body()
                assert body is not None
                self.server.received.append((str(mail["Subject"]), body.get_content()))
                self.wfile.write(b"250 ok\r\n")
            if command == "QUIT":
                return
