"""The class that Ray starts in a process: it imports nothing heavy before it is told to build."""

from typing import Any


class Process:
    """An edge's process: passes calls to a `Host`, whose `news` may be asked for meanwhile."""

    def __init__(self) -> None:
        from elsa.model.lean import import_lean

        import_lean()
        from elsa.engine.ray.host import Host

        self._host = Host()

    def do(self, method: str, *args: Any) -> Any:
        """Call a method of the host."""
        return getattr(self._host, method)(*args)

    def news(self) -> list[Any]:
        """See `Host.news`; comes while `do` is under way."""
        return self._host.news()
