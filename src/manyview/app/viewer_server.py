"""The web server behind the viewer: on the address asked for or not at all, and never published.

This module imports viser, which is an extra; import it inside functions.
"""

from __future__ import annotations

import errno
import os
import socket

import viser

from manyview.errors import InputError

__all__ = ["open_server"]


class LocalServer(viser.ViserServer):
    """A viser server that opens no public tunnel, whatever a browser asks for."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Refuse: viser would connect this server to a public address."""
        return None


def open_server(host: str, port: int, label: str) -> LocalServer:
    """Start to serve on `host`:`port`; port 0 takes any free one.

    Raises:
        InputError: the port is taken or not allowed, or the address is not this machine's.
    """
    # viser would go on to other ports without a word, and wait for ever if none can be had.
    _check_free(host, port)
    server = LocalServer(host=host, port=port, label=label, verbose=False)
    if port and server.get_port() != port:
        server.stop()
        raise _taken(host, port)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    return server


def _check_free(host: str, port: int) -> None:
    if not 0 <= port <= 65535:
        raise InputError(f"got port {port}", hint="Give a number from 1024 to 65535 with --port, or 0 for any.")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InputError(f"{host!r} is not an address: {error}", hint="Use --host 127.0.0.1.") from error
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # as the server does: a port that was left a moment ago counts as free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise _refused(host, port, error) from error


def _refused(host: str, port: int, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return _taken(host, port)
    return InputError(
        f"cannot serve on {host}, port {port}: {error.strerror}",
        hint="Use --host 127.0.0.1 and a --port from 1024 to 65535.",
    )


def _taken(host: str, port: int) -> InputError:
    return InputError(
        f"port {port} on {host} is already in use by another program",
        hint=f"Choose another one, such as --port {port + 1 if port < 65535 else 8080}, or --port 0 for any free one.",
    )
