# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What OpenSSL calls back for a server, in C: the certificate for a server name, ALPN, the keys of tickets.

pyOpenSSL makes the contexts and gives them certificates.  A `ServerContexts` ties those of a listener together and begins
connections with them, without pyOpenSSL's ``Connection``, whose objects and callbacks in Python cost as much as
what they do for a handshake.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uintptr_t
from libc.string cimport memcmp, memcpy

# OpenSSL's own numbers, part of its binary interface since 1.1
cdef enum:
    CTRL_MODE = 33
    CTRL_SET_READ_AHEAD = 41
    CTRL_SET_TLSEXT_SERVERNAME_ARG = 54
    MODE_ENABLE_PARTIAL_WRITE = 1
    MODE_ACCEPT_MOVING_WRITE_BUFFER = 2
    MODE_RELEASE_BUFFERS = 16
    HOST_NAME = 0
    EXT_OK = 0
    EXT_NOACK = 3

ctypedef void* (*new_t)(void* context) noexcept
ctypedef void (*begin_t)(void* ssl) noexcept
ctypedef const char* (*server_name_t)(const void* ssl, int kind) noexcept nogil
ctypedef void* (*switch_t)(void* ssl, void* context) noexcept nogil
ctypedef long (*control_t)(void* context, int what, long number, void* pointer) noexcept
ctypedef int (*set_number_t)(void* context, size_t number) noexcept
ctypedef int (*name_t)(void* ssl, int* alert, void* contexts) noexcept nogil
ctypedef long (*set_name_t)(void* context, name_t callback) noexcept
ctypedef int (*alpn_t)(
    void* ssl,
    const unsigned char** chosen,
    unsigned char* size,
    const unsigned char* offered,
    unsigned int offered_size,
    void* protocols,
) noexcept nogil
ctypedef void (*set_alpn_t)(void* context, alpn_t callback, void* protocols) noexcept

cdef new_t SSL_new
cdef begin_t SSL_set_accept_state
cdef server_name_t SSL_get_servername
cdef switch_t SSL_set_SSL_CTX
cdef control_t SSL_CTX_ctrl
cdef set_number_t SSL_CTX_set_num_tickets
cdef set_name_t SSL_CTX_set_tlsext_servername_callback
cdef set_alpn_t SSL_CTX_set_alpn_select_cb

BOUND = (
    "SSL_new",
    "SSL_set_accept_state",
    "SSL_get_servername",
    "SSL_set_SSL_CTX",
    "SSL_CTX_set_tlsext_servername_callback",
    "SSL_CTX_set_alpn_select_cb",
)
"""Functions of OpenSSL that `bind` must be given and pyOpenSSL binds."""

UNBOUND = ("SSL_CTX_ctrl", "SSL_CTX_set_num_tickets")
"""Others that it must be given."""


def bind(dict addresses):
    """Use these functions of OpenSSL, by name.  Raises `KeyError` if one is missing."""
    global SSL_new, SSL_set_accept_state, SSL_get_servername, SSL_set_SSL_CTX, SSL_CTX_ctrl, SSL_CTX_set_num_tickets
    global SSL_CTX_set_tlsext_servername_callback, SSL_CTX_set_alpn_select_cb
    SSL_new = <new_t><uintptr_t>addresses["SSL_new"]
    SSL_set_accept_state = <begin_t><uintptr_t>addresses["SSL_set_accept_state"]
    SSL_get_servername = <server_name_t><uintptr_t>addresses["SSL_get_servername"]
    SSL_set_SSL_CTX = <switch_t><uintptr_t>addresses["SSL_set_SSL_CTX"]
    SSL_CTX_ctrl = <control_t><uintptr_t>addresses["SSL_CTX_ctrl"]
    SSL_CTX_set_num_tickets = <set_number_t><uintptr_t>addresses["SSL_CTX_set_num_tickets"]
    SSL_CTX_set_tlsext_servername_callback = <set_name_t><uintptr_t>addresses["SSL_CTX_set_tlsext_servername_callback"]
    SSL_CTX_set_alpn_select_cb = <set_alpn_t><uintptr_t>addresses["SSL_CTX_set_alpn_select_cb"]


cdef class ServerContexts:
    """The contexts of one listener, as their addresses, and what is chosen from them in a handshake.

    ``by_name`` goes from server names in lower case, exact or with ``*`` as the whole first label, to contexts;
    ``protocols`` are those of ALPN, best first.  ``kept`` are the objects that own the contexts, the default's first.  The
    contexts point to this object: every connection made from one of them must keep it, or what keeps it.
    """

    def __init__(self, uintptr_t default, dict by_name, tuple protocols, tuple contexts, tuple kept):
        cdef void* context
        self.context = kept[0]
        self.default = <void*>default
        # Most listeners serve one certificate: then there is nothing to look up.
        self.by_name = by_name if any(each != default for each in by_name.values()) else None
        self.protocols = b"".join([bytes((len(each),)) + each for each in protocols])
        self.kept = kept
        for address in contexts:
            context = <void*><uintptr_t>address
            SSL_CTX_ctrl(
                context, CTRL_MODE, MODE_ENABLE_PARTIAL_WRITE | MODE_ACCEPT_MOVING_WRITE_BUFFER | MODE_RELEASE_BUFFERS, NULL
            )
            # A record takes one system call instead of two (its head, then its body).
            SSL_CTX_ctrl(context, CTRL_SET_READ_AHEAD, 1, NULL)
            # A second ticket, which OpenSSL would send, costs a twentieth of a handshake.  A client that resumes gets
            # another.
            SSL_CTX_set_num_tickets(context, 1)
            SSL_CTX_set_tlsext_servername_callback(context, choose_context)
            SSL_CTX_ctrl(context, CTRL_SET_TLSEXT_SERVERNAME_ARG, 0, <void*>self)
            if protocols:
                SSL_CTX_set_alpn_select_cb(context, choose_protocol, PyBytes_AS_STRING(self.protocols))

    cdef void* begin(self) except NULL:
        """Make an ``SSL`` for a connection, which whoever asks frees."""
        cdef void* ssl = SSL_new(self.default)
        if ssl == NULL:
            raise MemoryError
        SSL_set_accept_state(ssl)
        return ssl

    cdef size_t context_for(self, bytes name) except? 0:
        name = name.lower().rstrip(b".")
        found = self.by_name.get(name)
        if found is None:
            label, dot, rest = name.partition(b".")
            found = self.by_name.get(b"*" + dot + rest) if dot else None
        return <size_t>self.default if found is None else found


cdef int choose_context(void* ssl, int* alert, void* contexts) noexcept nogil:
    """OpenSSL has read the server name, or that there is none."""
    cdef const char* name = SSL_get_servername(ssl, HOST_NAME)
    if name != NULL:
        switch_context(ssl, name, contexts)
    return EXT_OK


cdef void switch_context(void* ssl, const char* name, void* contexts) noexcept with gil:
    cdef ServerContexts chooser = <ServerContexts>contexts
    cdef void* context
    if chooser.by_name is not None:
        context = <void*>chooser.context_for(<bytes>name)
        if context != chooser.default:
            SSL_set_SSL_CTX(ssl, context)


cdef int choose_protocol(
    void* ssl,
    const unsigned char** chosen,
    unsigned char* size,
    const unsigned char* offered,
    unsigned int offered_size,
    void* protocols,
) noexcept nogil:
    """Take the first of ours that the client offers; else go on without ALPN.

    Both are lists of a length and a name each; ours ends with a length of 0.
    """
    cdef const unsigned char* ours = <const unsigned char*>protocols
    cdef unsigned int at
    while ours[0]:
        at = 0
        while at < offered_size and offered[at] < offered_size - at:
            if offered[at] == ours[0] and memcmp(offered + at + 1, ours + 1, ours[0]) == 0:
                chosen[0] = offered + at + 1
                size[0] = ours[0]
                return EXT_OK
            at += 1 + offered[at]
        ours += 1 + ours[0]
    return EXT_NOACK


# Session tickets (RFC 5077, RFC 8446 section 4.6.1) with keys from outside

cdef enum:
    NAME = 16
    KEY = 32
    TICKET_KEY = 80  # name, key of the cipher, key of the MAC
    TICKET_KEYS = 4
    TLS13 = 0x0304
    PARAM_UTF8_STRING = 4
    PARAM_OCTET_STRING = 5

cdef struct Param:  # OpenSSL's OSSL_PARAM
    const char* key
    unsigned int data_type
    void* data
    size_t data_size
    size_t return_size

ctypedef int (*ticket_t)(
    void* ssl, unsigned char* name, unsigned char* iv, void* cipher, void* mac, int encrypt
) noexcept nogil
ctypedef int (*set_ticket_t)(void* context, ticket_t callback) noexcept nogil
ctypedef int (*set_params_t)(void* mac, const Param* params) noexcept nogil
ctypedef int (*init_t)(void* cipher, const void* kind, void* engine, const unsigned char* key, const unsigned char* iv) \
    noexcept nogil
ctypedef const void* (*kind_t)() noexcept nogil
ctypedef int (*version_t)(void* ssl) noexcept nogil
ctypedef int (*random_t)(unsigned char* data, int size) noexcept nogil

cdef set_ticket_t SSL_CTX_set_tlsext_ticket_key_evp_cb
cdef set_params_t EVP_MAC_CTX_set_params
cdef init_t EVP_EncryptInit_ex, EVP_DecryptInit_ex
cdef kind_t EVP_aes_256_cbc
cdef random_t RAND_bytes
cdef version_t SSL_version

cdef unsigned char ticket_keys[TICKET_KEYS][TICKET_KEY]
cdef int ticket_key_count = 0


TICKETS = (
    "SSL_CTX_set_tlsext_ticket_key_evp_cb",
    "EVP_MAC_CTX_set_params",
    "EVP_EncryptInit_ex",
    "EVP_DecryptInit_ex",
    "EVP_aes_256_cbc",
    "RAND_bytes",
    "SSL_version",
)
"""Functions that `bind_tickets` must be given, none of which pyOpenSSL binds."""


def bind_tickets(dict addresses):
    """Use these functions of OpenSSL for tickets."""
    global SSL_CTX_set_tlsext_ticket_key_evp_cb, EVP_MAC_CTX_set_params, EVP_EncryptInit_ex, EVP_DecryptInit_ex
    global EVP_aes_256_cbc, RAND_bytes, SSL_version
    SSL_CTX_set_tlsext_ticket_key_evp_cb = <set_ticket_t><uintptr_t>addresses["SSL_CTX_set_tlsext_ticket_key_evp_cb"]
    EVP_MAC_CTX_set_params = <set_params_t><uintptr_t>addresses["EVP_MAC_CTX_set_params"]
    EVP_EncryptInit_ex = <init_t><uintptr_t>addresses["EVP_EncryptInit_ex"]
    EVP_DecryptInit_ex = <init_t><uintptr_t>addresses["EVP_DecryptInit_ex"]
    EVP_aes_256_cbc = <kind_t><uintptr_t>addresses["EVP_aes_256_cbc"]
    SSL_version = <version_t><uintptr_t>addresses["SSL_version"]
    RAND_bytes = <random_t><uintptr_t>addresses["RAND_bytes"]


def use_ticket_keys(tuple keys not None):
    """Encrypt tickets with the first of these keys of 80 bytes, accept those of all."""
    global ticket_key_count
    if not 1 <= len(keys) <= TICKET_KEYS or any(type(key) is not bytes or len(key) != TICKET_KEY for key in keys):
        raise ValueError("not one to four keys of 80 bytes")
    for index in range(len(keys)):
        memcpy(ticket_keys[index], PyBytes_AS_STRING(<bytes>keys[index]), TICKET_KEY)
    ticket_key_count = len(keys)


def share_tickets(uintptr_t context):
    """Have the ``SSL_CTX`` at this address use these keys."""
    SSL_CTX_set_tlsext_ticket_key_evp_cb(<void*>context, ticket_key)


cdef int ticket_key(
    void* ssl, unsigned char* name, unsigned char* iv, void* cipher, void* mac, int encrypt
) noexcept nogil:
    """Called back by OpenSSL to encrypt or decrypt a ticket: 1 to go on, 0 for a key unknown, 2 to renew the ticket."""
    cdef int index = 0
    if encrypt:
        memcpy(name, ticket_keys[0], NAME)
        if RAND_bytes(iv, 16) != 1:
            return -1
        if EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, ticket_keys[0] + NAME, iv) != 1:
            return -1
        return 1 if set_mac_key(mac, ticket_keys[0] + NAME + KEY) else -1
    while index < ticket_key_count and memcmp(name, ticket_keys[index], NAME) != 0:
        index += 1
    if index == ticket_key_count:
        return 0
    if not set_mac_key(mac, ticket_keys[index] + NAME + KEY):
        return -1
    if EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, ticket_keys[index] + NAME, iv) != 1:
        return -1
    # A TLS 1.3 client uses a ticket once (RFC 8446 appendix C.4): it needs another.
    return 1 if index == 0 and SSL_version(ssl) < TLS13 else 2


cdef bint set_mac_key(void* mac, unsigned char* key) noexcept nogil:
    cdef Param params[3]
    params[0] = Param(b"key", PARAM_OCTET_STRING, key, KEY, <size_t>-1)
    params[1] = Param(b"digest", PARAM_UTF8_STRING, <void*><const char*>b"SHA256", 6, <size_t>-1)
    params[2] = Param(NULL, 0, NULL, 0, 0)
    return EVP_MAC_CTX_set_params(mac, params) == 1
