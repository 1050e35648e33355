"""`python -m fourier_probe` is the same as `fourier-probe`."""

from fourier_probe.cli import main

main()
