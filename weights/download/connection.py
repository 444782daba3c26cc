"""Connections that cannot be held for ever, and that do not lead into the machine's own infrastructure.

The timeouts of requests are for one `recv` each: a server that sends a byte now and then would never meet them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from detectron_gn.weights.download.addresses import check_host


class Deadline:
    """Ends what a socket does after so many seconds, from another thread; use it in a `with` statement.

    Attributes:
        expired: whether it did. What was being read then ends early, or fails.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.expired = False

    def __enter__(self) -> Deadline:
        self._timer = threading.Timer(self._seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def renew(self) -> None:
        """Let the seconds begin anew."""
        self._timer.cancel()
        self.__enter__()

    def _expire(self) -> None:
        self.expired = True
        with contextlib.suppress(OSError):
            # Not SSLSocket's own method, which would end the encryption under a reader.
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)


def deadline(response: requests.Response, seconds: float) -> Deadline:
    """A Deadline for reading the body of a response of `open_session`."""
    raw: Any = response.raw
    return Deadline(raw.limited_connection, seconds)


@contextlib.contextmanager
def open_session(header_seconds: float) -> Iterator[requests.Session]:
    """A session that heeds proxy variables, and in which an answer's headers must be there after so many seconds."""
    with _Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(header_seconds))
        session.headers["User-Agent"] = "detectron-gn"
        yield session


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: whoever asks follows redirects. requests would read the whole body of each first."""


class _Adapter(HTTPAdapter):
    def __init__(self, header_seconds: float) -> None:
        self._direct = _pools(header_seconds, through_proxy=False)
        self._proxied = _pools(header_seconds, through_proxy=True)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._direct

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = self._proxied
        return manager


def _pools(header_seconds: float, through_proxy: bool) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's pools by scheme, of connections with these limits."""

    class Limits(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            if not through_proxy:
                try:
                    check_host(connection.getpeername()[0])
                except BaseException:
                    connection.close()
                    raise
            return connection

        def getresponse(self) -> Any:
            connection = self.sock
            with Deadline(connection, header_seconds) as headers:
                try:
                    response: Any = super().getresponse()
                except Exception:
                    if headers.expired:
                        raise TimeoutError("timed out") from None
                    raise
            if headers.expired:
                response.close()
                raise TimeoutError("timed out")
            response.limited_connection = connection
            return response

    class LimitsOverTls(Limits, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Limits

    class PoolOverTls(HTTPSConnectionPool):
        ConnectionCls = LimitsOverTls

    return {"http": Pool, "https": PoolOverTls}
