"""Every rule that makes an SUV of PET pixels, with its number; and every reason for not making one."""

from dataclasses import replace
from datetime import datetime, time, timedelta

import pytest

from pacs_node.analysis import suv
from pacs_node.errors import NotAnalysable

F18 = 6586.2  # s
SCAN = datetime(2024, 5, 2, 10, 0, 0)
BED = suv.FrameTime(SCAN, 150.0, 300.0)
FACTS = suv.Facts(
    units="BQML",
    corrected=frozenset({"ATTN", "DECY", "SCAT"}),
    decay_correction="START",
    weight=70.0,
    dose=350e6,
    half_life=F18,
    injected_clock=time(9, 0),
    series=SCAN,
    frames=(BED,),
)
UNDECAYED = 70_000 / 350e6  # 2.0e-4 g/Bq


def decayed(seconds: float) -> float:
    return UNDECAYED * 2 ** (seconds / F18)


def test_activity_decays_from_injection_to_the_time_of_the_series() -> None:
    assert suv.factor(FACTS) == pytest.approx(decayed(3600))
    assert suv.factor(FACTS) == pytest.approx(2.9214e-4, rel=1e-4)  # 2.0e-4 · 2^(3600/6586.2)


def test_corrected_to_administration_the_activity_does_not_decay() -> None:
    assert suv.factor(replace(FACTS, decay_correction="ADMIN")) == pytest.approx(2.0e-4)


def test_the_series_time_counts_also_where_it_is_before_the_acquisition() -> None:
    assert suv.factor(replace(FACTS, frames=(replace(BED, acquired=SCAN + timedelta(minutes=20)),))) == pytest.approx(decayed(3600))


def test_a_series_made_later_than_the_acquisition_uses_the_vendors_scan_time() -> None:
    later = replace(FACTS, series=SCAN + timedelta(hours=3), vendor_scan=SCAN + timedelta(minutes=1))
    assert suv.factor(later) == pytest.approx(decayed(3660))


def test_without_a_vendors_time_the_scan_start_is_computed_back_from_each_bed_position() -> None:
    rate = 0.69314718056 / F18
    average = 149.605  # s: moment of average activity in a frame of 300 s, a little before its middle
    beds = tuple(suv.FrameTime(SCAN + timedelta(seconds=bed), bed + average, 300.0) for bed in (0.0, 300.0, 600.0))
    computed = suv.scan_start(replace(FACTS, series=SCAN + timedelta(hours=3), frames=beds))
    assert abs((computed - SCAN).total_seconds()) < 0.01
    assert average == pytest.approx(150 - rate * 300**2 / 24, abs=0.001)


def test_bed_positions_that_contradict_each_other_are_refused() -> None:
    beds = (BED, suv.FrameTime(SCAN, 450.0, 300.0))
    with pytest.raises(NotAnalysable, match="differ by 300 s"):
        suv.factor(replace(FACTS, series=SCAN + timedelta(hours=3), frames=beds))


@pytest.mark.parametrize(
    ("lacking", "name"), [({"reference": None}, "FrameReferenceTime"), ({"reference": 0.0}, "FrameReferenceTime"), ({"duration": None}, "ActualFrameDuration")]
)
def test_computing_back_needs_both_frame_times(lacking: dict[str, float | None], name: str) -> None:
    with pytest.raises(NotAnalysable, match=f"{name} is missing or zero"):
        suv.factor(replace(FACTS, series=SCAN + timedelta(hours=3), frames=(replace(BED, **lacking),)))


def test_an_enhanced_object_names_the_moment_itself() -> None:
    assert suv.factor(replace(FACTS, decay_corrected_to=SCAN - timedelta(hours=1), series=None, frames=())) == pytest.approx(UNDECAYED)


def test_an_injection_before_midnight_is_of_the_day_before() -> None:
    after = datetime(2024, 5, 2, 0, 30)
    assert suv.factor(replace(FACTS, series=after, frames=(replace(BED, acquired=after),), injected_clock=time(23, 30))) == pytest.approx(decayed(3600))


def test_the_full_moment_of_injection_wins_over_the_clock_time() -> None:
    assert suv.factor(replace(FACTS, injected_at=SCAN - timedelta(minutes=30))) == pytest.approx(decayed(1800))


def test_a_moment_of_injection_on_another_day_gives_way_to_the_clock_time() -> None:
    assert suv.factor(replace(FACTS, injected_at=SCAN - timedelta(days=400))) == pytest.approx(decayed(3600))
    with pytest.raises(NotAnalysable, match="not in the day before the scan"):
        suv.factor(replace(FACTS, injected_at=SCAN + timedelta(minutes=5), injected_clock=None))


def test_an_injection_just_after_the_scan_is_no_injection_of_the_day_before() -> None:
    with pytest.raises(NotAnalysable, match=r"23\.9 hours \(13 half-lives\) before the scan"):
        suv.factor(replace(FACTS, injected_clock=time(10, 5)))


def test_philips_counts_become_suv_by_the_factor_for_suv() -> None:
    counts = replace(FACTS, units="CNTS", philips_suv=4.1e-4, philips_activity=1.5)
    assert suv.factor(counts) == 4.1e-4


def test_where_that_factor_is_zero_counts_become_activity_first() -> None:
    counts = replace(FACTS, units="CNTS", philips_suv=0.0, philips_activity=1.5)
    assert suv.factor(counts) == pytest.approx(1.5 * decayed(3600))


def test_counts_without_factors_are_refused() -> None:
    with pytest.raises(NotAnalysable, match=r"\(7053,xx00\) and \(7053,xx09\)"):
        suv.factor(replace(FACTS, units="CNTS"))


@pytest.mark.parametrize("kind", ["", "BW"])
def test_grams_per_millilitre_are_suv_by_body_weight_already(kind: str) -> None:
    assert suv.factor(replace(FACTS, units="GML", suv_type=kind, weight=None, dose=None)) == 1.0


@pytest.mark.parametrize("kind", ["LBM", "LBMJAMES128", "LBMJANMA", "BSA", "IBW"])
def test_an_suv_by_anything_else_is_refused(kind: str) -> None:
    with pytest.raises(NotAnalysable, match=f"an SUV by {kind} and not by body weight"):
        suv.factor(replace(FACTS, units="GML", suv_type=kind))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"units": "PROPCNTS"}, "in PROPCNTS units"),
        ({"units": "PROPCPS"}, "in PROPCPS units"),
        ({"units": ""}, "without Units"),
        ({"corrected": frozenset({"DECY"})}, "not corrected for attenuation"),
        ({"corrected": frozenset({"ATTN"})}, "not corrected for decay"),
        ({"decay_correction": "NONE"}, "DecayCorrection is NONE"),
        ({"decay_correction": ""}, "DecayCorrection is missing"),
        ({"weight": None}, "PatientWeight is missing or zero"),
        ({"weight": 0.0}, "PatientWeight is missing or zero"),
        ({"dose": None}, "RadionuclideTotalDose is missing or zero"),
        ({"half_life": None}, "RadionuclideHalfLife is missing or zero"),
        ({"injected_clock": None}, "RadiopharmaceuticalStartTime is missing"),
        ({"series": None}, "SeriesTime is missing"),
        ({"frames": ()}, "AcquisitionTime is missing"),
        ({"radiopharmaceuticals": 2}, "2 radiopharmaceuticals"),
    ],
)
def test_what_is_missing_or_wrong_is_named(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(NotAnalysable, match=reason):
        suv.factor(replace(FACTS, **changes))
