import pytest

from pacs_node.dicom.statuses import STATUSES, StatusClass, classify


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x0000, StatusClass.SUCCESS),
        (0xB000, StatusClass.WARNING),
        (0xB006, StatusClass.WARNING),
        (0xB007, StatusClass.WARNING),
        (0xB123, StatusClass.WARNING),
        (0x0107, StatusClass.WARNING),
        (0x0116, StatusClass.WARNING),
        (0x0111, StatusClass.TEMPORARY),
        (0x0122, StatusClass.PERMANENT),
        (0x0124, StatusClass.TEMPORARY),
        (0xA700, StatusClass.TEMPORARY),
        (0xA7FF, StatusClass.TEMPORARY),
        (0xA900, StatusClass.PERMANENT),
        (0xA9FF, StatusClass.PERMANENT),
        (0xC000, StatusClass.PERMANENT),
        (0xCFFF, StatusClass.PERMANENT),
        (0x0110, StatusClass.TEMPORARY),
        (0xA801, StatusClass.TEMPORARY),
        (0xFE00, StatusClass.TEMPORARY),
        (0xFF00, StatusClass.TEMPORARY),
    ],
)
def test_each_code_has_its_class_and_an_unknown_failure_is_temporary(code: int, kind: StatusClass) -> None:
    assert classify(code).kind is kind


def test_the_specific_warning_is_found_before_the_general_one() -> None:
    assert "coerced" in classify(0xB000).meaning
    assert "discarded" in classify(0xB006).meaning


def test_every_row_names_its_clause_and_a_range_that_is_one() -> None:
    assert all(row.clause.startswith("PS3.") and 0 <= row.first <= row.last <= 0xFFFF and row.meaning for row in STATUSES)
