"""``python -m absence_plugins``: the command line, where the script ``absence-plugins`` is not on PATH."""

from absence_plugins.cli import app

if __name__ == "__main__":
    app()
