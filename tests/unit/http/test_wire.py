"""Connections: kept from one call to the next, and never an old one for a call that must not be made twice.

The waits of the real transport are 5 s and 50 s; `Hasty` has its two pools with shorter ones. What shows that the real
one has two pools at all is that calls of either kind do not share a connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient
from finops_relay.http.wire import KEPT_IDLE_S, RECENT_IDLE_S, Until, _Pool, _Transport, new_wire
from pydantic import SecretStr

IDLE_S = 0.05


class _Handler(BaseHTTPRequestHandler):
    """Answers call after call on one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    server: Counting

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.calls += 1
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = self.server.hangs_up

    do_POST = do_GET  # noqa: N815 -- as http.server names it

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Counting(ThreadingHTTPServer):
    """Counts connections and calls."""

    daemon_threads = True
    connections = 0
    calls = 0
    hangs_up = False
    """Whether it ends a connection after an answer, without having said so."""


@pytest.fixture
def server() -> Iterator[Counting]:
    with Counting(("127.0.0.1", 0), _Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


class Hasty(_Transport):
    """The transport with other waits."""

    def __init__(self, kept_s: float, recent_s: float) -> None:
        context = httpx.create_ssl_context()
        self._kept, self._recent = _Pool(context, kept_s), _Pool(context, recent_s)


@contextmanager
def calls(server: Counting, wire: httpx.Client) -> Iterator[HttpClient]:
    with wire:
        yield HttpClient(
            f"http://127.0.0.1:{server.server_port}", Credential(fixed(SecretStr("token")), "k"), wire=wire
        )


def call(client: HttpClient, *, safe: bool) -> None:
    client.request("GET" if safe else "POST", "/things", body=None if safe else {}, safe=safe)


@pytest.mark.parametrize("safe", [True, False])
def test_a_connection_is_kept_over_many_calls(server: Counting, *, safe: bool) -> None:
    with calls(server, new_wire()) as client:
        for _ in range(20):
            call(client, safe=safe)
    assert (server.calls, server.connections) == (20, 1)


def test_calls_of_either_kind_do_not_share_a_connection(server: Counting) -> None:
    with calls(server, new_wire()) as client:
        for safe in (True, False, True, False):
            call(client, safe=safe)
    assert (server.calls, server.connections) == (4, 2)


@pytest.mark.parametrize(("safe", "connections"), [(True, 1), (False, 2)])
def test_only_a_safe_call_takes_a_connection_that_idled_for_longer(
    server: Counting, *, safe: bool, connections: int
) -> None:
    with calls(server, httpx.Client(transport=Hasty(KEPT_IDLE_S, IDLE_S))) as client:
        call(client, safe=safe)
        time.sleep(2 * IDLE_S)
        call(client, safe=safe)
    assert (server.calls, server.connections) == (2, connections)


def test_no_call_takes_a_connection_that_a_load_balancer_may_have_ended(server: Counting) -> None:
    with calls(server, httpx.Client(transport=Hasty(IDLE_S, IDLE_S))) as client:
        call(client, safe=True)
        time.sleep(2 * IDLE_S)
        call(client, safe=True)
    assert server.connections == 2
    assert RECENT_IDLE_S < KEPT_IDLE_S < 60


@pytest.mark.parametrize("safe", [True, False])
def test_a_connection_that_its_other_side_ended_is_not_used_again(server: Counting, *, safe: bool) -> None:
    server.hangs_up = True
    with calls(server, new_wire()) as client:
        for _ in range(3):
            call(client, safe=safe)
            time.sleep(0.05)  # for its end to arrive
    assert (server.calls, server.connections) == (3, 3)


def test_a_time_out_ends_with_its_deadline() -> None:
    assert Until(0.5, time.monotonic() + 60).left() == 0.5
    assert 0 < Until(30, time.monotonic() + 0.5).left() <= 0.5
    assert Until(30, time.monotonic() - 1).left() <= 0
