from typing import Any

BOUND: tuple[str, ...]
UNBOUND: tuple[str, ...]
TICKETS: tuple[str, ...]

class ServerContexts:
    def __init__(
        self,
        default: int,
        by_name: dict[bytes, int],
        protocols: tuple[bytes, ...],
        contexts: tuple[int, ...],
        kept: tuple[Any, ...],
    ) -> None: ...

def bind(addresses: dict[str, int]) -> None: ...
def bind_tickets(addresses: dict[str, int]) -> None: ...
def use_ticket_keys(keys: tuple[bytes, ...]) -> None: ...
def share_tickets(context: int) -> None: ...
