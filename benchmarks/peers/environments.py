"""Make the environments of the peers: one each, none of them elsa's own.

Versions are exact: what requirements-flower.txt and requirements-nvflare.txt name is complete, so
nothing else is asked for. An environment that is there already, from the same file, is left alone.

    python benchmarks/peers/environments.py
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEERS = ("flower", "nvflare")
FOLDER = HERE.parents[1] / ".venv-peers"
"""Where they lie unless told otherwise."""


def interpreter(folder: Path, peer: str) -> Path:
    """The Python of a peer's environment."""
    return folder / peer / "bin" / "python"


def make(folder: Path, peer: str, torch_index: str = "") -> None:
    """Make one environment, from the beginning unless it is whole.

    Args:
        folder: where environments lie.
        peer: one of `PEERS`.
        torch_index: an index of CPU builds of PyTorch, where the registry has none.
    """
    wanted = HERE / f"requirements-{peer}.txt"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    done = folder / peer / ".made-of"
    if done.is_file() and done.read_text(encoding="utf-8") == digest:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / peer)], check=True)
    install = [str(interpreter(folder, peer)), "-m", "pip", "install", "--no-deps", "--quiet"]
    index = ["--extra-index-url", torch_index] if torch_index else []
    subprocess.run([*install, *index, "--requirement", str(wanted)], check=True)
    done.write_text(digest, encoding="utf-8")


def main() -> None:
    """Make both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at", type=Path, default=FOLDER)
    parser.add_argument("--torch-index", default="", help="an index of CPU builds of PyTorch")
    options = parser.parse_args()
    for peer in PEERS:
        make(options.at, peer, options.torch_index)
        sys.stdout.write(f"{interpreter(options.at, peer)}\n")


if __name__ == "__main__":
    main()
