"""What training, calibration and evaluation work on: studies in folders, and phantoms made from seeds.

::

    folders, labels.csv ─► series (DICOM, NIfTI, pictures) ─► volume ─► prepared as in the node ─► Example, Labelled
    seeds ───────────────► phantom ───────────────────────────────────► prepared ────────────────► Example, Planted
"""

from pacs_node.workbench.material.folders import DICOM, SeriesFiles, series_in
from pacs_node.workbench.material.labels import NORMAL
from pacs_node.workbench.material.made import SEEDS, Planted, of_other_protocols, phantom, phantoms, spec
from pacs_node.workbench.material.splits import folds, held_out_patients
from pacs_node.workbench.material.studies import Labelled, Report, each_labelled, example, labelled, prepared_series, usable, volume_of

__all__ = [
    "DICOM",
    "NORMAL",
    "SEEDS",
    "Labelled",
    "Planted",
    "Report",
    "SeriesFiles",
    "each_labelled",
    "example",
    "folds",
    "held_out_patients",
    "labelled",
    "of_other_protocols",
    "phantom",
    "phantoms",
    "prepared_series",
    "series_in",
    "spec",
    "usable",
    "volume_of",
]
