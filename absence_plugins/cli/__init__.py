"""The command line ``absence-plugins``: arguments -> experiments -> pages."""

from absence_plugins.cli import checking, explaining, measuring, reporting, units  # noqa: F401  (they register their commands)
from absence_plugins.cli.app import app
from absence_plugins.cli.endings import Command

for _registered in app.registered_commands:
    _registered.cls = Command

__all__ = ["app"]
