"""The one file format: the public name of :mod:`fastlangevin.storage.container`."""

from fastlangevin.storage.container import DamagedError, check_json, check_room, read, write

__all__ = ["DamagedError", "check_json", "check_room", "read", "write"]
