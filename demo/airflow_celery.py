"""An Airflow with the CeleryExecutor on this machine, for the demo and `make test-celery`.

The broker is a real Redis (or Valkey), the metadata are in Postgres. Each worker has a network, a
host name, processes and files of its own (Linux namespaces, which needs root): its copy of the
DAGs, of the Meltano project and of the accounts file, all at the same paths. Workers reach the
others over a bridge only, so that one of them can be cut off.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meltano_project
import psycopg
from airflow_home import COMMAND, ROOT, Airflow, copy_dags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import embedded

BRIDGE = "tapbalance0"
NETWORK = "10.213.77"
GATEWAY = f"{NETWORK}.1"
SANDBOX_PORT = 8642
SANDBOX = ROOT / ".venv" / "bin" / "tap-balance-sandbox"
BROKER_SECRET = "broker-secret"  # noqa: S105 - of this machine's own broker
METADATA_SECRET = "metadata-secret"  # noqa: S105
RECOVERY = {
    # A worker that was killed, or is cut off, is noticed after this many seconds without a sign of
    # a task (default: 300), and what was lost with the broker is queued again (default: 600).
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "15",
    # A worker must not hold tasks that it has no place for: they would be lost with it.
    "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
}
"""Settings that shorten the recovery; docs/airflow.md lists them."""


class Gate(socketserver.ThreadingTCPServer):
    """Passes TCP connections on to a Unix socket, until it is closed for a while.

    Args:
        target: The socket.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target: Path) -> None:
        super().__init__((GATEWAY, 0), _GateHandler)
        self.target = str(target)
        self.is_open = True
        self.connections: set[socket.socket] = set()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Break all connections, and refuse new ones."""
        self.is_open = False
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        yield
        self.is_open = True


class _GateHandler(socketserver.BaseRequestHandler):
    server: Gate
    request: socket.socket

    def handle(self) -> None:
        if not self.server.is_open:
            return
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(self.server.target)
            self.server.connections |= {self.request, other}
            back = threading.Thread(target=_pump, args=(other, self.request), daemon=True)
            back.start()
            _pump(self.request, other)
            back.join()
            self.server.connections -= {self.request, other}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Worker:
    """A machine with a Celery worker, and a sandbox on its loopback.

    Args:
        cluster: What it belongs to.
        number: 1, 2, ...
    """

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.name = f"worker-{number}"
        self.files = cluster.home / self.name
        self.accounts = self.files / "accounts.jsonl"
        self._cluster = cluster
        self._address = f"{NETWORK}.{number + 1}"
        self.network = f"tapbalance-{number}"
        self._link = f"tapbal{number}"
        self._processes: list[subprocess.Popen[bytes]] = []
        meltano_project.make(self.files / "project")
        copy_dags(self.files / "dags", cluster.constants)
        (self.files / "tmp").mkdir(exist_ok=True)

    def connect(self) -> None:
        """Make the network, and start what stands in for the API."""
        _ip("netns", "add", self.network)
        _ip("link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self.network)
        _ip("link", "set", self._link, "master", BRIDGE, "up")
        for arguments in (
            ("addr", "add", f"{self._address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.network, *arguments)
        command = [SANDBOX, f"--port={SANDBOX_PORT}", f"--latency={self._cluster.latency}"]
        # It prints its accounts with their secrets.
        quiet = ["sh", "-c", 'exec "$@" > /dev/null', "sh"]
        self._processes.append(self._start("sandbox", [*self._inside(), *quiet, *command]))

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the Celery worker, with more in its environment."""
        # The project is read-only, as in an image.
        script = (
            'hostname "$1" && mount --bind "$2" "$3" && cd "$3" && mount --bind project project && '
            'mount -o remount,bind,ro project && shift 3 && exec "$@"'
        )
        here = self._cluster.here
        namespaces = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        shell = ["sh", "-c", script, "sh", self.name, self.files, here]
        worker = [COMMAND, "celery", "worker", "--concurrency=2", "--skip-serve-logs"]
        quick = ["--without-mingle", "--without-gossip"]
        self._processes.append(
            self._start(
                "worker", [*self._inside(), *namespaces, *shell, *worker, *quick], environment
            )
        )

    def kill(self) -> None:
        """End the worker and its tasks at once, as a power cut does."""
        self._processes[-1].kill()  # unshare's --kill-child does the rest
        self._processes.pop().wait()

    def terminate(self) -> None:
        """End the worker with SIGTERM."""
        process = self._processes.pop()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children.split()[0]), signal.SIGTERM)
        process.wait()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Take the network away."""
        _ip("link", "set", self._link, "down")
        yield
        _ip("link", "set", self._link, "up")

    def end(self) -> None:
        """End all, and remove the network."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.network]

    def _start(
        self, what: str, command: list[Any], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._cluster.home / f"{self.name}-{what}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self._cluster.environment_of_workers | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Cluster(Airflow):
    """Scheduler, DAG processor and API server here, and workers on machines of their own.

    Args:
        home: The folder of all of it; other users must be able to enter it.
        settings: The environment for Meltano, besides the accounts file, the API and the database.
        accounts: What the workers' accounts files hold.
        constants: What is edited in the copies of settings.py.
        database: A Postgres for the metadata and the rows.
        workers: How many.
        latency: Seconds that the API holds back each response.
    """

    def __init__(  # noqa: PLR0913
        self,
        home: Path,
        settings: Mapping[str, Any],
        accounts: list[dict[str, Any]],
        constants: Mapping[str, str],
        database: embedded.Postgres,
        *,
        workers: int = 2,
        latency: float = 0.0,
    ) -> None:
        self.here = home / "here"
        self.here.mkdir(parents=True, exist_ok=True)
        project = repr(str(self.here / "project"))
        super().__init__(home, {}, {}, {"PROJECT": project, **constants})
        self.latency = latency
        self.database = database
        self._settings = settings
        self.workers = [Worker(self, number) for number in range(1, workers + 1)]
        for worker in self.workers:
            worker.accounts.write_text("\n".join(map(json.dumps, accounts)), encoding="utf-8")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run all of it."""
        with ExitStack() as stack:
            self._remove_networks()  # of a process that was killed
            stack.callback(self._remove_networks)
            _ip("link", "add", BRIDGE, "type", "bridge")
            _ip("addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
            _ip("link", "set", BRIDGE, "up")
            unix = Path(self.database.socket_folder, ".s.PGSQL.5432")
            self.metadata, self.destination = Gate(unix), Gate(unix)
            for gate in (self.metadata, self.destination):
                stack.enter_context(gate)
                threading.Thread(target=gate.serve_forever, daemon=True).start()
                stack.callback(gate.shutdown)
            self.start_broker()
            stack.callback(self.stop_broker)
            self._configure()
            stack.enter_context(super().running())
            for worker in self.workers:
                stack.callback(worker.end)
                worker.connect()
                worker.start()
            yield

    def _remove_networks(self) -> None:
        for arguments in (
            *(("netns", "del", worker.network) for worker in self.workers),
            ("link", "del", BRIDGE),
        ):
            with suppress(subprocess.CalledProcessError):
                _ip(*arguments)

    def _configure(self) -> None:
        host, port = GATEWAY, self.metadata.server_address[1]
        metadata = f"postgres:{METADATA_SECRET}@{host}:{port}/airflow"
        self.environment |= RECOVERY | {
            "AIRFLOW__API__HOST": host,
            "AIRFLOW__CELERY__BROKER_URL": f"redis://:{BROKER_SECRET}@{host}:6379/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{metadata}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{host}:{self.port}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__FERNET_KEY": "YWxsLXplcm9zLWFyZS1ub3QtYS1nb29kLWtleS1oZXI=",
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{metadata}",
        }
        for name in ("AIRFLOW_CONN_TAP_BALANCE", "AIRFLOW_CONN_TAP_BALANCE_DESTINATION"):
            del self.environment[name]
        self.environment_of_workers = self.environment | {
            "AIRFLOW_HOME": str(self.here),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.here / "dags"),
            "C_FORCE_ROOT": "1",
            "TMPDIR": str(self.here / "tmp"),
        }
        self._migrate()

    def _migrate(self) -> None:
        self.database.psql("DROP DATABASE IF EXISTS airflow WITH (FORCE)", options=("-q",))
        self.database.psql("CREATE DATABASE airflow")
        host, port = GATEWAY, self.destination.server_address[1]
        at = {"host": host, "port": port, "login": "postgres", "password": DATABASE_SECRET}
        url = f"postgresql+psycopg://postgres:{DATABASE_SECRET}@{host}:{port}/postgres"
        settings = {
            "TAP_BALANCE_ACCOUNTS_FILE": str(self.here / "accounts.jsonl"),
            "TAP_BALANCE_BASE_URL": f"http://127.0.0.1:{SANDBOX_PORT}",
            "TARGET_POSTGRES_SQLALCHEMY_URL": url,
            "DBT_POSTGRES_HOST": host,
            "DBT_POSTGRES_PORT": str(port),
            "DBT_POSTGRES_USER": "postgres",
            "DBT_POSTGRES_PASSWORD": DATABASE_SECRET,
            "DBT_POSTGRES_DBNAME": "postgres",
            **self._settings,
        }
        connections = self.home / "connections.json"
        connections.write_text(
            json.dumps(
                {
                    "tap_balance": {"conn_type": "generic", "extra": settings},
                    "tap_balance_destination": {
                        "conn_type": "postgres",
                        "schema": "postgres",
                        **at,
                    },
                }
            )
        )
        for arguments in (("db", "migrate"), ("connections", "import", str(connections))):
            done = self.run(*arguments)
            if done.returncode:
                msg = f"airflow {' '.join(arguments)} failed:\n{done.stdout}"
                raise RuntimeError(msg)
        connections.unlink()

    def start_broker(self) -> None:
        """Start Redis, or Valkey, without what it held before."""
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        if not program:
            msg = "needs redis-server: apt-get install redis-server"
            raise RuntimeError(msg)
        # What goes through it is kept in a file, for the tests to look for secrets in.
        folder = Path(tempfile.mkdtemp(prefix="broker-", dir=self.home))
        options = ["--save", "", "--appendonly", "yes", "--requirepass", BROKER_SECRET]
        with (self.home / "broker.log").open("ab") as log:
            self._broker = subprocess.Popen(
                [program, "--bind", GATEWAY, *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop_broker(self) -> None:
        """Stop it; what it holds is lost."""
        self._broker.kill()
        self._broker.wait()

    def query(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        """Read from Airflow's metadata; `?` stands for a parameter."""
        uri = self.database.uri.replace("/postgres?", "/airflow?", 1)
        with psycopg.connect(uri) as connection:
            return connection.execute(sql.replace("?", "%s").encode(), parameters).fetchall()

    def wait_until(self, sql: str, *parameters: str, patience: float) -> list[tuple[Any, ...]]:
        """Wait for rows in Airflow's metadata.

        Raises:
            TimeoutError: There are none after that time.
        """
        deadline = time.monotonic() + patience
        while not (rows := self.query(sql, *parameters)):
            if time.monotonic() > deadline:
                msg = f"no {sql} {parameters} after {patience:.0f} s; the logs are in {self.home}"
                raise TimeoutError(msg)
            time.sleep(0.5)
        return rows


DATABASE_SECRET = "database-secret"  # noqa: S105


def missing() -> str:
    """What this machine lacks to run it; empty if nothing."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("unshare"):
        return "needs root on Linux, for network namespaces"
    if not shutil.which("ip"):
        return "needs ip: apt-get install iproute2"
    if not (shutil.which("valkey-server") or shutil.which("redis-server")):
        return "needs a Redis: apt-get install redis-server"
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S607
