"""Compile and test the contracts with what lies in node_modules; no system Node and no download is needed.

    build.py write   compile, and rewrite ledger/abi/{Federation,Rounds,AuditLog}.json and snapshots/Gas.json
    build.py check   compile, and fail unless the committed ABI and bytecode are what the sources give
    build.py test    format, lint, forge tests, the gas snapshot, and: is every custom error provoked by a test?

Run it with the virtual environment's Python: `node` is taken from beside it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ABI = HERE.parent / "ledger" / "abi"
CONTRACTS = ("Federation", "Rounds", "AuditLog")
ERRORS = ("interfaces/IFederation", "interfaces/IRounds", "libraries/LogErrors")  # where custom errors are declared
README = HERE / "README.md"
MAX_RUNTIME_BYTES = 24_576  # EIP-170
# every call a transaction of its own, as it is paid for
GAS = ("test", "--isolate", "--match-contract", "GasTest$")
TEST = re.compile(r"^\s*function (?:test|invariant)\w*\(", re.MULTILINE)
ERROR = re.compile(r"^\s*error (\w+)\(", re.MULTILINE)


class BuildFailed(SystemExit):
    """A step failed; the text says which, the exit status is 1."""

    def __init__(self, message: str) -> None:
        super().__init__(f"contracts/build.py: {message}")


def forge_binary() -> Path:
    """The forge that npm installed for this platform, without the launcher that would try to download one."""
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine().lower()]
    system = {"linux": "linux", "darwin": "darwin", "win32": "win32"}[sys.platform]
    name = "forge.exe" if system == "win32" else "forge"
    found = HERE / "node_modules" / "@foundry-rs" / f"forge-{system}-{machine}" / "bin" / name
    if not found.is_file():
        raise BuildFailed(f"{found} is missing; `make` installs it (npm install in contracts/)")
    return found


def environment() -> dict[str, str]:
    """PATH with the virtual environment first, and none of the caller's Foundry settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOUNDRY_", "DAPP_", "FORGE_"))}
    # not resolved: the venv's python is a link to the system's, and node lies beside the link
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    if os.environ.get("CANDOR_LONG"):
        kept["FOUNDRY_PROFILE"] = "long"
        kept["FOUNDRY_FUZZ_SEED"] = "0x" + secrets.token_hex(32)  # forge prints it with a failure
    return kept


def forge(arguments: Sequence[str]) -> None:
    status = subprocess.run([forge_binary(), *arguments], cwd=HERE, env=environment(), check=False).returncode
    if status != 0:
        raise BuildFailed(f"forge {' '.join(arguments)} ended with status {status}")


def sources_digest() -> str:
    """SHA-256 over the paths and the contents of contracts/src, in the order of the paths."""
    digest = sha256()
    for path in sorted((HERE / "src").rglob("*.sol"), key=lambda path: path.relative_to(HERE).as_posix()):
        digest.update(f"{path.relative_to(HERE).as_posix()}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def compiled() -> dict[str, str]:
    """Contract name → the text of its file under ledger/abi."""
    forge(["build", "--force", "src"])
    return {name: _artifact(name) for name in CONTRACTS}


def _artifact(name: str) -> str:
    built = json.loads((HERE / "out" / f"{name}.sol" / f"{name}.json").read_text())
    runtime_bytes = len(built["deployedBytecode"]["object"]) // 2 - 1
    if runtime_bytes > MAX_RUNTIME_BYTES:
        raise BuildFailed(f"{name} has {runtime_bytes} bytes, more than the {MAX_RUNTIME_BYTES} that a chain takes")
    record: dict[str, Any] = {
        "abi": built["abi"],
        "bytecode": built["bytecode"]["object"],
        "compiler": built["metadata"]["compiler"]["version"],
        "sources_sha256": sources_digest(),
    }
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def write() -> None:
    ABI.mkdir(parents=True, exist_ok=True)
    for name, text in compiled().items():
        (ABI / f"{name}.json").write_text(text)
    forge([*GAS, "--gas-snapshot-emit", "true", "--gas-snapshot-check", "false"])
    README.write_text(_with_gas_table(README.read_text()))


def check() -> None:
    for name, text in compiled().items():
        path = ABI / f"{name}.json"
        committed = path.read_text() if path.is_file() else "{}"
        if committed != text:
            before, after = json.loads(committed), json.loads(text)
            differing = [key for key in after if before.get(key) != after[key]]
            raise BuildFailed(f"{path} is not what the sources give: {differing} differ; run `make contracts`")
    print(f"contracts/build.py: the committed {', '.join(CONTRACTS)} are what the sources give")


def test() -> None:
    forge(["clean"])  # a cache of another command's making has made forge find no tests, and call that success
    forge(["fmt", "--check"])
    forge(["lint"])
    forge_tests(["test", "--no-match-contract", "GasTest"], _tests_in("*.t.sol") - _tests_in("*Gas.t.sol"))
    forge_tests([*GAS, "--gas-snapshot-check", "true"], _tests_in("*Gas.t.sol"))
    _check_errors_are_provoked()
    if _with_gas_table(README.read_text()) != README.read_text():
        raise BuildFailed("the gas table of contracts/README.md is stale; run `make contracts`")


def _with_gas_table(text: str) -> str:
    """The README with its table as in snapshots/Gas.json."""
    measured = json.loads((HERE / "snapshots" / "Gas.json").read_text())
    rows = [f"| {name} | {int(gas):,} |" for name, gas in sorted(measured.items())]
    table = "\n".join(["<!-- gas -->", "| transaction | gas |", "|---|---:|", *rows, "<!-- end -->"])
    return re.sub("<!-- gas -->.*<!-- end -->", lambda _: table, text, flags=re.DOTALL)


def forge_tests(arguments: Sequence[str], expected: int) -> None:
    """Run them, and fail unless as many passed as there are in the sources."""
    wanted, passed = f"{expected} tests passed, 0 failed, 0 skipped ({expected} total tests)", False
    command = [forge_binary(), *arguments]
    with subprocess.Popen(command, cwd=HERE, env=environment(), stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():  # as they come: the long profile takes most of an hour
            print(line, end="", flush=True)
            passed |= wanted in line
    if running.returncode != 0:
        raise BuildFailed(f"forge {' '.join(arguments)} ended with status {running.returncode}")
    if not passed:
        raise BuildFailed(f"expected {expected} tests to pass")


def _tests_in(pattern: str) -> int:
    return sum(len(TEST.findall(path.read_text())) for path in (HERE / "test").glob(pattern))


def _check_errors_are_provoked() -> None:
    """Every custom error that is declared for callers is expected by name in some test."""
    tests = "".join(path.read_text() for path in sorted((HERE / "test").glob("*.t.sol")))
    for name in ERRORS:
        declared = ERROR.findall((HERE / "src" / f"{name}.sol").read_text())
        where = name.partition("/")[2]
        missing = [error for error in declared if f"{where}.{error}.selector" not in tests]
        if missing:
            raise BuildFailed(f"no test expects {where}.{', '.join(missing)}")


def main(arguments: Sequence[str]) -> None:
    commands = {"write": write, "check": check, "test": test}
    if len(arguments) != 1 or arguments[0] not in commands:
        raise BuildFailed(f"expected one of {', '.join(commands)}")
    commands[arguments[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
