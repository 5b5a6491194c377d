"""The command line ``absence-plugins``: arguments -> experiments -> pages."""

# The modules register their commands.
from absence_plugins.cli import checking, explaining, measuring, reporting, units  # noqa: F401
from absence_plugins.cli.app import app
from absence_plugins.cli.early import CheckedCommand

for _registered in app.registered_commands:
    _registered.cls = CheckedCommand

__all__ = ["app"]
