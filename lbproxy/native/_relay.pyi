class Flow:
    moved: int
    last: float

    def settle(self) -> int: ...

def pipes_open() -> int: ...
