"""The same picture in every transfer syntax is the same pixels; with loss, what another maker's decoder gives."""

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000, JPEG2000MC, JPEGLSNearLossless

from pacs_node.analysis import pixels
from pacs_node.dicom.header import read_header, read_object, with_pixels
from pacs_node.errors import UndecodablePixels, UnreadableObject

pytestmark = pytest.mark.slow

Folder = Callable[[str], Path]

CT = "ct-transfer-syntaxes/packages/dicomImageLoader/testImages"
CT_LOSSLESS = ("1.2", "1.2.1", "1.2.2", "1.2.1.99", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5")
CT_JPEG = ("50", "51", "53", "55")
US = "us-pydicom-data/data_store/data"


def find(dataset_folder: Folder, path: str) -> Path:
    """The file of a set by its path, the set's name first."""
    name, _, rest = path.partition("/")
    return dataset_folder(name) / rest


def ct_file(dataset_folder: Folder, syntax: str) -> Path:
    return next(find(dataset_folder, CT).glob(f"CTImage.dcm_*TransferSyntax_1.2.840.10008.{syntax}.dcm"))


def every_frame(path: Path, decode: Callable[..., NDArray[np.generic]]) -> NDArray[np.float64]:
    dataset = read_object(path)
    return np.stack([decode(dataset, number) for number in range(1, int(dataset.get("NumberOfFrames") or 1) + 1)]).astype(float)


def stored(path: Path) -> NDArray[np.float64]:
    return every_frame(path, pixels.stored_values)


def shown(path: Path) -> NDArray[np.float64]:
    return every_frame(path, pixels.shown_values)


def by_dcmtk(program: str, path: Path, folder: Path) -> NDArray[np.float64]:
    """What DCMTK decodes, as (frames, rows, columns[, samples])."""
    out = folder / "plain.dcm"
    subprocess.run([program, str(path), str(out)], check=True, capture_output=True)
    dataset = dcmread(out)
    values = pixel_array(dataset).astype(float)
    return values if int(dataset.get("NumberOfFrames") or 1) > 1 else values[None]


@pytest.mark.parametrize("syntax", CT_LOSSLESS)
def test_ct_without_loss_is_the_same_in_every_syntax(dataset_folder: Folder, syntax: str) -> None:
    assert np.array_equal(stored(ct_file(dataset_folder, syntax)), stored(find(dataset_folder, CT) / "CTImage.dcm"))


@pytest.mark.peers
@pytest.mark.parametrize("process", CT_JPEG)
def test_ct_in_jpeg_with_loss_is_what_dcmtk_decodes(dataset_folder: Folder, tool: Callable[[str], str], tmp_path: Path, process: str) -> None:
    path = ct_file(dataset_folder, f"1.2.4.{process}")
    assert np.abs(stored(path) - by_dcmtk(tool("dcmdjpeg"), path, tmp_path)).max() <= 1


@pytest.mark.peers
def test_fragments_without_an_offset_table_belong_to_their_frames(dataset_folder: Folder, tool: Callable[[str], str], tmp_path: Path) -> None:
    path = find(dataset_folder, CT) / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"
    found = stored(path)
    assert len(found) == 2
    assert np.abs(found - by_dcmtk(tool("dcmdjpeg"), path, tmp_path)).max() <= 1


@pytest.mark.peers
def test_ct_in_jpeg_ls_with_loss_is_what_dcmtk_decodes(dataset_folder: Folder, tool: Callable[[str], str], tmp_path: Path) -> None:
    path = ct_file(dataset_folder, "1.2.4.81")
    assert read_object(path).file_meta.TransferSyntaxUID == JPEGLSNearLossless
    assert np.abs(stored(path) - by_dcmtk(tool("dcmdjpls"), path, tmp_path)).max() <= 1


@pytest.mark.parametrize("name", [f"{CT}/*.91.dcm", f"{US}/MR2_J2KI.dcm"])
def test_jpeg_2000_with_loss_is_what_gdcm_decodes(dataset_folder: Folder, name: str) -> None:
    folder, _, pattern = name.rpartition("/")
    path = next(find(dataset_folder, folder).glob(pattern))
    dataset = read_object(path)
    assert dataset.file_meta.TransferSyntaxUID in (JPEG2000, JPEG2000MC)
    assert np.abs(stored(path)[0] - pixel_array(dataset, decoding_plugin="gdcm").astype(float)).max() <= 1


@pytest.mark.parametrize("number", range(2, 10))
def test_mr_is_the_same_in_every_syntax(dataset_folder: Folder, number: int) -> None:
    folder = dataset_folder("mr-transfer-syntaxes") / "In"
    assert np.array_equal(stored(folder / f"{number}.dcm"), stored(folder / "1.dcm"))


@pytest.mark.parametrize("name", ["CT1", "CT2", "MR1", "MR2", "MR3", "MR4"])
def test_htj2k_is_what_the_decoder_of_pillow_gives(dataset_folder: Folder, name: str) -> None:
    path = dataset_folder("htj2k-wrapped") / f"{name}_HTJ2K.dcm"
    dataset = read_object(path)
    picture = np.asarray(Image.open(BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=1)))).astype(float)
    shift = 2 ** (dataset.BitsStored - 1) if dataset.PixelRepresentation else 0  # pillow makes signed samples unsigned
    assert np.array_equal(stored(path)[0], picture - shift)


def test_htj2k_gives_the_pixels_of_the_same_picture_in_jpeg_2000(dataset_folder: Folder) -> None:
    assert np.array_equal(stored(dataset_folder("htj2k-wrapped") / "MR2_HTJ2K.dcm"), stored(find(dataset_folder, US) / "MR2_UNCR.dcm"))


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        ("MR2_J2KR.dcm", "MR2_UNCR.dcm"),
        ("US1_J2KR.dcm", "US1_UNCR.dcm"),
        ("OBXXXX1A_rle.dcm", "OBXXXX1A.dcm"),
        ("OBXXXX1A_expb.dcm", "OBXXXX1A.dcm"),
        ("OBXXXX1A_rle_2frame.dcm", "OBXXXX1A_2frame.dcm"),
        ("OBXXXX1A_expb_2frame.dcm", "OBXXXX1A_2frame.dcm"),
        ("gdcm-US-ALOKA-16_big.dcm", "gdcm-US-ALOKA-16.dcm"),
        ("color-px.dcm", "color-pl.dcm"),
    ],
)
def test_ultrasound_without_loss_is_the_same_in_every_syntax(dataset_folder: Folder, packed: str, plain: str) -> None:
    folder = find(dataset_folder, US)
    assert np.array_equal(shown(folder / packed), shown(folder / plain))


@pytest.mark.parametrize(("packed", "plain"), [("MR2_J2KI.dcm", "MR2_UNCI.dcm"), ("US1_J2KI.dcm", "US1_UNCI.dcm")])
def test_with_loss_the_pixels_are_those_of_the_decoded_file(dataset_folder: Folder, packed: str, plain: str) -> None:
    folder = find(dataset_folder, US)
    bits = read_object(folder / plain).BitsStored
    assert np.abs(shown(folder / packed) - shown(folder / plain)).max() <= 1.001 * 255 / (2**bits - 1)


@pytest.mark.peers
@pytest.mark.parametrize("name", [f"{US}/JPGLosslessP14SV1_1s_1f_8b.dcm", f"{CT}/TestPattern_JPEG-Lossless_RGB.dcm"])
def test_lossless_jpeg_is_what_dcmtk_decodes(dataset_folder: Folder, tool: Callable[[str], str], tmp_path: Path, name: str) -> None:
    path = find(dataset_folder, name)
    assert np.array_equal(shown(path), by_dcmtk(tool("dcmdjpeg"), path, tmp_path))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("TestPattern_JPEG-LS-Lossless.dcm", 0),
        ("TestPattern_JPEG-Lossless_RGB.dcm", 0),
        ("TestPattern_JPEG-LS-NearLossless.dcm", 10),
    ],
)
def test_colours_of_a_test_pattern_are_those_of_the_plain_one(dataset_folder: Folder, name: str, most: float) -> None:
    folder = find(dataset_folder, CT)
    assert np.abs(shown(folder / name) - shown(folder / "TestPattern_RGB.dcm")).max() <= most


@pytest.mark.peers
@pytest.mark.parametrize("name", ["TestPattern_JPEG-Baseline_YBR422.dcm", "TestPattern_JPEG-Baseline_YBRFull.dcm"])
def test_colour_jpeg_differs_from_dcmtk_only_at_edges(dataset_folder: Folder, tool: Callable[[str], str], tmp_path: Path, name: str) -> None:
    path = find(dataset_folder, CT) / name
    difference = np.abs(shown(path) - by_dcmtk(tool("dcmdjpeg"), path, tmp_path))
    assert np.mean(difference > 1) < 0.02  # decoders spread halved colour over pixels each in their own way


@pytest.mark.peers
@pytest.mark.parametrize(
    "name",
    [
        f"{CT}/TestPattern_Palette.dcm",
        f"{CT}/TestPattern_Palette_16.dcm",
        f"{CT}/no-pixel-spacing.dcm",
        f"{CT}/US-YBR_FULL_422-EVRLE.dcm",
        f"{US}/OBXXXX1A.dcm",
        f"{US}/US1_UNCR.dcm",
        f"{US}/color-px.dcm",
        f"{US}/color-pl.dcm",
    ],
)
def test_palettes_and_colour_models_are_what_dcmtk_shows(dataset_folder: Folder, tool: Callable[[str], str], tmp_path: Path, name: str) -> None:
    path = find(dataset_folder, name)
    subprocess.run([tool("dcmj2pnm"), str(path), str(tmp_path / "picture.ppm")], check=True, capture_output=True)
    assert np.abs(shown(path)[0] - np.asarray(Image.open(tmp_path / "picture.ppm"))).max() <= 1


def test_a_damaged_stream_of_twelve_bits_is_a_clear_refusal(dataset_folder: Folder) -> None:
    dataset = read_object(ct_file(dataset_folder, "1.2.4.51"))
    dataset.PixelData = encapsulate([get_frame(dataset.PixelData, 0, number_of_frames=1)[:4000]])
    with pytest.raises(UndecodablePixels, match="JPEG Extended"):
        pixels.stored_values(dataset)


def test_enhanced_frames_are_those_of_the_multi_frame_array(dataset_folder: Folder) -> None:
    path = find(dataset_folder, US) / "eCT_Supplemental.dcm"
    assert np.array_equal(stored(path), pixel_array(read_object(path)).astype(float))


# --- the pixels alone ------------------------------------------------------------------------------------------------------------

SETS = ("ct-transfer-syntaxes", "mr-transfer-syntaxes", "pydicom-test-files", "us-pydicom-data", "htj2k-wrapped", "pt-ct-small-suyashkumar")


def physical(image: Dataset) -> NDArray[np.float32] | str:
    """The first frame in physical units; of what cannot be decoded, the reason."""
    try:
        return pixels.read_physical(image)
    except UndecodablePixels as fault:
        return fault.args[0]


@pytest.mark.parametrize("name", SETS)
def test_pixels_read_without_their_header_are_those_of_the_whole_object(dataset_folder: Folder, name: str) -> None:
    """Every syntax, every oddity: the same values, or the same reason why there are none."""
    compared = 0
    for path in sorted(file for file in dataset_folder(name).rglob("*") if file.is_file()):
        try:
            header, whole = read_header(path), read_object(path)
        except UnreadableObject:
            continue
        parts = with_pixels(header, path)
        assert np.array_equal(np.asarray(physical(parts)), np.asarray(physical(whole)), equal_nan=not isinstance(physical(whole), str)), path.name
        compared += 1
    assert compared > 3
