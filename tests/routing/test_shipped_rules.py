"""The rules and configurations that come with the project load, and the default rules send what people expect where they expect it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pacs_node.config import Settings, load_settings, shipped
from pacs_node.routing import Rules, SeriesView, jobs, load, route, views

CONFIG = shipped("config")
BUNDLES = ("ct-head", "ct-body")
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


@pytest.mark.parametrize(("modality", "work"), [("MR", [""]), ("PT", [""]), ("US", [""]), ("SR", []), ("OT", [])])
def test_other_modalities_get_a_notice_or_nothing(default_rules: Rules, series: Callable[..., SeriesView], modality: str, work: list[str]) -> None:
    decisions = route(default_rules, [series(Modality=modality)])

    assert [job.pipeline for job in jobs(decisions)] == work
    assert any(decision.fired for decision in decisions)  # at least the last rule says what became of the study


def test_a_pet_ct_gets_its_ct_analysed_and_a_notice_for_the_pet(default_rules: Rules, series: Callable[..., SeriesView]) -> None:
    assert pipelines(default_rules, [series(StudyDescription="PET CT"), series(Modality="PT")]) == ["ct-body", ""]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [("ct-ge-head-tilt", {"ct-head"}), ("ct-philips-headphantom-5mm", {"ct-head"}), ("acrin-nsclc-fdg-pet-042", {"ct-body", ""})],
)
def test_real_studies_go_where_a_person_would_send_them(default_rules: Rules, dataset_folder: Callable[[str], Path], name: str, expected: set[str]) -> None:
    headers = []
    for file in sorted(dataset_folder(name).rglob("*")):
        try:
            headers.append(dcmread(file, stop_before_pixels=True))
        except (InvalidDicomError, IsADirectoryError):
            continue

    assert headers
    assert set(pipelines(default_rules, views(headers))) == expected


def test_compiled_rules_travel_to_other_processes(tmp_path: Path) -> None:
    import pickle

    from pacs_node.config import load_settings, shipped
    from pacs_node.routing import load

    settings: Settings = load_settings(None)
    names = {"ct-head", "ct-body", "mr-brain", "pt-body", "us-breast"}
    rules = load(shipped("config") / "rules.yaml", pipelines=names, destinations=settings.destinations)
    assert pickle.loads(pickle.dumps(rules)) == rules
