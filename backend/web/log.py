import logging
import time


class NowAndThen(logging.Filter):
    """Lets the same complaint pass once a minute, in one line: what is tried every second would fill the log."""

    every_s = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        complaint, now = (record.name, record.msg), time.monotonic()
        if now - self._passed_at.get(complaint, -self.every_s) < self.every_s:
            return False
        self._passed_at[complaint] = now
        if record.exc_info:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]}", None
            record.exc_info = record.exc_text = None
        return True
