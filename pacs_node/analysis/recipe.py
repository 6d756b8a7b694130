"""The keys ``network`` and ``recipe`` of ``model.yaml``: which autoencoder a bundle is, and how it was, or will be, trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pacs_node.autoencoder.adversarial import Adversarial
from pacs_node.autoencoder.corruption import CORRUPTIONS, DEFAULT_CORRUPTIONS, Augmentation
from pacs_node.autoencoder.fitting import Schedule
from pacs_node.autoencoder.gates import PRICED
from pacs_node.autoencoder.network import SIZES, STEM, Architecture
from pacs_node.autoencoder.objective import VARIATIONAL, Elbo, Objective


class Part(BaseModel):
    """A part of ``model.yaml``: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkPart(Part):
    """Shape of the network; see `autoencoder.network.Architecture`. ``size`` stands for the ``channels`` of `network.SIZES`.

    Where a size is given and ``gates`` are not, every level's gate is open.
    """

    inputs: int = 1
    size: Literal["small", "large"] | None = None
    channels: tuple[int, ...] = (32, 48, 64)
    gates: tuple[str, ...] = ("open", "open", "open")
    contrast: bool = False  # the network also sees local contrast
    norm: Literal["group", "batch"] = "group"  # see `autoencoder.network.NORMS`

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("size") not in SIZES:
            return content
        if "channels" in content:
            raise ValueError("size stands for channels: give one of them")
        channels = SIZES[content["size"]]
        return {"gates": ("open",) * len(channels), **content, "channels": channels}


class AugmentationPart(Part):
    """See `autoencoder.corruption.Augmentation`."""

    rotation: float = 10.0
    shift: float = 0.05
    scale: float = 0.1
    gain: float = 0.05
    noise: float = 0.03
    mirror: bool = False


class ElboPart(Part):
    """See `autoencoder.objective.Elbo`."""

    beta: float = Field(1.0, ge=0)
    free_bits: float = Field(0.0, ge=0)
    warm_up: float = Field(0.0, ge=0, le=1)


class AdversarialPart(Part):
    """See `autoencoder.adversarial.Adversarial`."""

    weight: float = Field(0.01, gt=0)
    loss: Literal["hinge", "least_squares"] = "hinge"
    channels: int = Field(32, ge=1)
    rate: float = Field(2e-4, gt=0)


class PhantomPart(Part):
    """Which phantoms the recipe makes: ``train`` and ``held_out`` for the weights, ``calibrate`` for the synthetic calibration.

    ``sequences`` (of MR) and ``planes`` take turns.
    """

    region: Literal["head", "body", "brain", "breast"]
    sequences: tuple[Literal["T1", "T2", "FLAIR"], ...] = Field(("T1",), min_length=1)
    planes: tuple[Literal["axial", "sagittal", "coronal"], ...] = Field(("axial",), min_length=1)
    train: int = Field(0, ge=0)
    held_out: int = Field(0, ge=0)
    calibrate: int = Field(200, ge=0)
    slices: int = Field(24, ge=1)
    rows: int = Field(256, ge=16)


class Recipe(Part):
    """How the bundle was, or will be, trained.

    ``penalty``: weight of every gate's price that ``penalties`` (name: weight, see `autoencoder.objective.PENALTIES`) does not name.
    """

    seed: int = 0
    epochs: int = Field(20, ge=1)
    batch: int = Field(32, ge=1)
    rate: float = Field(2e-3, gt=0)
    patience: int = Field(6, ge=1)
    penalty: float = Field(0.01, ge=0)
    penalties: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    elbo: ElboPart | None = None
    adversarial: AdversarialPart | None = None
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    held_out_share: float = Field(0.2, gt=0, lt=1)
    corruptions: tuple[str, ...] = DEFAULT_CORRUPTIONS
    augmentation: AugmentationPart = AugmentationPart()
    phantoms: PhantomPart | None = None
    data: tuple[str, ...] = ()
    reference: int = Field(256, ge=0)  # training slices kept in the bundle for reports; 0: none

    @property
    def schedule(self) -> Schedule:
        """The training loop's settings."""
        return Schedule(
            self.epochs,
            self.batch,
            self.rate,
            self.patience,
            self.seed,
            self.objective,
            self.corruptions,
            Augmentation(**self.augmentation.model_dump()),
            Adversarial(**self.adversarial.model_dump()) if self.adversarial else None,
            self.precision,
        )

    @property
    def objective(self) -> Objective:
        """What training minimises."""
        return Objective(self.penalty, tuple(sorted(self.penalties.items())), Elbo(**self.elbo.model_dump()) if self.elbo else None)


class DetectorPart(Part):
    """A second network that learns to see changes: its shape, and how it is trained; see `autoencoder.change`. Augmentation is the recipe's.

    ``batch`` slices, or as many crops as have their area, make a step; ``crop`` 0 stands for whole slices. ``left_out``: the share of usual
    pixels that the autoencoder finds most unusual, which teach nothing, lest findings among the training studies be learnt as usual.
    """

    inputs: int = 3
    channels: tuple[int, ...] = (32, 48, 64)
    contrast: bool = True
    norm: Literal["group", "batch"] = "batch"
    crop: int = Field(64, ge=0)
    seed: int = 0
    epochs: int = Field(20, ge=1)
    batch: int = Field(8, ge=1)
    rate: float = Field(3e-3, gt=0)
    patience: int = Field(8, ge=1)
    left_out: float = Field(0.08, ge=0, lt=0.5)

    def architecture(self, pixels: int) -> Architecture:
        """Return its shape on a grid of ``pixels`` an edge; raises `ValueError` where the parts contradict each other."""
        crop, factor = self.crop or pixels, STEM * 2 ** (len(self.channels) - 1)
        if crop % factor or crop > pixels:
            raise ValueError(f"detector.crop {crop} must be a multiple of {factor} with {len(self.channels)} levels, {pixels} at most")
        return Architecture(pixels, self.inputs, self.channels, ("open",) * len(self.channels), self.contrast, self.norm)

    def schedule(self, recipe: Recipe) -> Schedule:
        """Return how it is trained, beside the autoencoder's recipe."""
        how = Augmentation(**recipe.augmentation.model_dump())
        return Schedule(self.epochs, self.batch, self.rate, self.patience, self.seed, augmentation=how, precision=recipe.precision, crop=self.crop or None)


def check_recipe(network: NetworkPart, recipe: Recipe) -> None:
    """Raise `ValueError` where a recipe names what there is not, or weighs prices that no gate of the network asks for."""
    unknown = [name for name in recipe.corruptions if name not in CORRUPTIONS]
    if unknown:
        raise ValueError(f"recipe.corruptions: unknown {unknown[0]!r}, allowed are {', '.join(CORRUPTIONS)}")
    recipe.objective  # noqa: B018 - raises where the parts contradict each other
    idle = [name for name in recipe.penalties if name in PRICED and name not in network.gates]
    if idle:
        raise ValueError(f"recipe.penalties: {idle[0]} weighs nothing, network.gates holds no {idle[0]} gate")
    if recipe.elbo is not None and VARIATIONAL not in network.gates:
        raise ValueError(f"recipe.elbo: network.gates holds no {VARIATIONAL} gate, whose latent the bound is about")
