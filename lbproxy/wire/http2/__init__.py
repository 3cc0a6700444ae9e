"""The codec of HTTP/2 (RFC 9113) with its header compression (RFC 7541), for both ends of a connection.

`connection.Connection` is all that its users see, with the `events` it returns and the `stream.Stream` that each
is about:

* ``receive_data(data, now)`` takes bytes in any split and returns events, few for each request: one with all of its
  content in one read is one `events.REQUEST`. It raises `RemoteProtocolError` when the connection has to end.
* ``send_request`` (client), ``send_response``, ``send_data``, ``send_end``, ``reset`` write frames, and
  ``data_to_send()`` fetches what gathered, for one write a turn; also after ``receive_data``, even if it raised.
* ``send_data`` says False when the peer's windows hold something back: give no more until the stream's
  `events.WRITABLE`. With ``blocked = True`` all content waits, for a transport that is full, until ``unblock()``.
* ``hold(stream)`` stops asking the peer for more content, ``release(stream)`` goes on.
* ``stream.owner`` is the user's, so that an event finds whom it concerns without a look-up.

Heads are those of `lbproxy.wire.http1.head`, whose scanner reads them too: one copy of the rules.
"""
