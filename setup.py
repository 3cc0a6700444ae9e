"""The compiled modules, and the twistd plug-in that lives outside the package; the rest is in pyproject.toml.

``LBPROXY_NATIVE`` in the environment says what becomes of the compiled modules: ``require`` makes failing to build them
an error, ``off`` leaves them out; otherwise they are built where that can be done.
"""

import os
import sys

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NATIVE = (
    "native/_clock.pyx",
    "native/_ids.pyx",
    "native/_prefixes.pyx",
    "native/_relay.pyx",
    "native/_loop.pyx",
    "native/_address.pyx",
    "native/_stream.pyx",
    "native/_accept.pyx",
    "native/_contexts.pyx",
    "native/_tls.pyx",
    "native/_http1.pyx",
    "telemetry/_jsonline.pyx",
)
HOT = (
    "native/protocol.py",
    "wire/http2/huffman.py",
    "wire/http2/fieldline.py",
    "wire/http2/hpack.py",
    "wire/http2/encoder.py",
    "wire/http2/frames.py",
    "wire/http2/events.py",
    "wire/http2/stream.py",
    "wire/http2/abuse.py",
    "wire/http2/heads.py",
    "wire/http2/sending.py",
    "wire/http2/control.py",
    "wire/http2/connection.py",
    "wire/websocket.py",
    "telemetry/records.py",
    "telemetry/histograms.py",
    "telemetry/counters.py",
    "telemetry/accesslog.py",
    "dataplane/router/groups.py",
    "dataplane/router/table.py",
    "dataplane/proxy/forwarded.py",
    "dataplane/proxy/runtime.py",
    "dataplane/proxy/ends.py",
    "dataplane/proxy/exchange.py",
    "dataplane/upstream/http1.py",
    "dataplane/upstream/http2.py",
    "dataplane/upstream/multiplex.py",
    "dataplane/upstream/pool.py",
    "dataplane/listener/http1.py",
    "dataplane/listener/http2.py",
    "dataplane/listener/http2stream.py",
    "dataplane/l4/tcp.py",
    "dataplane/l4/front.py",
    "dataplane/deadlines.py",
    "dataplane/upstream/connector.py",
)
"""Ordinary Python that every request passes; the .pxd file beside each gives its classes their types in C."""

HOT_DIRECTIVES = {"annotation_typing": False, "nonecheck": True}
"""What is in the .pxd counts, not the annotations; and where nothing is, an exception, not a crash."""


def native_modules():
    setting = os.environ.get("LBPROXY_NATIVE", "")
    if setting not in ("", "off", "require"):
        raise SystemExit(f"LBPROXY_NATIVE is {setting!r}; it may be off, require or unset")
    if setting == "off" or not sys.platform.startswith("linux"):
        return []
    try:
        from Cython.Build import cythonize

        workers = os.cpu_count() or 1
        return [
            *cythonize([extension(path) for path in NATIVE], build_dir="build/cython", nthreads=workers),
            *cythonize(
                [extension(path) for path in HOT],
                build_dir="build/cython",
                nthreads=workers,
                compiler_directives=HOT_DIRECTIVES,
            ),
        ]
    except Exception as problem:
        if setting == "require":
            raise
        print(f"warning: the native modules are left out: {problem}", file=sys.stderr)
        return []


def extension(path):
    name = "lbproxy." + os.path.splitext(path)[0].replace("/", ".")
    flags = ["-O2", "-g0", *os.environ.get("LBPROXY_NATIVE_CFLAGS", "").split()]
    return Extension(
        name,
        [f"lbproxy/{path}"],
        extra_compile_args=flags,
        extra_link_args=os.environ.get("LBPROXY_NATIVE_LDFLAGS", "").split(),
    )


class BuildAll(build_ext):
    """All or none: compiled modules call each other directly, so half of them would be worse than nothing."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()  # set here it counts in editable installs as well

    def run(self):
        try:
            super().run()
        except Exception as problem:
            if os.environ.get("LBPROXY_NATIVE") == "require":
                raise
            print(f"warning: the native modules are left out: {problem}", file=sys.stderr)
            for path in self.get_outputs():
                if os.path.exists(path):
                    os.remove(path)
            self.extensions = []


setup(
    packages=[*find_packages(include=["lbproxy", "lbproxy.*"]), "twisted.plugins"],
    package_data={"twisted.plugins": ["lbproxy_plugin.py"], "lbproxy": ["py.typed", "*/*.pyi"]},
    ext_modules=native_modules(),
    cmdclass={"build_ext": BuildAll},
)
