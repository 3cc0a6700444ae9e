"""Tokens: secrets in files, so that they stand neither in the configuration nor in a process's environment."""

from __future__ import annotations

from lbproxy.controlplane.config.values import Form, items

SHORTEST_TOKEN = 16


def _files(text: str) -> tuple[str, ...]:
    paths = []
    for item in items(text):
        path = item.removeprefix("file:").strip()
        if not item.startswith("file:") or not path:
            raise ValueError("write file:PATH, with one token in each line of the file")
        paths.append(path)
    return tuple(paths)


TOKENS: Form[tuple[str, ...]] = Form("file:PATH, or several", _files)
"""Paths of the files."""


def tokens_of(data: bytes, path: str) -> list[str]:
    """Give the tokens in a file: its lines, without empty ones and comments.  Raises ValueError without showing one."""
    try:
        lines = [line.strip() for line in data.decode("ascii").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not ASCII text") from None
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise ValueError(f"{path} has no token; make one with: openssl rand -hex 32 > {path}")
    for token in tokens:
        if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
            raise ValueError(
                f"{path} has a token that is shorter than {SHORTEST_TOKEN} characters or has blanks in it; "
                f"make one with: openssl rand -hex 32 > {path}"
            )
    return tokens
