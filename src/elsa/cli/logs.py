"""What a party of a deployment says on standard error: lines for people, or JSON lines."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from elsa.cli.stopping import say
from elsa.record.events import EVENT, Event

Style = Literal["human", "json"]
_TOLD = ("peer", "reason", "event")
"""What a record may hold besides its message, and is told as fields of their own."""
_log = logging.getLogger("elsa")


class JsonLines(logging.Formatter):
    """A record as a JSON object on one line: time (UTC), level, party, message; who and why."""

    def __init__(self, party: str) -> None:
        super().__init__()
        self._party = party

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {
            "time": when,
            "level": record.levelname.lower(),
            "party": self._party,
            "message": record.getMessage(),
        }
        told |= {name: getattr(record, name) for name in _TOLD if hasattr(record, name)}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def set_up(style: Style, party: str) -> Callable[[str], None]:
    """Log to standard error in this style; gives what says a line for people in it."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonLines(party))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.captureWarnings(style == "json")
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return _log.info if style == "json" else say


def tell(event: Event) -> None:
    """Log an event of a run, its fields under `event`."""
    fields = json.loads(EVENT.dump_json(event))
    _log.info(fields["kind"].replace("_", " "), extra={"event": fields})
