"""Which bundles are there: asked by processes that load none, so nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path

from pacs_node.config import Settings, shipped

MODEL = "model.yaml"  # makes a folder a bundle
CALIBRATION = "calibration.json"


def models_folder(settings: Settings) -> Path:
    """Return the folder of model bundles: the configured one, else those that come with the package."""
    return settings.node.models or shipped("models")


def available(folder: Path) -> dict[str, Path]:
    """Return the bundles in a folder of bundles: name of the subfolder to its path, in alphabetical order; nothing is loaded."""
    if not folder.is_dir():
        return {}
    return {path.name: path for path in sorted(folder.iterdir()) if (path / MODEL).is_file()}
