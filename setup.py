"""The compiled modules, and the twistd plug-in that lives outside the package; the rest is in pyproject.toml.

``LBPROXY_NATIVE`` in the environment says what becomes of the compiled modules: ``require`` makes failing to build them
an error, ``off`` leaves them out; otherwise they are built where that can be done.
"""

import os
import sys

from setuptools import Extension, find_packages, setup

MODULES = ("_loop", "_stream", "_http1")


def native_modules():
    setting = os.environ.get("LBPROXY_NATIVE", "")
    if setting not in ("", "off", "require"):
        raise SystemExit(f"LBPROXY_NATIVE is {setting!r}; it may be off, require or unset")
    if setting == "off" or not sys.platform.startswith("linux"):
        return []
    try:
        from Cython.Build import cythonize

        return cythonize(
            [
                Extension(
                    f"lbproxy.native.{name}",
                    [f"lbproxy/native/{name}.pyx"],
                    extra_compile_args=["-O2", *os.environ.get("LBPROXY_NATIVE_CFLAGS", "").split()],
                    optional=setting != "require",
                )
                for name in MODULES
            ],
            build_dir="build/cython",
        )
    except Exception as problem:
        if setting == "require":
            raise
        print(f"warning: the native modules are left out: {problem}", file=sys.stderr)
        return []


setup(
    packages=[*find_packages(include=["lbproxy", "lbproxy.*"]), "twisted.plugins"],
    package_data={"twisted.plugins": ["lbproxy_plugin.py"], "lbproxy": ["py.typed", "native/*.pyi"]},
    ext_modules=native_modules(),
)
