import subprocess
import sys

from tutorial_utils.authoring.memory import PeakOfChildren

HOLD = "held = bytearray(b'x') * (200 << 20)"


def test_processes_below_this_one_count_together_and_this_one_does_not():
    """Each holds 200 MiB: the second is a child of a child."""
    own = bytearray(b"x") * (100 << 20)
    inner = f"import time; {HOLD}; time.sleep(1.5)"
    nested = f"import subprocess, sys; {HOLD}; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    with PeakOfChildren() as peak:
        subprocess.run([sys.executable, "-c", nested], check=True)
    assert 400 << 20 < peak.bytes < 480 << 20
    assert len(own)


def test_no_process_holds_nothing():
    with PeakOfChildren() as peak:
        pass
    assert peak.bytes == 0
