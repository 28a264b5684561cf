"""Options of connections by which a dead node at the other end is noticed."""

import socket

TCP_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Probes that detect a dead node during a response that is silent for minutes."""


def enable_tcp_keepalive(sock: socket.socket) -> None:
    """Have a connection fail within about a minute of its peer's end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_KEEPALIVE:
        set_tcp_option(sock, name, value)


def set_tcp_option(sock: socket.socket, name: str, value: int) -> None:
    """Set an option of TCP, such as `TCP_KEEPIDLE`, where the system has it."""
    if option := getattr(socket, name, None):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
