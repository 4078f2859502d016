"""`python -m sidecar.lab`: what `sidecar lab` runs inside its namespaces."""

from sidecar.lab.command import lab

lab()
