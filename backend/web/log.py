"""The log of every process: web, worker and Beat."""

import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

_LINE_CHARACTERS = 200


@dataclass
class _Kind:
    """Records that differ in their arguments alone."""

    logger: str
    level: int
    example: str
    repeats: int = 0


class CountingHandler(logging.StreamHandler[TextIO]):
    """Writes the first warning or error of its kind in a minute in full, and counts the others in one line.

    Records are of a kind if they have their logger, their message before formatting, and the type and place of their
    exception in common. Kinds beyond `max_kinds` count as one per logger: some libraries log texts that are formatted
    already. The line with the count follows after the minute, or when the process exits.
    """

    period_s = 60.0
    max_kinds = 300

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._began_at = 0.0
        self._timer: threading.Timer | None = None  # runs while something is counted
        os.register_at_fork(after_in_child=self._kinds.clear)  # the parent writes its counts

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count a record. `logging` holds the lock of the handler meanwhile, also while it forks."""
        try:
            is_repeated = record.levelno >= logging.WARNING and self._is_repeated(record)
        except Exception:
            self.handleError(record)
        else:
            if not is_repeated:
                super().emit(record)

    def close(self) -> None:
        """Write the counts. `logging` calls this when the process exits."""
        self._end_period()
        super().close()

    def _is_repeated(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now >= self._began_at + self.period_s:
            self._end_period()
            self._began_at = now
        key = _key_of(record)
        if key not in self._kinds and len(self._kinds) >= self.max_kinds:
            key = (record.name,)
        kind = self._kinds.get(key)
        if kind is None:
            self._kinds[key] = _Kind(record.name, record.levelno, _first_line(record.getMessage()))
            return False
        kind.repeats += 1
        if self._timer is None or not self._timer.is_alive():  # threads end in a fork
            self._timer = threading.Timer(self._began_at + self.period_s - now, self._end_period)
            self._timer.daemon = True
            with suppress(RuntimeError):  # there are too many threads, or the process exits
                self._timer.start()
        return True

    def _end_period(self) -> None:
        assert self.lock is not None
        with self.lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            seconds = round(time.monotonic() - self._began_at)
            for kind in self._kinds.values():
                if kind.repeats:
                    times = "once" if kind.repeats == 1 else f"{kind.repeats:,} times"
                    text = f"{kind.example} ... repeated {times} in {seconds} s"
                    super().emit(logging.LogRecord(kind.logger, kind.level, "", 0, text, None, None))
            self._kinds.clear()


def _key_of(record: logging.LogRecord) -> tuple[str, ...]:
    template = _first_line(str(record.msg))
    if not record.exc_info or record.exc_info[0] is None:
        return record.name, template
    traceback = record.exc_info[2]
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    place = "" if traceback is None else f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
    return record.name, template, record.exc_info[0].__qualname__, place


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:_LINE_CHARACTERS]


class WithoutUnavailable(logging.Filter):
    """Drops Django's line for each response with a 503: whatever is not available is logged by itself, once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


class WithoutMalformedText(logging.Filter):
    """Drops uvicorn's traceback for a text frame that is not UTF-8. Its client gets the close code 1007."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != "Invalid UTF-8 sequence received from client."
