"""A child process that does one run, on a leash: it saves and leaves when its parent asks, or is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fourier_probe.errors import OutputError
from fourier_probe.io.regular import append_regular
from fourier_probe.studies.tasks import LOG, log_header


class Child:
    """`python -m fourier_probe.studies.job RUN`; what it says goes to RUN/log.txt.

    It is in a session of its own, so that Ctrl-C reaches the parent only, which passes it on once.

    Args:
        folder: the run, with its job.json.
        threads: of the CPU; 0: as torch finds.
        gpu: the only GPU it may see, as CUDA_VISIBLE_DEVICES names it; None: all of them.

    Raises:
        OutputError: log.txt cannot be written, or is a link or no file.
    """

    def __init__(self, folder: Path, *, threads: int = 0, gpu: str | None = None) -> None:
        environment = dict(os.environ)
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        command = [sys.executable, "-m", "fourier_probe.studies.job", str(folder), "--threads", str(threads), "--leash"]
        try:
            log = append_regular(folder / LOG)
        except OSError as error:
            raise OutputError(f"cannot write {folder / LOG}: {error.strerror or error}. Remove it.") from error
        with log:
            log.write(log_header().encode())
            log.flush()
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        code = self._process.poll()
        if code is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return code

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        self._process.wait()
        return self.poll() or 0

    def terminate(self) -> None:
        """Ask it to save and leave."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; its last save stays good."""
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
