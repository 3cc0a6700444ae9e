"""TLS connections between two OpenSSL endpoints in memory."""

from __future__ import annotations

from OpenSSL import SSL


def shuttle(client: SSL.Connection, server: SSL.Connection) -> None:
    """Handshake until neither side has anything to send; `SSL.Error` of either side is raised."""
    done = set()
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            if one not in done:
                try:
                    one.do_handshake()
                    done.add(one)
                except SSL.WantReadError:
                    pass
            move(one, other)
    assert done == {client, server}


def move(source: SSL.Connection, sink: SSL.Connection) -> None:
    """Carry what one side wants sent to the other."""
    while True:
        try:
            sink.bio_write(source.bio_read(65536))
        except SSL.WantReadError:
            return


def client_connection(
    server_name: bytes | None = None,
    *,
    alpn: list[bytes] | None = None,
    ciphers: bytes | None = None,
    maximum: int = 0,
    signatures: str = "",
    context: SSL.Context | None = None,
) -> SSL.Connection:
    """A client that verifies nothing."""
    if context is None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(maximum)
        if ciphers:
            context.set_cipher_list(ciphers)
        if alpn:
            context.set_alpn_protos(alpn)
    connection = SSL.Connection(context, None)
    if server_name is not None:
        connection.set_tlsext_host_name(server_name)
    connection.set_connect_state()
    return connection
