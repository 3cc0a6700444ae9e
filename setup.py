"""The twistd plug-in lives outside the package, so it is named here; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lbproxy", "lbproxy.*"]), "twisted.plugins"],
    package_data={"twisted.plugins": ["lbproxy_plugin.py"], "lbproxy": ["py.typed"]},
)
