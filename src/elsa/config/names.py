"""Names of the parties of a run: their certificates and logs carry them."""


def numbered(kind: str, count: int) -> list[str]:
    """ "edge-0", "edge-1" and so on, with as many digits as the last one takes."""
    width = len(str(count - 1))
    return [f"{kind}-{number:0{width}d}" for number in range(count)]
