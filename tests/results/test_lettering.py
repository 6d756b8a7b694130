"""Letters on a page: every character is drawn by a font that has it, or told in Latin letters; never an empty box."""

import numpy as np
import pytest
from PIL import ImageFont

from pacs_node.results import lettering
from pacs_node.results.canvas import AMBER, BLACK, GREY, LARGE, MEDIUM, SMALL, WHITE, fitted, shortened, width_of, wrapped
from pacs_node.results.drawing import HEIGHT, WIDTH

SCRIPTS = {
    "Japanese": "頭部単純CT検査 アタマ ひらがな",
    "Chinese": "腹部平扫",
    "Korean": "머리 CT",
    "Russian": "КТ головного мозга",
    "Greek": "Αξονική τομογραφία",
    "Arabic": "تصوير مقطعي للرأس",
    "Hebrew": "סי טי ראש",
    "Thai": "เอกซเรย์",
    "Hindi": "सिर का सीटी",
    "German": "Schädel, groß · 3 °",
    "signs": "−1 ≤ 2 × 3 µm … 👍 \ue000 \U000f0000",
}


@pytest.fixture(params=["with the wide font", "with Pillow's font alone"])
def fonts(request, monkeypatch):
    if request.param == "with the wide font":
        if lettering.wide_font() is None:
            pytest.skip("the extra 'fonts' is not installed")
    else:
        monkeypatch.setattr(lettering, "wide_font", lambda: None)
    lettering.lettering.cache_clear()
    yield request.param
    lettering.lettering.cache_clear()


def glyph(font, char):
    return bytes(font.getmask(char))


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_character_is_drawn_as_the_box_of_a_missing_one(fonts, script):
    drawn = lettering.lettering(SCRIPTS[script])
    font = lettering.font(40, drawn.wide)
    missing = glyph(font, "\U0010fffd")
    assert drawn.text and missing
    assert not [char for char in drawn.text if glyph(font, char) == missing]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("AI · 3°", "AI · 3°"),
        ("Größe", "Grosse"),
        ("−1 × 2", "-1 x 2"),
        ("КТ головного мозга", "KT golovnogo mozga"),
        ("アタマ ひらがな", "atama hiragana"),
        ("頭部", "TouBu"),
        ("e\u0301tude", "etude"),
        ("\ue000", "?"),
        ("a\u200fb\tc\n d", "ab c d"),
        ("", ""),
    ],
)
def test_without_the_wide_font_texts_are_written_in_latin_letters(monkeypatch, text, drawn):
    monkeypatch.setattr(lettering, "wide_font", lambda: None)
    lettering.lettering.cache_clear()
    assert lettering.lettering(text) == lettering.Lettering(drawn)
    lettering.lettering.cache_clear()


@pytest.mark.parametrize(
    ("text", "drawn", "wide"),
    [("頭部 CT", "頭部 CT", True), ("Größe", "Größe", True), ("КТ", "КТ", True), ("plain", "plain", False), ("مخ", "mkh", False), ("КТ مخ", "КТ mkh", True)],
)
def test_the_wide_font_draws_what_it_has_and_the_rest_is_written_in_latin_letters(text, drawn, wide):
    if lettering.wide_font() is None:
        pytest.skip("the extra 'fonts' is not installed")
    assert lettering.lettering(text) == lettering.Lettering(drawn, wide)


def test_the_fonts_own_characters_are_all_in_pillows_font():
    font = ImageFont.load_default(size=40)
    missing = glyph(font, "\U0010fffd")
    assert not [char for char in lettering._OWN if glyph(font, char) == missing]


def test_the_wide_font_is_known_to_be_absent_where_the_extra_is_not_installed(monkeypatch):
    monkeypatch.setattr(lettering, "_WIDE_PACKAGE", "no_such_package_of_fonts")
    lettering.wide_font.cache_clear()
    assert lettering.wide_font() is None
    lettering.wide_font.cache_clear()


# --- lines -------------------------------------------------------------------------------------------------------------


LINES = {
    "words": "a few words that need more than one line of the page",
    "one word": "w" * 300,
    "nothing": "",
    "short": "short",
    "Japanese": "頭部単純" * 40,
    "joints": "chest-and-abdomen-low-dose-v2",
}


@pytest.mark.parametrize("text", LINES.values(), ids=LINES)
def test_wrapped_lines_fit_and_lose_nothing(fonts, text):
    lines = wrapped(text, 25, 200)
    assert all(width_of(line, 25) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_long_word_is_broken_at_a_joint():
    assert wrapped("chest-and-abdomen-low-dose", 25, 230) == ["chest-and-", "abdomen-low-dose"]


@pytest.mark.parametrize("text", ["m" * 200, LINES["Japanese"], LINES["words"]], ids=["one word", "Japanese", "words"])
def test_a_line_that_is_too_long_is_cut_with_dots(fonts, text):
    cut = shortened(text, 28, 300)
    assert cut.endswith("...") and 200 < width_of(cut, 28) <= 300


def test_a_line_that_fits_is_not_cut():
    assert shortened("it fits", 28, width_of("it fits", 28)) == "it fits"


def test_no_more_lines_than_asked_for_and_the_last_one_says_that_there_is_more():
    text = "a few words that need more than one line of the page " * 3
    lines = fitted(text, 25, 300, 2)
    assert len(lines) == 2 and lines[1].endswith("...") and all(width_of(line, 25) <= 300 for line in lines)
    assert fitted("short", 25, 300, 2) == ["short"]


@pytest.mark.parametrize("size", [SMALL, MEDIUM, LARGE])
def test_type_is_at_least_eleven_pixels_high_where_a_page_is_shown_at_512(size):
    """From the top of a capital to the foot of a descender, in a viewport of 512 × 512 pixels."""
    left, top, right, bottom = lettering.font(size).getbbox("Hg")
    assert (bottom - top) * 512 / max(WIDTH, HEIGHT) >= 11 and right > left


@pytest.mark.parametrize("colour", [WHITE, GREY, AMBER])
def test_type_stands_out_from_the_page_at_the_stricter_ratio_of_the_web_guidelines(colour):
    """WCAG 2.2, success criterion 1.4.6: a contrast of 7 : 1 and more."""
    assert contrast(colour, BLACK) >= 7


def test_the_marks_on_pictures_are_seen_on_black_grey_and_white():
    """On dark grounds by themselves, on light ones by their outline; WCAG 2.2, criterion 1.4.3 for large type: 3 : 1."""
    assert all(max(contrast(AMBER, ground), contrast(BLACK, ground)) >= 3 for ground in ((level,) * 3 for level in range(256)))


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))
