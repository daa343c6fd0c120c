"""Models to try federated learning with."""

from fedsim.models import mnist

__all__ = ["mnist"]
