"""anvil as a child process: found in the npm packages, started on a free loopback port, its state saved so it survives.

anvil's own `--state` loses everything on kill -9, and a kill during its dump leaves an empty file. Here the state is
asked for over RPC, written beside the old one, fsynced and moved into place.

    LocalFault
    └── AnvilFault   the binary is missing, does not start, or its saved state cannot be loaded
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import requests

from proofs.errors import LocalFault

PACKAGES: Final = Path(__file__).parent.parent / "contracts" / "node_modules" / "@foundry-rs"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
RPC_TIMEOUT_S = 60.0
TRIES = 5
MAX_STATE_BYTES = 1 << 30


class AnvilFault(LocalFault):
    """anvil cannot be used; the text says what to do."""


@dataclass(frozen=True)
class AnvilOptions:
    """block_time_s: mine a block this often, besides one for each transaction; None mines only for transactions.

    port: 0 takes a free one. accounts: anvil's own funded accounts.
    """

    block_time_s: float | None = None
    port: int = 0
    accounts: int = 1
    chain_id: int = 31337


class Anvil:
    """A running anvil: a context manager, or call `stop`. With `state_file`, an existing state is loaded first."""

    def __init__(self, options: AnvilOptions | None = None, state_file: Path | None = None) -> None:
        """Raises AnvilFault."""
        self._options = options or AnvilOptions()
        self._state_file = state_file
        self._process, self.port = _start(self._options)
        try:
            if state_file is not None and state_file.exists():
                self._load(state_file)
        except BaseException:
            self.stop()
            raise

    @property
    def rpc_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def rpc(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call to anvil itself (anvil_mine, anvil_reorg…). Raises AnvilFault."""
        return _rpc(self.port, method, params)

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    def save(self) -> None:
        """Write the whole state durably; what is mined after it is lost with the process."""
        if self._state_file is None:
            raise AnvilFault("this anvil was started without a state file")
        state = self.rpc("anvil_dumpState")
        temporary = self._state_file.with_suffix(".tmp")
        with temporary.open("w") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._state_file)
        _sync_folder(self._state_file.parent)

    def kill(self) -> None:
        """As a power cut would: nothing is saved."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process that this object started, and no other. Idempotent; does not save."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def _load(self, state_file: Path) -> None:
        if not 0 < state_file.stat().st_size <= MAX_STATE_BYTES:
            raise AnvilFault(f"{state_file} is empty or too large to be a saved state: remove it to start afresh")
        if self.rpc("anvil_loadState", state_file.read_text()) is not True:
            raise AnvilFault(f"{state_file}: anvil does not accept this state")


def find_anvil() -> Path:
    """The binary of this platform's npm package. Raises AnvilFault."""
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    system = {"linux": "linux", "darwin": "darwin"}.get(platform.system().lower())
    binary = PACKAGES / f"anvil-{system}-{machine}" / "bin" / "anvil"
    if not binary.is_file():
        raise AnvilFault(f"{binary} is missing: run `npm install --ignore-scripts` in contracts/ (make does)")
    return binary


def _start(options: AnvilOptions) -> tuple[subprocess.Popen[bytes], int]:
    """A free port can be taken between looking and binding: try a few."""
    for _ in range(1 if options.port else TRIES):
        port = options.port or _free_port()
        process = _spawn(options, port)
        if _answers(process, port):
            return process, port
        process.kill()
        process.wait()
    raise AnvilFault(f"anvil does not start on 127.0.0.1:{port}")


def _spawn(options: AnvilOptions, port: int) -> subprocess.Popen[bytes]:
    command = [str(find_anvil()), "--host", "127.0.0.1", "--port", str(port), "--hardfork", "prague", "--silent"]
    command += ["--accounts", str(options.accounts), "--chain-id", str(options.chain_id)]
    if options.block_time_s is not None:
        command += ["--block-time", str(options.block_time_s), "--mixed-mining"]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(AnvilFault):
            _rpc(port, "eth_chainId", ())
            return process.poll() is None
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rpc(port: int, method: str, params: tuple[Any, ...]) -> Any:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"http://127.0.0.1:{port}", json=request, timeout=RPC_TIMEOUT_S).json()
    except (requests.RequestException, ValueError) as error:
        raise AnvilFault(f"anvil does not answer {method}: {type(error).__name__}") from error
    if "error" in answer:
        raise AnvilFault(f"anvil refuses {method}: {answer['error'].get('message')}")
    return answer["result"]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
