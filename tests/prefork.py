"""A process that imports modules once and forks often: `python -m tests.prefork MODULE...`, used by `tests.processes`.

Its standard input is a socket, from which it receives orders until the other end is closed. An order is a module, its
arguments and its environment, with four descriptors: a connection and the standard streams. A fork runs the module like
`python -m`, without the imports, which take most of the time of a start.

Each order has a supervisor, which is a fork too. It sends the process id on the connection, then the exit code, and
kills the process when the other end is closed.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import TypedDict

from django.conf import settings

# Imported after the fork: it creates an event loop, which processes cannot share.
LATER = "daphne.server"
ORDER_BYTES = 2**17


class Order(TypedDict):
    module: str
    arguments: list[str]
    environment: dict[str, str]


def main(modules: list[str]) -> None:
    sys.modules[LATER] = ModuleType(LATER)
    for name in modules:
        import_module(name)
    del sys.modules[LATER]
    gc.collect()
    gc.freeze()  # a collection in a fork would copy shared memory
    order = receive_order()
    if order is not None:
        run(order)


def receive_order() -> Order | None:
    """Return the order in each fork that runs one, and None in this process when the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    orders = socket.socket(fileno=sys.stdin.fileno())
    while True:
        text, descriptors, _, _ = socket.recv_fds(orders, ORDER_BYTES, 4)
        if not text:
            return None
        if os.fork() == 0:
            orders.detach()
            return supervise(json.loads(text), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def supervise(order: Order, connection: int, *streams: int) -> Order:
    """Fork the process that runs the order, and return in it. The supervisor ends in this function."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    for number, stream in enumerate(streams):
        os.dup2(stream, number) if process == 0 else os.close(number)
        os.close(stream)
    if process == 0:
        os.close(connection)
        return order
    with suppress(OSError):
        os.write(connection, b"%d\n" % process)
        if connection in select.select([connection, os.pidfd_open(process)], [], [])[0]:
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.write(connection, b"%d\n" % code)
    os._exit(0)


def run(order: Order) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["environment"])
    if "SERVER" in os.environ and settings.configured:
        settings.SERVER = os.environ["SERVER"]  # which no module reads when it is imported
    sys.argv = [order["module"], *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
