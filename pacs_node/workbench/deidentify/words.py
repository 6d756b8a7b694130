"""Free text → what of it says nothing about anybody: the words that are listed here, and short numbers.

What is not known to be harmless goes; a list of what is harmful has no end.
"""

from __future__ import annotations

import re

from pacs_node.workbench.deidentify.traces import Traces

REMOVED = "REMOVED"

_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        a abdomen abdominal above ac acquisition adc after age aligned all an analysed analysis and angio angiography ankle anomaly anterior aorta
        area arm arterial artery as asl at attenuation autoencoder average axial axis b0 basal before below bilateral bladder blood body bold bone
        both brain breast bronchial by calibrated calibration cardiac carotid cervical chest cm code colon colour comparison complete computed
        contrast cor coronal coronary corrected correction count cranial cranium crop ct cta cycle cystic deep default delay delayed denoised density
        detector device diffusion digital direction displayed distance dixon dorsal dose dti dual duct dwi dynamic each early echo edge elbow enhanced
        epi equilibrium exam examination excretory expiration extremity eye face fast fat fdg femur field filter finding finger first flair flash flow
        foot for fov frame frames from frontal full fused gadolinium given gradient gre group half hand head heart heat hepatic high hip hires hrct hu
        human humerus iac identifier image images imaging in inc index inferior inspiration intensity internal inversion iv kernel kidney kilovolt
        knee kv larynx late lateral left leg length level limb line linear liver localiser localizer long low lower lumbar lung lungs lymph magnetic
        magnitude mandible map maps mas mask maximum mean measurement medial median mediastinum medium method min minimum mip mm mode model motion mpr
        mprage mr mra mrcp mri multi multiphase muscle nac name nasal neck nerve no noise non none normal not number oblique of off on only oral orbit
        orbits original other ovary over p palate pancreas parametric part pass pca pd pelvic pelvis percentile perfusion phantom phase pixel pixels
        plain plane portal position positron post posterior pre procedure prone propagation prostate protocol proton pt quality rapid rate raw recon
        reconstruction reference reformat reformatted region relative renal repeat report research resolution respiratory rest result results right
        rotation routine run s sag sagittal saturation scalp scan scanner scans scapula score scout se segment segmentation sense sequence series set
        sharp short shoulder shows sinus sinuses size skull slice slices small smooth soft spgr spin spine spiral spleen standard standing start
        static sternum stir stress structure study subtraction superior supine surview susceptibility suv swi t1 t1w t2 t2star t2w table test than the
        thick thickness thigh thin thoracic thorax three threshold throat thumb tibia time tissue to tof tomography topogram torso total tra trachea
        tracking transverse tse turbo two type ultrasound uncalibrated unit up upper ureter urinary us use uterus value values vascular vein venous
        ventral version vessel vibe view vol volume wall water wb weighted whole width window with without wo worst wrist x xr z
        """,
    )
)
_TOKEN = re.compile(r"[^\W_]+(?:[.,][0-9]+)?|[^\s\w]|_")
_NUMBER = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{1,6})?(?:mm|cm|ms|s|kv|mas|t|d|min|deg|hu|mg|ml)?", re.IGNORECASE)
_MARKS = frozenset("+-/.,:;()%=<>·°²±×&*")


def harmless(text: str, traces: Traces) -> str:
    """Return a text without what is not listed, and without what identifies (a patient may be called Long); "" where no word is left."""
    known = traces.pattern.sub(" ", text) if traces.pattern else text
    kept = [token for token in _TOKEN.findall(known) if token.casefold() in _WORDS or _NUMBER.fullmatch(token) or token in _MARKS]
    said = re.sub(r"\s+([.,:;)%])", r"\1", " ".join(kept)).strip()
    return said if any(one.isalnum() for one in said) else ""


def scrubbed(text: str, traces: Traces) -> str:
    """Return a text with every trace in it replaced by one word."""
    return traces.pattern.sub(REMOVED, text) if traces.pattern else text
