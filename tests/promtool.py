"""Prometheus's own judge of metrics and rules."""

import shutil
import subprocess
import sys
from pathlib import Path


def promtool(*words: str, said: str = "") -> str:
    """Run it; what it says. Fails with that where it finds anything wrong."""
    beside = Path(sys.executable).with_name("promtool")
    program = str(beside) if beside.exists() else shutil.which("promtool")
    assert program, "promtool is missing: make venv"
    ran = subprocess.run([program, *words], input=said, capture_output=True, text=True, timeout=280, check=False)
    told = ran.stdout + ran.stderr
    assert ran.returncode == 0, told
    return told
