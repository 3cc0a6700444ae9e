"""Microseconds for each head or piece of body: ``python tests/performance/bench_http1.py`` (not collected by pytest).

"known" is a head whose field lines were met before, "new" one whose field lines were not.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from lbproxy.wire.http1 import head
from lbproxy.wire.http1.body import ChunkedReader, encode_chunk

WRK = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"

BROWSER = (
    b"GET /shop/articles?page=2&sort=price HTTP/1.1\r\n"
    b"Host: shop.example.com\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="128", "Not;A=Brand";v="24", "Google Chrome";v="128"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-User: ?1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Referer: https://shop.example.com/shop\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    b"\r\n"
)

NGINX = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: nginx/1.22.1\r\n"
    b"Date: Tue, 02 Sep 2025 10:11:12 GMT\r\n"
    b"Content-Type: application/octet-stream\r\n"
    b"Content-Length: 1024\r\n"
    b"Connection: keep-alive\r\n"
    b'ETag: "66d58a2b-400"\r\n'
    b"\r\n"
)


def microseconds(work: Callable[[], object], number: int = 20000) -> float:
    """The best of seven rounds, for one call."""
    return min(timeit.repeat(work, number=number, repeat=7)) / number * 1e6


def report(name: str, known: Callable[[], object], forget: Callable[[], None]) -> None:
    def new() -> None:
        forget()
        known()

    print(f"{name:28} known {microseconds(known):6.2f} us   new {microseconds(new):6.2f} us")


def main() -> None:
    report("request, wrk, 1 field", lambda: head.scan_request(WRK), head._request_blocks.clear)
    report("request, browser, 15 fields", lambda: head.scan_request(BROWSER), head._request_blocks.clear)
    report("response, nginx, 6 fields", lambda: head.scan_response(NGINX), head._response_blocks.clear)
    print(f"{'request, incomplete':28} {microseconds(lambda: head.scan_request(BROWSER[:-2])):12.2f} us")
    small = encode_chunk(b"x" * 100) * 100
    large = encode_chunk(b"x" * 65536)
    print(f"{'100 chunks of 100 bytes':28} {microseconds(lambda: ChunkedReader().receive_data(small), 2000):12.2f} us")
    print(f"{'1 chunk of 64 KiB':28} {microseconds(lambda: ChunkedReader().receive_data(large), 2000):12.2f} us")


if __name__ == "__main__":
    main()
