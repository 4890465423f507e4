"""An object store on loopback: as much of S3 as reading a sheet and writing a spool need, in a process of its own.

``python -m benchmarks.store FOLDER`` serves the files of FOLDER under any bucket's name; it prints its address, and
ends with its standard input. What is written to it is read to the end, counted and forgotten: the network's cost stays,
the disk's does not.
"""

from __future__ import annotations

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

HOST = "127.0.0.1"
_CHUNK_BYTES = 1 << 20
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path

    def do_HEAD(self) -> None:
        """Describe an object."""
        self._get(body=False)

    def do_GET(self) -> None:
        """Give an object, whole or from a byte on."""
        self._get(body=True)

    def do_PUT(self) -> None:
        """Take an object, a part of one, or its tags."""
        count = self._drain()
        self._answer(200, b"", ETag=f'"{count:x}"')

    def do_POST(self) -> None:
        """Begin or end an upload in parts."""
        self._drain()
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "uploads" in query:
            text = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        else:
            text = '<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>'
        self._answer(200, (_XML + text).encode())

    def do_DELETE(self) -> None:
        """Give an upload in parts up."""
        self._answer(204, b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 -- as the base class has it
        """Log nothing: it would be measured."""

    def _get(self, *, body: bool) -> None:
        path = self.folder / Path(unquote(urlsplit(self.path).path)).name
        if not path.is_file():
            self._answer(404, f"{_XML}<Error><Code>NoSuchKey</Code></Error>".encode() if body else b"")
            return
        size = path.stat().st_size
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(begin[1]) if begin else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(size - start))
        self.send_header("ETag", f'"{size:x}"')
        self.send_header("Last-Modified", "Sun, 01 Mar 2026 09:00:00 GMT")
        if begin:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if not body:
            return
        self.wfile.flush()
        try:
            with path.open("rb") as file:
                self.connection.sendfile(file, start)
        except ConnectionError:  # the reader has read enough
            self.close_connection = True

    def _drain(self) -> int:
        """Read the body to its end; how long it was."""
        missing = count = int(self.headers.get("Content-Length") or 0)
        while missing and (chunk := self.rfile.read(min(missing, _CHUNK_BYTES))):
            missing -= len(chunk)
        return count

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(folder: str) -> None:
    """Serve *folder* until standard input ends."""
    server = ThreadingHTTPServer((HOST, 0), type("Handler", (_Handler,), {"folder": Path(folder)}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://{HOST}:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
