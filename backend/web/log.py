import logging
import time


class OncePerMinute(logging.Filter):
    """Passes the same message once a minute, in one line: code that retries every second would fill the log."""

    every_s = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message, now = (record.name, record.msg), time.monotonic()
        if now - self._passed_at.get(message, -self.every_s) < self.every_s:
            return False
        self._passed_at[message] = now
        if record.exc_info:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]}", None
            record.exc_info = record.exc_text = None
        return True


class WithoutUnavailable(logging.Filter):
    """Drops Django's line for each response with a 503: whatever is not available is logged by itself, once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


class WithoutMalformedText(logging.Filter):
    """Drops uvicorn's traceback for a text frame that is not UTF-8. Its client gets the close code 1007."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != "Invalid UTF-8 sequence received from client."
