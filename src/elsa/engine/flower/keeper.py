"""Ends its process group when its standard input closes, however its parent ended.

Run as a script with folders to remove at the end; it knows nothing but the standard library.
"""

import os
import shutil
import signal
import sys
import time

_GRACE = 2.0
"""Seconds between the polite signal and the other one."""


def main() -> None:
    """Wait for the parent's end of the pipe to close; then end the group, this process last."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(_GRACE)
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
