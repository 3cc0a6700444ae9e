"""Tokens and passwords: in files, so that they stand neither in the configuration nor in a process's environment."""

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


def _file(text: str) -> str:
    path = text.removeprefix("file:").strip()
    if not text.startswith("file:") or not path:
        raise ValueError("write file:PATH, with the password in that file")
    return path


PASSWORD: Form[str] = Form("file:PATH", _file)
"""Path of the file."""


def password_of(data: bytes, path: str) -> str:
    """Give the password in a file: its one line.  Raises ValueError without showing it."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if len(lines) != 1 or not lines[0]:
        raise ValueError(f"{path} has {len(lines)} lines; it needs one, the password")
    return lines[0]


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
