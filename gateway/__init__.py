"""The gateway: authenticate, decode, dispatch, encode. Nothing here branches on a vendor."""

__version__ = "0.1.0"
