"""Build the real Kubo that tests/content moves content through: `python tests/tools/build_kubo.py`.

It needs the Go toolchain and the Go module proxy, takes minutes once, and keeps the binary in
~/.cache/candor/kubo-<version>/ipfs; without Go it says so and changes nothing. The tests look there, or where the
environment's CANDOR_KUBO points, and skip loudly when neither exists.

`go install …@version` refuses Kubo, because its go.mod has `exclude` and `replace` lines; so it is built from a module
of ours that requires it. Its `replace` names a fork of go-libp2p that the module proxy may not have: the released
go-libp2p is taken instead, with the two QUIC packages that it was released with. The tests use neither.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "v0.43.1"
GO_AT_LEAST = (1, 26, 5)
QUIC = {"github.com/quic-go/quic-go": "v0.60.0", "github.com/quic-go/webtransport-go": "v0.11.1"}
NICE = ["nice", "-n", "19"] if shutil.which("nice") else []
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "candor" / f"kubo-{VERSION}"
BINARY = CACHE / "ipfs"


def main() -> int:
    if BINARY.exists():
        print(f"kubo {VERSION}: {BINARY}")
        return 0
    go = shutil.which("go")
    if go is None or go_version(go) < GO_AT_LEAST:
        print(f"kubo {VERSION} NOT BUILT: it needs Go {'.'.join(map(str, GO_AT_LEAST))} or newer on PATH")
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        build(go, Path(folder))
    print(f"kubo {VERSION}: built {BINARY}")
    return 0


def go_version(go: str) -> tuple[int, ...]:
    printed = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", printed)[:3]))


def build(go: str, folder: Path) -> None:
    """Resolve, build with the lowest priority, and publish the binary in one rename."""

    def run(*arguments: str) -> None:
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"}
        subprocess.run([*NICE, go, *arguments], cwd=folder, env=environment, check=True)

    run("mod", "init", "kb")
    run("mod", "edit", *(f"-replace={module}={module}@{version}" for module, version in QUIC.items()))
    run("get", f"github.com/ipfs/kubo/cmd/ipfs@{VERSION}")
    run("build", "-o", "ipfs", "github.com/ipfs/kubo/cmd/ipfs")
    (folder / "ipfs").replace(BINARY)


if __name__ == "__main__":
    sys.exit(main())
