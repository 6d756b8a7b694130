"""Free text → what of it says nothing about anybody: the words that are listed here, and short numbers that stand by themselves.

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
_NUMBER = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{1,6})?(mm|cm|ms|s|kv|mas|t|d|min|deg|hu|mg|ml)?", re.IGNORECASE)
_MARKS = frozenset("+-/.,:;()%=<>·°²±×&*")
_BETWEEN = frozenset("×%°")  # marks, as the word x, that may stand between two numbers; others join them to one
_MOST_DIGITS = 12  # of numbers with × between them


def harmless(text: str, traces: Traces) -> str:
    """Return a text without what is not listed, and without what identifies (a patient may be called Long); "" where no word is left."""
    known = traces.pattern.sub(" ", text) if traces.pattern else text
    tokens = [token for token in _TOKEN.findall(known) if _has_digit(token) or token.casefold() in _WORDS or token in _MARKS]
    dropped = _joined(tokens)
    kept = [token for index, token in enumerate(tokens) if index not in dropped and (not _is_numeric(token) or _NUMBER.fullmatch(token))]
    said = re.sub(r"\s+([.,:;)%])", r"\1", " ".join(kept)).strip()
    return said if any(one.isalnum() for one in said) else ""


def _joined(tokens: list[str]) -> set[int]:
    """Return which numbers are parts of a longer one, with nothing but marks, blanks or words that go between them: of a telephone, a date, an identifier."""
    found: set[int] = set()
    run: list[int] = []  # numbers with marks or × between them
    follows = False  # whether a number that comes now belongs to the last one
    for index, token in enumerate(tokens):
        if not _is_numeric(token):
            follows = follows and token in _MARKS - _BETWEEN
            run = run if token in _MARKS or token.casefold() == "x" else []
            continue
        if follows:
            found |= {run[-1], index}
        run.append(index)
        if sum(one.isdecimal() for number in run for one in tokens[number]) > _MOST_DIGITS:
            found |= set(run)
        number = _NUMBER.fullmatch(token)
        follows = not (number and number.group(1))
    return found


def _has_digit(token: str) -> bool:
    return any(one.isdecimal() for one in token)


def _is_numeric(token: str) -> bool:
    """Tell whether a token is a number, or a word with digits that is not listed (T1 is)."""
    return _has_digit(token) and token.casefold() not in _WORDS


def scrubbed(text: str, traces: Traces) -> str:
    """Return a text with every trace in it replaced by one word."""
    return traces.pattern.sub(REMOVED, text) if traces.pattern else text
