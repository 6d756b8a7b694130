"""The rules and configurations that come with the project load, and the default rules send what people expect where they expect it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pacs_node.config import Settings, load_settings, shipped
from pacs_node.phantoms import PhantomSpec, write_study
from pacs_node.routing import Rules, SeriesView, jobs, load, render, route, views
from tests.conftest import ROOT

CONFIG = shipped("config")
BUNDLES = ("ct-head", "ct-body", "mr-brain", "pt-body", "us-breast")
MR, ENHANCED_MR, PET, ENHANCED_PET = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "4.1", "128", "130"))
US, US_LOOP, CAPTURE = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("6.1", "3.1", "7"))
SETTINGS = sorted(CONFIG.rglob("*node.yaml"))


@pytest.fixture(scope="module")
def default_rules() -> Rules:
    return load(CONFIG / "rules.yaml", pipelines=BUNDLES, destinations=Settings().destinations, assembly=Settings().assembly)


def pipelines(rules: Rules, study: Iterable[SeriesView]) -> list[str]:
    """Return the pipelines that the study goes to; ``""`` stands for a notice."""
    return [job.pipeline for job in jobs(route(rules, list(study)))]


def test_every_yaml_file_of_the_folder_is_one_that_is_loaded_here() -> None:
    rules = {file.with_name(file.name.replace("node.yaml", "rules.yaml")) for file in SETTINGS}

    assert len(SETTINGS) > 3
    assert set(CONFIG.rglob("*.yaml")) == {*SETTINGS, *rules}


@pytest.mark.parametrize("file", SETTINGS, ids=lambda file: file.name)
def test_each_configuration_loads_with_its_own_rules(file: Path) -> None:
    settings = load_settings(file)
    rules = file.with_name(file.name.replace("node.yaml", "rules.yaml"))

    loaded = load(rules, pipelines=BUNDLES, destinations=settings.destinations, senders=settings.reception.senders, assembly=settings.assembly)

    assert settings.node.rules is not None
    assert (CONFIG.parent / settings.node.rules).resolve() == rules.resolve()
    assert loaded.rules
    for destination in {name for rule in loaded.rules for name in rule.send_to if name != "sender"}:
        assert settings.destinations[destination].accepts_research


def test_node_yaml_shows_every_key_with_its_default() -> None:
    file = CONFIG / "node.yaml"
    shown = load_settings(file).model_dump()
    defaults = Settings().model_dump()

    assert shown["node"].pop("rules") == Path("config/rules.yaml")
    assert defaults["node"].pop("rules") is None
    assert shown == defaults
    assert keys(yaml.safe_load(file.read_text(encoding="utf-8"))) >= keys(defaults | {"destinations": None}) - {"destinations"}


def keys(data: Any, path: str = "") -> set[str]:
    if not isinstance(data, dict):
        return {path} if path else set()
    return {key for name, value in data.items() if name not in ("reserve", "high_watermark") for key in keys(value, f"{path}.{name}".lstrip("."))}


CT_CASES = [
    ({"BodyPartExamined": "HEAD"}, "ct-head"),
    ({"BodyPartExamined": "Brain"}, "ct-head"),
    ({"BodyPartExamined": "SKULL", "StudyDescription": "CT chest"}, "ct-head"),  # the series says it best
    ({"BodyPartExamined": "CHEST", "StudyDescription": "CT Head and Chest"}, "ct-body"),
    ({"BodyPartExamined": "HEADNECK"}, "ct-body"),
    ({"BodyPartExamined": "HEAD AND NECK"}, "ct-body"),
    ({"StudyDescription": "CT HEAD W/O CONTRAST"}, "ct-head"),
    ({"StudyDescription": "CCT nativ", "SeriesDescription": "Schädel 5.0 H31s"}, "ct-head"),
    ({"SeriesDescription": "Kopf nativ"}, "ct-head"),
    ({"ProtocolName": "1_HeadRoutine"}, "ct-head"),
    ({"ProtocolName": "Neuro/HeadSeq"}, "ct-head"),
    ({"StudyDescription": "TDM CRÂNE"}, "ct-head"),
    ({"StudyDescription": "CT brain", "SeriesDescription": "CORONAL"}, "ct-head"),
    ({"StudyDescription": "CT Head + C-Spine"}, "ct-body"),
    ({"StudyDescription": "CT Head trauma", "SeriesDescription": "C-Spine bone"}, "ct-body"),
    ({"StudyDescription": "PET/CT SKULL BASE TO MID THIGH"}, "ct-body"),
    ({"SeriesDescription": "CT Whole-Body head to toe"}, "ct-body"),
    ({"SeriesDescription": "Femoral head"}, "ct-body"),
    ({"SeriesDescription": "ABD HEAD FIRST"}, "ct-body"),
    ({"StudyDescription": "Overhead lines"}, "ct-body"),
    ({"StudyDescription": "LUNG"}, "ct-body"),
    ({"StudyDescription": "Scanner cérébral"}, "ct-head"),
    ({"StudyDescription": "TC encéfalo"}, "ct-head"),
    ({"StudyDescription": "Ganzkörper Schädelbasis bis Oberschenkel"}, "ct-body"),
    ({"StudyDescription": "Base du crâne à mi-cuisse"}, "ct-body"),
    ({"StudyDescription": "TDM tête et cou"}, "ct-body"),
    ({"StudyDescription": "Neuroendocrine tumour follow-up"}, "ct-body"),
    ({"SeriesDescription": "Pancreas head"}, "ct-body"),
    ({}, "ct-body"),
]


@pytest.mark.parametrize(("facts", "pipeline"), CT_CASES, ids=[str(facts) for facts, _ in CT_CASES])
def test_a_ct_goes_to_the_bundle_of_its_region(default_rules: Rules, series: Callable[..., SeriesView], facts: dict[str, str], pipeline: str) -> None:
    assert pipelines(default_rules, [series(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], SliceThickness="5", **facts)]) == [pipeline]


def test_what_holds_no_slices_is_left_out(default_rules: Rules, series: Callable[..., SeriesView], header: Callable[..., Dataset]) -> None:
    scout = series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SliceThickness="1", SeriesInstanceUID="1.1", BodyPartExamined="HEAD")
    thick = series(SliceThickness="650.2", SeriesInstanceUID="1.2", BodyPartExamined="HEAD")
    dose = series(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SeriesInstanceUID="1.3", BodyPartExamined="HEAD")
    facts = {"Modality": "CT", "BodyPartExamined": "HEAD", "SeriesInstanceUID": "1.4"}
    slices = [header(ImageType=["ORIGINAL", "PRIMARY", kind], **facts) for kind in ("LOCALIZER", "AXIAL")]

    assert pipelines(default_rules, [scout, thick, dose]) == []
    [job] = jobs(route(default_rules, [scout, thick, dose, series(*slices)]))
    assert (job.pipeline, job.series_uids) == ("ct-head", ("1.4",))  # one scout among the slices does no harm


def test_an_enhanced_ct_is_found_by_its_functional_groups(default_rules: Rules, series: Callable[..., SeriesView], header: Callable[..., Dataset]) -> None:
    enhanced = header(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", BodyPartExamined="HEAD", SeriesInstanceUID="1.1", NumberOfFrames="2")
    group, measures = Dataset(), Dataset()
    measures.SliceThickness = "3"
    group.PixelMeasuresSequence = [measures]
    enhanced.SharedFunctionalGroupsSequence = [group]

    assert pipelines(default_rules, [series(enhanced)]) == ["ct-head"]
    measures.SliceThickness = "400"
    assert pipelines(default_rules, [series(enhanced)]) == []


MR_CASES = [
    ({"BodyPartExamined": "BRAIN"}, "mr-brain"),
    ({"BodyPartExamined": "Head"}, "mr-brain"),
    ({"BodyPartExamined": "HEAD", "StudyDescription": "MRI cervical spine"}, "mr-brain"),  # the series says it best
    ({"BodyPartExamined": "BRAIN", "SOPClassUID": ENHANCED_MR}, "mr-brain"),
    ({"BodyPartExamined": "BRAIN", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.4"}, "mr-brain"),
    ({"StudyDescription": "MRI BRAIN W/O CONTRAST", "SeriesDescription": "AX T1"}, "mr-brain"),
    ({"StudyDescription": "MRT Schädel nativ"}, "mr-brain"),
    ({"StudyDescription": "IRM cérébrale", "SeriesDescription": "AX FLAIR"}, "mr-brain"),
    ({"StudyDescription": "IRM ENCÉPHALE"}, "mr-brain"),
    ({"StudyDescription": "RM encefalo"}, "mr-brain"),
    ({"StudyDescription": "MRI hersenen"}, "mr-brain"),
    ({"SeriesDescription": "AX T2 BRAIN", "StudyDescription": "MRI brain and cervical spine"}, "mr-brain"),
    ({"SeriesDescription": "Brain AX T1 spin echo"}, "mr-brain"),  # a spin echo is no spine
    ({"StudyDescription": "MRT Hirn", "SeriesDescription": "T1 Spin-Echo hippocampus"}, "mr-brain"),
    ({"StudyDescription": "MRI brain", "SeriesDescription": "t1_mpr_ns_sag_p2_iso"}, "mr-brain"),  # MPRAGE, no reformat
    ({"StudyDescription": "MRI brain", "ImageType": ["DERIVED", "PRIMARY", "OTHER"], "LossyImageCompression": "01"}, "mr-brain"),
    ({"BodyPartExamined": "CSPINE"}, ""),
    ({"BodyPartExamined": "BREAST", "StudyDescription": "MRI brain"}, ""),
    ({"BodyPartExamined": "HEADNECK"}, ""),
    ({"StudyDescription": "MRI cervical spine"}, ""),
    ({"StudyDescription": "MRT HWS / Kopf-Hals"}, ""),
    ({"StudyDescription": "NEURO^SPINE", "SeriesDescription": "t2 sag"}, ""),
    ({"StudyDescription": "MR neurography brachial plexus"}, ""),
    ({"StudyDescription": "MRI brain", "SeriesDescription": "Sag T2 c-spine"}, ""),
    ({"StudyDescription": "IRM encéphale et rachis"}, ""),
    ({"StudyDescription": "MRT Hüftkopf"}, ""),
    ({"SeriesDescription": "AX T1"}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("facts", "pipeline"), MR_CASES, ids=[str(facts) for facts, _ in MR_CASES])
def test_an_mr_goes_to_the_brain_bundle_only_where_it_says_so(
    default_rules: Rules, series: Callable[..., SeriesView], facts: dict[str, Any], pipeline: str
) -> None:
    facts = {"SOPClassUID": MR, "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"], **facts}

    assert pipelines(default_rules, [series(Modality="MR", **facts)]) == [pipeline]


NOT_FOR_THE_MODEL = [
    {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    {"SeriesDescription": "3-pl T2* FGRE LOC"},
    {"SeriesDescription": "AAHead_Scout"},
    {"SeriesDescription": "Survey"},
    {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
    {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
    {"ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND", "MOSAIC"]},
    {"ScanningSequence": ["EP", "SE"]},
    {"EchoPlanarPulseSequence": "YES"},
    {"DiffusionBValue": 1000.0},
    {"AngioFlag": "Y"},
    {"SeriesDescription": "Ax DWI b1000"},
    {"SeriesDescription": "ADC map"},
    {"SeriesDescription": "SWI_Images"},
    {"SeriesDescription": "TOF_3D_multi-slab"},
    {"SeriesDescription": "gre_field_mapping"},
    {"SOPClassUID": CAPTURE},
]


LOGGED = [
    {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    {"SOPClassUID": CAPTURE},
    *({"SeriesDescription": text} for text in ("3-pl T2* FGRE LOC", "AAHead_Scout", "Survey")),
]


@pytest.mark.parametrize("facts", NOT_FOR_THE_MODEL, ids=str)
def test_the_largest_brain_series_is_chosen_among_those_that_the_model_can_judge(
    default_rules: Rules, series: Callable[..., SeriesView], facts: dict[str, Any]
) -> None:
    brain = {"Modality": "MR", "SOPClassUID": MR, "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"], "StudyDescription": "MRI brain"}
    large = series(count=9, **{**brain, **facts})
    t1 = series(SeriesInstanceUID="1.1", SeriesDescription="AX T1", **brain)

    assert [(job.pipeline, job.series_uids) for job in jobs(route(default_rules, [large, t1]))] == [("mr-brain", ("1.1",))]
    assert pipelines(default_rules, [large]) == ([] if facts in LOGGED else [""])  # for the others a notice says so


def test_one_map_among_the_slices_of_a_series_does_no_harm(default_rules: Rules, series: Callable[..., SeriesView], header: Callable[..., Dataset]) -> None:
    facts = {"Modality": "MR", "SOPClassUID": MR, "BodyPartExamined": "BRAIN", "SeriesInstanceUID": "1.1"}
    mixed = [header(ImageType=["ORIGINAL", "PRIMARY", kind], **facts) for kind in ("P", "M", "LOCALIZER")]

    assert pipelines(default_rules, [series(*mixed)]) == ["mr-brain"]


def test_frames_of_enhanced_objects_say_what_they_show(default_rules: Rules, series: Callable[..., SeriesView], header: Callable[..., Dataset]) -> None:
    def enhanced(region: str, b_value: float | None) -> SeriesView:
        shown = header(Modality="MR", SOPClassUID=ENHANCED_MR, SeriesInstanceUID="1.1", NumberOfFrames="2")
        group, anatomy, code, diffusion = Dataset(), Dataset(), Dataset(), Dataset()
        code.CodeMeaning, anatomy.AnatomicRegionSequence, group.FrameAnatomySequence = region, [code], [anatomy]
        if b_value is not None:
            diffusion.DiffusionBValue, group.MRDiffusionSequence = b_value, [diffusion]
        shown.SharedFunctionalGroupsSequence = [group]
        return series(shown)

    assert pipelines(default_rules, [enhanced("Brain", None)]) == ["mr-brain"]
    assert pipelines(default_rules, [enhanced("Brain", 1000.0)]) == [""]
    assert pipelines(default_rules, [enhanced("Knee", None)]) == [""]


PT_CASES = [
    ({}, "pt-body"),
    ({"BodyPartExamined": "CHEST"}, "pt-body"),
    ({"SOPClassUID": ENHANCED_PET}, "pt-body"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128.1"}, "pt-body"),
    ({"StudyDescription": "PET/CT SKULL BASE TO MID THIGH"}, "pt-body"),
    ({"StudyDescription": "PET-CT Schädelbasis - Oberschenkel"}, "pt-body"),
    ({"StudyDescription": "TEP base du crâne à mi-cuisses"}, "pt-body"),
    ({"SeriesDescription": "WB head to toe"}, "pt-body"),
    ({"StudyDescription": "PET/CT head and neck"}, "pt-body"),
    ({"StudyDescription": "Ga-68 DOTATATE neuroendocrine tumour"}, "pt-body"),
    ({"StudyDescription": "PET whole body with brain"}, "pt-body"),
    ({"CorrectedImage": ["DECY", "ATTN", "SCAT"]}, "pt-body"),
    ({"BodyPartExamined": "BRAIN"}, ""),
    ({"BodyPartExamined": "HEAD", "SOPClassUID": ENHANCED_PET}, ""),
    ({"StudyDescription": "brain PET"}, ""),
    ({"StudyDescription": "PET/CT cérébral FDG"}, ""),
    ({"ProtocolName": "PET_Hirn"}, ""),
]


@pytest.mark.parametrize(("facts", "pipeline"), PT_CASES, ids=[str(facts) for facts, _ in PT_CASES])
def test_a_pet_is_of_the_body_unless_it_says_head(default_rules: Rules, series: Callable[..., SeriesView], facts: dict[str, Any], pipeline: str) -> None:
    facts = {"SOPClassUID": PET, "ImageType": ["ORIGINAL", "PRIMARY"], "SeriesType": ["WHOLE BODY", "IMAGE"], **facts}

    assert pipelines(default_rules, [series(Modality="PT", **facts)]) == [pipeline]


@pytest.mark.parametrize(
    "facts",
    [
        {"CorrectedImage": ["DECY", "NORM"]},
        {"AttenuationCorrected": "NO"},
        {"SeriesType": ["DYNAMIC", "IMAGE"]},
        {"SeriesType": ["WHOLE BODY", "REPROJECTION"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
        {"SOPClassUID": CAPTURE},
    ],
    ids=str,
)
def test_of_several_pet_series_one_with_uptake_values_is_chosen(default_rules: Rules, series: Callable[..., SeriesView], facts: dict[str, Any]) -> None:
    plain = {"Modality": "PT", "SOPClassUID": PET, "ImageType": ["ORIGINAL", "PRIMARY"]}
    other = series(count=9, SeriesNumber="1", **{**plain, **facts})
    corrected = series(CorrectedImage=["DECY", "ATTN"], SeriesNumber="2", SeriesInstanceUID="1.2", **plain)

    assert [(job.pipeline, job.series_uids) for job in jobs(route(default_rules, [other, corrected]))] == [("pt-body", ("1.2",))]


US_CASES = [
    ({"BodyPartExamined": "BREAST"}, "us-breast"),
    ({"BodyPartExamined": "Mamma"}, "us-breast"),
    ({"BodyPartExamined": "BREAST", "SOPClassUID": US_LOOP}, "us-breast"),
    ({"StudyDescription": "US BREAST LEFT LIMITED"}, "us-breast"),
    ({"StudyDescription": "Ultrasound both breasts"}, "us-breast"),
    ({"StudyDescription": "Mammasonographie bds."}, "us-breast"),
    ({"StudyDescription": "Sono Brust links"}, "us-breast"),
    ({"StudyDescription": "Sono Brustdrüse"}, "us-breast"),
    ({"StudyDescription": "Échographie mammaire"}, "us-breast"),
    ({"StudyDescription": "ECHO SEINS"}, "us-breast"),
    ({"StudyDescription": "Ecografía de mama"}, "us-breast"),
    ({"StudyDescription": "Ecografia mammella sinistra"}, "us-breast"),
    ({"StudyDescription": "Ecografia al seno"}, "us-breast"),
    ({"StudyDescription": "Ecografia senologica"}, "us-breast"),
    ({"StudyDescription": "Echo borst rechts"}, "us-breast"),
    ({"SeriesDescription": "Borstecho"}, "us-breast"),
    ({"ProtocolName": "Breast_2D"}, "us-breast"),
    ({"BodyPartExamined": "ABDOMEN", "StudyDescription": "US breast"}, ""),
    ({"BodyPartExamined": "THYROID"}, ""),
    ({"StudyDescription": "Brustwirbelsäule"}, ""),
    ({"StudyDescription": "Sono Brust-Wirbelsäule"}, ""),
    ({"StudyDescription": "Brustbein / Sternum"}, ""),
    ({"StudyDescription": "Brustkorb"}, ""),
    ({"StudyDescription": "Brustwand rechts"}, ""),
    ({"StudyDescription": "Echo borstkas"}, ""),
    ({"StudyDescription": "Breastbone"}, ""),
    ({"StudyDescription": "Internal mammary artery"}, ""),
    ({"StudyDescription": "Ecografía senos paranasales"}, ""),
    ({"StudyDescription": "Seno maxilar"}, ""),
    ({"StudyDescription": "Abreast of things"}, ""),
    ({"StudyDescription": "Dessein"}, ""),
    ({"StudyDescription": "Small parts"}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("facts", "pipeline"), US_CASES, ids=[str(facts) for facts, _ in US_CASES])
def test_an_ultrasound_goes_to_the_breast_bundle_only_where_it_says_so(
    default_rules: Rules, series: Callable[..., SeriesView], facts: dict[str, str], pipeline: str
) -> None:
    assert pipelines(default_rules, [series(Modality="US", **{"SOPClassUID": US, **facts})]) == [pipeline]


def test_a_worksheet_of_a_breast_ultrasound_makes_no_work(default_rules: Rules, series: Callable[..., SeriesView]) -> None:
    study = {"Modality": "US", "StudyDescription": "US breast"}

    assert pipelines(default_rules, [series(SOPClassUID=US, **study), series(SOPClassUID=CAPTURE, **study)]) == ["us-breast"]


@pytest.mark.parametrize("modality", ["DX", "CR", "MG", "XA", "NM", "RF", "PX", "IO", "IVUS", "OPT", "SM", "xc"])
def test_modalities_without_a_pipeline_get_a_notice(default_rules: Rules, series: Callable[..., SeriesView], modality: str) -> None:
    assert pipelines(default_rules, [series(Modality=modality)]) == [""]


@pytest.mark.parametrize("modality", ["SR", "KO", "PR", "SEG", "RTSTRUCT", "RTDOSE", "DOC", "OT", "ECG", ""])
def test_what_holds_no_images_of_a_patient_is_logged_and_nothing_is_sent(default_rules: Rules, series: Callable[..., SeriesView], modality: str) -> None:
    decisions = route(default_rules, [series(Modality=modality)])

    assert jobs(decisions) == ()
    assert [decision.rule.name for decision in decisions if decision.fired] == ["anything else"]


def test_a_pet_ct_gets_both_parts_analysed(default_rules: Rules, series: Callable[..., SeriesView]) -> None:
    whole = [series(StudyDescription="PET CT"), series(Modality="PT", SOPClassUID=PET, StudyDescription="PET CT")]
    brain = [series(StudyDescription="PET CT brain"), series(Modality="PT", SOPClassUID=PET, StudyDescription="PET CT brain")]

    assert pipelines(default_rules, whole) == ["ct-body", "pt-body"]
    assert pipelines(default_rules, brain) == ["ct-head", ""]


def test_a_pet_mr_of_the_body_gets_its_pet_analysed_and_a_notice_for_the_mr(default_rules: Rules, series: Callable[..., SeriesView]) -> None:
    study = [series(Modality="MR", SOPClassUID=MR, SeriesDescription="VIBE Dixon"), series(Modality="PT", SOPClassUID=PET)]

    assert pipelines(default_rules, study) == ["", "pt-body"]


REAL = [
    ("ct-ge-head-tilt", {"ct-head"}),
    ("ct-philips-headphantom-5mm", {"ct-head"}),
    ("acrin-nsclc-fdg-pet-042", {"ct-body", "pt-body"}),
    ("mr-siemens-xa30-enhanced", {"mr-brain"}),
    ("mr-ge-spgr-defaced", {""}),  # says nothing about a body part
    ("mr-transfer-syntaxes", {""}),
    ("us-pydicom-data", {"", "ct-head"}),  # both hold an enhanced CT whose frames say Brain
    ("pt-ct-small-suyashkumar", {"", "pt-body", "ct-head"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), REAL)
def test_real_studies_go_where_a_person_would_send_them(default_rules: Rules, dataset_folder: Callable[[str], Path], name: str, expected: set[str]) -> None:
    studies = real_studies(dataset_folder(name))

    assert studies
    assert {pipeline for study in studies for pipeline in pipelines(default_rules, study)} == expected


@pytest.mark.slow
def test_of_a_real_pet_the_series_corrected_for_attenuation_is_chosen(default_rules: Rules, dataset_folder: Callable[[str], Path]) -> None:
    [study] = real_studies(dataset_folder("acrin-nsclc-fdg-pet-042"))
    chosen = {job.pipeline: job.series_uids for job in jobs(route(default_rules, study))}

    assert [one.description for one in study if one.series_uid in chosen["pt-body"]] == ["PET AC"]


@pytest.mark.slow
def test_of_a_real_brain_mr_the_anatomical_series_is_chosen(default_rules: Rules, dataset_folder: Callable[[str], Path]) -> None:
    studies = real_studies(dataset_folder("mr-siemens-xa30-enhanced"))
    chosen = {uid for study in studies for job in jobs(route(default_rules, study)) for uid in job.series_uids}

    assert {one.description for study in studies for one in study if one.series_uid in chosen} == {"anat-T1w_acq-tfl"}


def real_studies(folder: Path) -> list[tuple[SeriesView, ...]]:
    studies: dict[str, list[Dataset]] = {}
    for file in sorted(folder.rglob("*")):
        try:
            header = dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, IsADirectoryError):
            continue
        studies.setdefault(str(header.get("StudyInstanceUID")), []).append(header)
    return [views(headers) for headers in studies.values()]


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_configuration_in_the_readme_loads(tmp_path: Path) -> None:
    settings = [block for block in readme_blocks("yaml") if not block.startswith(("rules:", "variants:"))]  # grids: tests/workbench/test_grid.py

    assert len([block for block in settings if "archive:" in block]) >= 4
    for number, block in enumerate(settings):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        loaded = load_settings(file)
        if "archive:" in block:
            assert loaded.destinations["archive"].accepts_research


def test_the_archive_in_the_readme_knows_the_node_by_its_default_title_and_port() -> None:
    [orthanc] = [json.loads(block) for block in readme_blocks("json")]
    title, _, port = orthanc["DicomModalities"]["pacs-node"]

    assert (title, port) == (Settings().node.ae_titles[0], Settings().node.port)
    assert "/modalities/pacs-node/store" in readme_blocks("lua")[0]


@pytest.mark.slow
def test_the_rule_in_the_readme_is_explained_as_the_readme_shows(tmp_path: Path) -> None:
    [rule] = [block for block in readme_blocks("yaml") if block.startswith("rules:")]
    file = tmp_path / "rules.yaml"
    file.write_text((CONFIG / "rules.yaml").read_text(encoding="utf-8") + rule.removeprefix("rules:\n"), encoding="utf-8")
    rules = load(file, pipelines=BUNDLES, destinations=Settings().destinations)
    explained = []
    for sequence in ("FLAIR", "T1"):
        files = write_study(PhantomSpec(modality="MR", sequence=sequence), tmp_path / sequence)
        study = views(dcmread(path, stop_before_pixels=True) for path in files)
        explained.append("\n".join(render(route(rules, study))) + "\n")
        [job] = jobs(route(rules, study))
        assert job.priority == ("urgent" if sequence == "FLAIR" else "normal")

    shown = [block for block in readme_blocks("text") if block.startswith("rule ")]
    assert len(shown) == 2
    assert [block in text for block, text in zip(shown, explained, strict=True)] == [True, True]


def test_compiled_rules_travel_to_other_processes(tmp_path: Path) -> None:
    import pickle

    from pacs_node.config import load_settings, shipped
    from pacs_node.routing import load

    settings: Settings = load_settings(None)
    names = {"ct-head", "ct-body", "mr-brain", "pt-body", "us-breast"}
    rules = load(shipped("config") / "rules.yaml", pipelines=names, destinations=settings.destinations)
    assert pickle.loads(pickle.dumps(rules)) == rules
