"""The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).

The code is canonical: among codes of one length the symbols ascend.  So the lengths are all that is written down.
It is read four bits at a time: the code's tree has 256 inner nodes, and no code is shorter than five bits, so a table
of 256 x 16 steps says where four bits lead from each node and which octet, if any, ends on the way.
"""

from __future__ import annotations

from lbproxy.wire.http2.errors import COMPRESSION_ERROR, ConnectionFault

# fmt: off
_LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
)
# fmt: on
"""Of the codes for the octets and, last, for the end of the string (EOS)."""

_EOS = 256
_ROOT = 0

_EMITS = 1
_REFUSED = 2


def _codes() -> list[int]:
    codes = [0] * len(_LENGTHS)
    code = 0
    length = 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        codes[symbol] = code
        code += 1
    return codes


def _tree() -> list[list[int]]:
    """Inner nodes; each has two children: a node's number, or -1 - symbol."""
    nodes: list[list[int]] = [[0, 0]]
    for symbol, (code, length) in enumerate(zip(_codes(), _LENGTHS, strict=True)):
        node = _ROOT
        for at in range(length - 1, 0, -1):
            bit = code >> at & 1
            if not nodes[node][bit]:
                nodes[node][bit] = len(nodes)
                nodes.append([0, 0])
            node = nodes[node][bit]
        nodes[node][code & 1] = -1 - symbol
    return nodes


def _steps() -> tuple[bytes, bytes, bytes, bytes]:
    """For node * 16 + four bits: the node after them, the octet that ended, and flags; and the nodes to end at."""
    nodes = _tree()
    following, octets, flags = bytearray(), bytearray(), bytearray()
    for start in range(len(nodes)):
        for bits in range(16):
            node, octet, flag = start, 0, 0
            for at in (3, 2, 1, 0):
                node = nodes[node][bits >> at & 1]
                if node == -1 - _EOS:
                    node, flag = _ROOT, _REFUSED
                    break
                if node < 0:
                    octet, flag, node = -1 - node, _EMITS, _ROOT
            following.append(node)
            octets.append(octet)
            flags.append(flag)
    # section 5.2: padding is the beginning of EOS, which is all ones, and shorter than eight bits
    final = bytearray(len(nodes))
    node = _ROOT
    for _ in range(8):
        final[node] = 1
        node = nodes[node][1]
    return bytes(following), bytes(octets), bytes(flags), bytes(final)


_FOLLOWING, _OCTETS, _FLAGS, _FINAL = _steps()
_CODES = _codes()


def decode(data: bytes) -> bytes:
    """The octets; raises `ConnectionFault` for what is no whole code with its padding."""
    node = 0
    size = 0
    decoded = bytearray(len(data) * 8 // 5 + 1)
    for at in range(len(data)):
        octet = data[at]
        step = node << 4 | octet >> 4
        flags = _FLAGS[step]
        if flags:
            if flags == _REFUSED:
                raise ConnectionFault("EOS in a Huffman string", COMPRESSION_ERROR, "BadHpack")
            decoded[size] = _OCTETS[step]
            size += 1
        step = _FOLLOWING[step] << 4 | octet & 15
        flags = _FLAGS[step]
        if flags:
            if flags == _REFUSED:
                raise ConnectionFault("EOS in a Huffman string", COMPRESSION_ERROR, "BadHpack")
            decoded[size] = _OCTETS[step]
            size += 1
        node = _FOLLOWING[step]
    if not _FINAL[node]:
        raise ConnectionFault("bad padding of a Huffman string", COMPRESSION_ERROR, "BadHpack")
    return bytes(decoded[:size])


def encode(data: bytes) -> bytes:
    """The coded octets, padded."""
    coded = bytearray()
    held = 0
    bits = 0
    for at in range(len(data)):
        octet = data[at]
        length = _LENGTHS[octet]
        held = held << length | _CODES[octet]
        bits += length
        while bits >= 8:
            bits -= 8
            coded.append(held >> bits & 255)
        held &= (1 << bits) - 1
    if bits:
        coded.append((held << (8 - bits) | 255 >> bits) & 255)
    return bytes(coded)
