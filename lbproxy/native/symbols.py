"""Where the functions of the OpenSSL that pyOpenSSL uses are in memory.

The wheels of ``cryptography`` carry OpenSSL inside one shared object.  What pyOpenSSL binds is found through its cffi
library.  A few functions more make TLS cheaper or let processes share ticket keys; they are not exported, but where
the object has kept its symbol table they are in it.  That is believed only if what cffi says of functions which it
does know agrees with the table.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator

_SYMTAB = 2
_FUNCTION = 2
_PAGE = 4096

_WITNESSES = ("SSL_read", "SSL_write", "SSL_do_handshake", "SSL_get_error", "SSL_CTX_set_mode", "SSL_new")
"""Functions that cffi knows, through wrappers of its own with a known name."""


def bound(names: Iterable[str]) -> dict[str, int]:
    """Give the addresses of functions that pyOpenSSL binds; those it does not are left out."""
    from cryptography.hazmat.bindings._rust import _openssl

    lib, ffi = _openssl.lib, _openssl.ffi
    return {name: int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in names if hasattr(lib, name)}


def unbound(names: Iterable[str]) -> dict[str, int]:
    """Give the addresses of other functions of the same OpenSSL: all of them, or none."""
    wanted = set(names)
    try:
        from cryptography.hazmat.bindings import _rust

        path: str = _rust.__file__
        offsets = _offsets(path, wanted | {f"_cffi_d_{name}" for name in _WITNESSES})
    except (ImportError, AttributeError, OSError, ValueError, struct.error):
        return {}
    witnesses = bound(_WITNESSES)
    bases = {address - offsets.get(f"_cffi_d_{name}", 0) for name, address in witnesses.items()}
    if len(witnesses) != len(_WITNESSES) or len(bases) != 1:
        return {}
    base = bases.pop()
    if base % _PAGE or base not in _mapped(path) or not wanted <= offsets.keys():
        return {}
    return {name: base + offsets[name] for name in wanted}


def _mapped(path: str) -> set[int]:
    """Where this process has mapped the beginning of a file."""
    found = set()
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(None, 5)
            if len(fields) == 6 and fields[5] == path and int(fields[2], 16) == 0:
                found.add(int(fields[0].partition("-")[0], 16))
    return found


def _offsets(path: str, wanted: set[str]) -> dict[str, int]:
    """Give the values of functions in a 64-bit ELF file's symbol table; a name used twice is left out."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        for symbols, names in _symbol_tables(image):
            return _find(image[slice(*symbols)], image[slice(*names)], wanted)
    return {}


def _symbol_tables(image: mmap.mmap) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a symbol table and its names begin and end (System V ABI, "Section Header")."""
    order = {1: "<", 2: ">"}.get(image[5])
    if image[:4] != b"\x7fELF" or image[4] != 2 or order is None:
        return
    (table,) = struct.unpack_from(f"{order}Q", image, 40)
    size, count = struct.unpack_from(f"{order}HH", image, 58)
    sections = [struct.unpack_from(f"{order}IIQQQQIIQQ", image, table + index * size) for index in range(count)]
    for section in sections:
        if section[1] == _SYMTAB and order == "<":
            names = sections[section[6]]
            yield (section[4], section[4] + section[5]), (names[4], names[4] + names[5])


def _find(symbols: bytes, names: bytes, wanted: set[str]) -> dict[str, int]:
    at = {}
    for name in wanted:
        position = names.find(b"\0%b\0" % name.encode("ascii"))
        if position >= 0:
            at[position + 1] = name
    found: dict[str, int] = {}
    twice = set()
    for at_name, info, _, _, value, _ in struct.iter_unpack("<IBBHQQ", symbols):
        this = at.get(at_name)
        if this is not None and info & 15 == _FUNCTION and value and found.setdefault(this, value) != value:
            twice.add(this)
    return {name: value for name, value in found.items() if name not in twice}
