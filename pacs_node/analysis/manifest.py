"""``model.yaml``: what a bundle says about itself, as frozen models that refuse unknown keys.

Preprocessing, scope and recipe live here and nowhere else: the node and the training command read the same lines.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from pacs_node.analysis.grid import Grid
from pacs_node.analysis.installed import CALIBRATION as CALIBRATION
from pacs_node.analysis.installed import MODEL
from pacs_node.analysis.recipe import DetectorPart, NetworkPart, Part, Recipe, check_recipe
from pacs_node.analysis.recipe import PhantomPart as PhantomPart
from pacs_node.autoencoder.network import Architecture
from pacs_node.autoencoder.scoring import PARTS, Fusion
from pacs_node.errors import BundleError

FORMAT = 1
WEIGHTS, BASELINES, CARD = "weights.safetensors", "baselines.npz", "CARD.md"

Range = tuple[float, float]


class Intensity(Part):
    """Monotonic broken line between physical values and the network's 0…1: fine where tissue differs, coarse elsewhere."""

    physical: tuple[float, ...]
    value: tuple[float, ...]

    @model_validator(mode="after")
    def _rising(self) -> Intensity:
        if len(self.physical) != len(self.value) or len(self.value) < 2:
            raise ValueError("physical and value need the same number of points, two at least")
        if min(np.diff(self.physical)) <= 0 or min(np.diff(self.value)) <= 0:
            raise ValueError("physical and value must rise from point to point")
        return self

    def to_model(self, view: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map physical values to 0…1; NaN (no pixels) becomes the lowest value, which is air."""
        result: NDArray[np.float32] = np.interp(np.nan_to_num(view, nan=self.physical[0]), self.physical, self.value).astype(np.float32)
        return result

    def to_physical(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map network values back to physical units; what was beyond the line's ends stays at the ends."""
        result: NDArray[np.float32] = np.interp(values, self.value, self.physical).astype(np.float32)
        return result


class Preprocessing(Part):
    """How a volume becomes the network's input; see `grid`."""

    pixels: int = 128
    spacing_mm: float = Field(gt=0)
    body_above: float
    scaling: Literal["none", "foreground"] = "none"  # see `intensity.SCALINGS`; body_above, intensity, tissue and window mean scaled values
    intensity: Intensity

    @property
    def grid(self) -> Grid:
        """The analysis grid."""
        return Grid(self.pixels, self.spacing_mm, self.body_above)


class Band(Part):
    """Which share of the body may lie between two intensities, e.g. soft tissue."""

    between: Range
    share: Range


class FamiliarityPart(Part):
    """Refuse series that are unlike those the bundle was trained on; ``refused``: the share of usual studies that this may cost. See `familiar`."""

    refused: float = Field(0.01, gt=0, le=0.2)


class QualityPart(Part):
    """Limits that hold for everybody, whatever the bundle was trained on; left out: no such limit. See `quality`.

    ``noise``: standard deviation of the grain, of the network's range 0…1; ``one_material``: share of the body of one and the same value;
    ``cut_off``: share of the body's height or width along which it ends in one straight line; ``empty``: share of slices that show nothing
    but air.
    """

    noise: float | None = Field(None, gt=0)
    one_material: float | None = Field(None, gt=0, le=1)
    cut_off: float | None = Field(None, gt=0, le=1)
    empty: float | None = Field(None, gt=0, le=1)


class Scope(Part):
    """What the bundle may judge; anything else is refused with a reason. Lengths in mm, intensities in the volume's unit."""

    min_slices: int = Field(5, ge=1)
    max_slice_spacing_mm: float = 12.0
    coverage_mm: Range = (0.0, 2000.0)
    body_width_mm: Range
    body_height_mm: Range
    tissue: dict[str, Band] = Field(default_factory=dict)
    weightings: tuple[Literal["T1", "T2", "FLAIR", "DWI", "other", "unknown"], ...] = ()  # of MR; none: any
    quality: QualityPart = QualityPart()
    familiarity: FamiliarityPart | None = None


class Scoring(Part):
    """How the maps become scores; see `autoencoder.scoring.Fusion`."""

    bins: int = Field(8, ge=1)
    pixel: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 0.0)
    study: tuple[float, ...] = (1.0, 1.0, 1.0)
    rule: Literal["weighted", "tail", "largest"] = Field("weighted", alias="fusion")  # see `autoencoder.fusing`
    top: float = 0.01
    moving: int = 3
    pictures: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0, 1.0)  # study, for mere pictures
    centred: bool = False
    strata: tuple[Literal["weighting", "plane"], ...] = ()  # see `analysis.strata`
    top_slices: int = Field(5, ge=1)

    @property
    def fusion(self) -> Fusion:
        """The weights of the parts, and the rule that makes them one number."""
        return Fusion(self.pixel, self.study, self.top, self.centred, self.rule, self.moving, self.pictures)


class Manifest(Part):
    """The whole of ``model.yaml``. ``files`` holds the SHA-256 of each file that training wrote."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=32)]
    title: str
    purpose: str = ""
    licence: str
    manufacturer: str = "pacs-node"
    modality: str
    regions: tuple[str, ...] = ()
    window: Range
    network: NetworkPart = NetworkPart()
    detector: DetectorPart | None = None
    preprocessing: Preprocessing
    scope: Scope
    scoring: Scoring = Scoring()
    recipe: Recipe = Recipe()
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        self.architecture  # noqa: B018 - raises where the parts contradict each other
        self.scoring.fusion  # noqa: B018
        check_recipe(self.network, self.recipe)
        self.detectors  # noqa: B018
        if self.detector is None and not sum(self.scoring.pixel[: len(PARTS) - 1]):
            raise ValueError("scoring.pixel weighs the change map only, which needs a detector: add `detector: {}`, or weigh another map")
        return self

    @property
    def architecture(self) -> Architecture:
        """The network's architecture, with the edge that preprocessing gives it."""
        shape = self.network
        return Architecture(self.preprocessing.pixels, shape.inputs, shape.channels, shape.gates, shape.contrast, shape.norm)

    @property
    def detectors(self) -> Architecture | None:
        """The shape of the detector, None where the bundle has none."""
        return self.detector.architecture(self.preprocessing.pixels) if self.detector else None


def read_manifest(folder: Path) -> Manifest:
    """Read ``model.yaml`` of a bundle folder; raises `BundleError` naming the key at fault and the remedy."""
    path = folder / MODEL
    if not folder.is_dir():
        raise BundleError(folder, "no such folder: give the folder that holds model.yaml")
    if not path.is_file():
        raise BundleError(folder, f"{MODEL} is missing: a bundle is a folder with at least that file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise BundleError(folder, f"{MODEL} is not readable YAML ({' '.join(str(error).split())}): correct it or install the bundle again") from error
    if not isinstance(content, dict):
        raise BundleError(folder, f"{MODEL} holds no keys: correct it or install the bundle again")
    if content.get("format") != FORMAT:
        raise BundleError(folder, f"{MODEL} has format {content.get('format')!r}, this version reads {FORMAT}: install a bundle made for it, or train it again")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise BundleError(folder, f"{MODEL}: {key or 'contradiction'}: {fault['msg'][:1].lower()}{fault['msg'][1:]}: correct that line") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
