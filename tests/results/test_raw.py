"""Representations in Raw Data objects: what is carried, what archives do to it, and the images that come out again."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit

from pacs_node.autoencoder import codec, codec_bytes
from pacs_node.autoencoder.codec_bytes import StreamError
from pacs_node.autoencoder.codec_pace import Pace
from pacs_node.autoencoder.embedding import embed
from pacs_node.config import Equipment
from pacs_node.dicom.header import made_by, read_object
from pacs_node.dicom.uids import node_device_uid
from pacs_node.errors import InputError, ResultRejected
from pacs_node.records import FALLBACKS, Notice, NoticeStatus, StoredImage
from pacs_node.results import BuildRequest, Origin, Representation, build, check_all, dciodvfy, latents, pack, rebuilt, save, stand_ins
from pacs_node.results.files import encode
from pacs_node.results.latents import unpack
from pacs_node.results.raw import CREATOR, FORMAT_UID, GROUP, open_raw, read_raw
from tests.results.studies import ALGORITHM, Shape, head, header, request


def images(count: int = 4, **attributes: object) -> list[StoredImage]:
    shape = Shape(slices=count, rows=48, columns=56, attributes=attributes)
    noise = np.random.default_rng(3).normal(0, 6, (count, 48, 56))
    return [StoredImage(header(shape, index), (head(shape) + noise[index]).astype(np.int16)[None], "MONOCHROME2") for index in range(count)]


def asked(near: int = 0, some: list[StoredImage] | None = None) -> BuildRequest:
    made, some = request(Shape(slices=4, rows=48, columns=56), kinds=("raw",)), some or images()
    assert made.finding is not None
    part = Representation(pack(some, near, ALGORITHM.device_uid), near, embed(made.finding.embedding))
    return replace(made, representation=part)


@pytest.fixture(scope="module")
def raw() -> Dataset:
    return build(asked())[0].dataset


def reread(dataset: Dataset, **options: object) -> Dataset:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, **options)
    return dcmread(BytesIO(buffer.getvalue()))


def origin(near: int = 0, method: str = "prediction") -> Origin:
    return Origin("2.25.77", near, method, 7.126, "node-1", Equipment(), None)


# --- the object ------------------------------------------------------------------------------------------------------------


def test_the_object_has_what_its_class_demands_and_passes_the_gate(raw: Dataset) -> None:
    assert raw.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66" and raw.CreatorVersionUID == FORMAT_UID
    assert raw.ContentDate and raw.ContentTime and "AcquisitionContextSequence" in raw
    made = asked()
    assert check_all(build(made), made.sources) == ()
    assert [str(item.ReferencedSOPInstanceUID) for item in raw.ReferencedInstanceSequence] == [str(one.SOPInstanceUID) for one in made.sources.analysed]


def test_the_gate_refuses_an_object_without_the_version_of_its_format() -> None:
    made = asked()
    objects = build(made)
    del objects[0].dataset.CreatorVersionUID
    assert "raw: CreatorVersionUID is missing or empty" in check_all(objects, made.sources)


@pytest.mark.parametrize("element", ["01", "03", "04", "10", "11", "12"])
def test_the_gate_refuses_an_object_without_what_its_block_must_hold(element: str) -> None:
    made = asked()
    objects = build(made)
    del objects[0].dataset[GROUP, 0x1000 + int(element, 16)]
    assert f"raw: the private block lacks (0091,xx{element})" in check_all(objects, made.sources)


@pytest.mark.parametrize("number", [1, 2])
def test_every_series_of_a_run_has_a_number_of_its_own(number: int) -> None:
    made = asked()
    made = replace(made, run=replace(made.run, number=number), kinds=("pm", "seg", "sc", "denoised", "raw", "sr", "ko"))
    found = {one.kind: one.dataset for one in build(made)}
    notice = request(Shape(slices=4), kinds=("notice",), notice=Notice(NoticeStatus.FAILED, "a fault"))
    [said] = build(replace(notice, run=replace(notice.run, number=number)))
    beside = [dataset for kind, instead in FALLBACKS.items() for dataset in stand_ins(found[kind], instead, {}, None)[:1]]
    numbers = [int(dataset.SeriesNumber) for dataset in (*found.values(), said.dataset, *beside)]
    assert len(numbers) == 10 == len(set(numbers)) and all(9000 + 20 * number < one < 9020 + 20 * number for one in numbers)


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_in_the_object(tmp_path: Path) -> None:
    [made] = build(asked())
    save(made, tmp_path / "raw.dcm")
    assert dciodvfy(tmp_path / "raw.dcm", None)[0] == ()


def test_building_again_gives_the_same_bytes(raw: Dataset) -> None:
    assert encode(raw) == encode(build(asked())[0].dataset)


def test_without_a_representation_nothing_is_built() -> None:
    with pytest.raises(ResultRejected, match="no representation to carry"):
        build(replace(asked(), representation=None))


def without_time() -> BuildRequest:
    made = asked()
    assert made.representation is not None
    return replace(made, representation=Representation(b"", 0, made.representation.embedding, "the images could not be encoded within 1.8 s"))


def test_where_there_was_no_time_the_object_holds_the_embedding_and_says_so() -> None:
    made = without_time()
    objects = build(made)
    assert check_all(objects, made.sources) == () and "embedding only" in objects[0].dataset.SeriesDescription
    found = read_raw(reread(objects[0].dataset), "x")
    assert found.embedding is not None and found.embedding.slices.shape == (4, 128)
    assert (found.content, found.stripped, found.lacking) == (b"", (), "the images could not be encoded within 1.8 s")
    with pytest.raises(InputError, match=r"x holds embeddings only \(the images could not be encoded within 1.8 s\): .*`pacs-node encode`"):
        open_raw(reread(objects[0].dataset), "x")


@pytest.mark.parametrize("element", ["01", "04", "11", "12"])
def test_the_gate_refuses_an_embedding_without_what_its_block_must_hold(element: str) -> None:
    made = without_time()
    objects = build(made)
    del objects[0].dataset[GROUP, 0x1000 + int(element, 16)]
    assert any("the private block lacks" in fault for fault in check_all(objects, made.sources))


def test_with_neither_images_nor_embedding_nothing_is_built() -> None:
    with pytest.raises(ResultRejected, match="neither a representation nor an embedding"):
        build(replace(asked(), representation=Representation(b"", 0, None, "no time")))


def test_packing_in_time_gives_the_same_bytes_and_says_what_was_chosen() -> None:
    chosen: list[str] = []
    assert pack(images(), 0, "1.2", Pace(1e9), chosen.append) == pack(images(), 0, "1.2")
    assert len(chosen) == 1 and "smaller than" in chosen[0]


# --- what archives do to it --------------------------------------------------------------------------------------------------


def assert_whole(back: Dataset) -> None:
    found, unpacked = open_raw(back, "back.dcm")
    assert found.stripped == () and found.model_uid == ALGORITHM.device_uid
    assert found.embedding is not None and found.embedding.slices.shape == (4, 128)
    assert all(np.array_equal(one.values, other.values) for one, other in zip(unpacked.images, images(), strict=True))


def test_it_is_read_back_as_it_was_written(raw: Dataset) -> None:
    assert_whole(reread(raw))


def test_it_is_read_back_after_implicit_vr_and_as_unknown_vr(raw: Dataset) -> None:
    implicit = reread(_stored_as(reread(raw), ImplicitVRLittleEndian))
    assert_whole(implicit)
    block = [tag for tag in implicit.keys() if tag.group == GROUP and tag.element > 0xFF]  # noqa: SIM118
    assert {implicit[tag].VR for tag in block} == {"UN"}
    explicit = reread(_stored_as(implicit, raw.file_meta.TransferSyntaxUID))
    assert {explicit[tag].VR for tag in block} == {"UN"}
    assert_whole(explicit)


def _stored_as(dataset: Dataset, syntax: str) -> Dataset:
    dataset.file_meta.TransferSyntaxUID = syntax
    for attribute in ("_read_implicit", "_read_little"):
        if hasattr(dataset, attribute):
            setattr(dataset, attribute, None)
    return dataset


@pytest.mark.peers
@pytest.mark.skipif(shutil.which("dcmconv") is None, reason="dcmconv (dcmtk) is not installed")
def test_dcmtk_may_turn_it_to_implicit_vr_and_back(raw: Dataset, tmp_path: Path) -> None:
    (tmp_path / "raw.dcm").write_bytes(encode(raw))
    subprocess.run(["dcmconv", "+ti", tmp_path / "raw.dcm", tmp_path / "implicit.dcm"], check=True)
    subprocess.run(["dcmconv", "+te", tmp_path / "implicit.dcm", tmp_path / "explicit.dcm"], check=True)
    assert_whole(read_object(tmp_path / "implicit.dcm"))
    assert_whole(read_object(tmp_path / "explicit.dcm"))


def test_another_block_number_is_found_by_the_creator(raw: Dataset) -> None:
    moved = Dataset()
    moved.update({element.tag: element for element in raw if element.tag.group != GROUP})
    moved.file_meta = raw.file_meta
    moved.private_block(GROUP, "SOMEBODY ELSE", create=True).add_new(0x10, "OB", b"no business of ours.")
    block = moved.private_block(GROUP, CREATOR, create=True)
    for element in raw.group_dataset(GROUP):
        if element.tag.element > 0xFF:
            block.add_new(element.tag.element & 0xFF, element.VR, element.value)
    assert_whole(reread(moved))


def without(raw: Dataset, *elements: int) -> Dataset:
    left = reread(raw)
    for element in elements:
        del left[GROUP, element]
    return left


def test_what_an_archive_took_out_is_said(raw: Dataset) -> None:
    found = read_raw(without(raw, 0x1011), "x")
    assert found.embedding is None and found.stripped == ("the embeddings (0091,xx11)",)
    with pytest.raises(InputError, match=r"an archive has taken out the representation \(0091,xx10\).*keep the private elements"):
        read_raw(without(raw, 0x1010), "x")
    with pytest.raises(InputError, match="an archive has taken out"):
        read_raw(without(raw, 0x0010), "x")


def test_other_objects_other_versions_and_damage_are_refused_by_name(raw: Dataset) -> None:
    with pytest.raises(InputError, match=r"image.dcm is no Raw Data object"):
        read_raw(images()[0].header, "image.dcm")
    other = reread(raw)
    other.CreatorVersionUID = "1.2.3"
    with pytest.raises(InputError, match=r"Creator-Version UID 1\.2\.3 is not"):
        read_raw(other, "x")
    newer = reread(raw)
    content = newer[GROUP, 0x1010].value
    newer[GROUP, 0x1010].value = content[:5] + b"\2" + content[6:]
    with pytest.raises(InputError, match=r"x cannot be decoded: it is of format 2, this reader knows 1"):
        open_raw(newer, "x")
    for damaged in (content[:-60], content[:200] + b"\0" + content[201:], b"", b"PNREP"):
        newer[GROUP, 0x1010].value = damaged
        with pytest.raises(InputError, match="x cannot be decoded"):
            open_raw(newer, "x")


# --- the images ----------------------------------------------------------------------------------------------------------------


def test_a_decoded_image_is_a_new_derived_instance_of_the_same_patient_and_study() -> None:
    [before, *_] = images()
    again = unpack(pack(images(), 0)).images[0]
    made = reread(rebuilt(again, origin()))
    assert np.array_equal(made.pixel_array, before.values[0])
    assert made.SOPInstanceUID != before.header.SOPInstanceUID and made.SeriesInstanceUID != before.header.SeriesInstanceUID
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "ImagePositionPatient", "FrameOfReferenceUID", "PixelSpacing"):
        assert made[keyword].value == before.header[keyword].value
    assert list(made.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert made.SourceImageSequence[-1].ReferencedSOPInstanceUID == before.header.SOPInstanceUID
    assert made_by(made, node_device_uid("node-1"))
    assert "LossyImageCompression" not in made, "nothing was lost"
    assert rebuilt(again, origin()).SOPInstanceUID == made.SOPInstanceUID


@pytest.mark.parametrize("near", [1, 8])
def test_loss_is_declared_with_ratio_and_method(near: int) -> None:
    unpacked = unpack(pack(images(), near))
    made = reread(rebuilt(unpacked.images[2], origin(near)))
    assert np.abs(made.pixel_array.astype(int) - images()[2].values[0]).max() <= near
    assert (made.LossyImageCompression, made.LossyImageCompressionMethod) == ("01", "PACS_NODE_1") and float(made.LossyImageCompressionRatio) == 7.126
    assert made.DerivationCodeSequence[0].CodeValue == "113040" and f"at most {near} off" in made.DerivationDescription
    assert made.SeriesDescription == f"Axial 5 mm, decoded, error <= {near}"


def test_loss_of_the_source_is_never_taken_back() -> None:
    lossy = images(1, LossyImageCompression="01", LossyImageCompressionRatio="9", LossyImageCompressionMethod="ISO_10918_1")
    exact, further = (rebuilt(unpack(pack(lossy, near)).images[0], origin(near, "JPEG-LS")) for near in (0, 2))
    assert (exact.LossyImageCompression, exact.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert [str(one) for one in further.LossyImageCompressionMethod] == ["ISO_10918_1", "ISO_14495_1"]
    assert [float(one) for one in further.LossyImageCompressionRatio] == [9, 7.126]


def test_images_of_other_sizes_types_and_colours_come_back_in_their_order() -> None:
    mixed, random = images(6), np.random.default_rng(5)
    mixed[1] = replace(mixed[1], values=random.integers(0, 200, (1, 20, 30)).astype(np.uint8))
    mixed[2] = replace(mixed[2], values=random.integers(0, 200, (3, 20, 30, 3)).astype(np.uint8), photometric="RGB")
    mixed[4] = replace(mixed[4], values=np.full((1, 5, 7), -2000, np.int16))
    described = mixed[2].header
    described.SamplesPerPixel, described.BitsStored, described.HighBit, described.PixelRepresentation = 3, 8, 7, 0
    back = unpack(pack(mixed, 0)).images
    assert [str(one.header.SOPInstanceUID) for one in back] == [str(one.header.SOPInstanceUID) for one in mixed]
    assert all(np.array_equal(one.values, other.values) and one.values.dtype == other.values.dtype for one, other in zip(back, mixed, strict=True))
    colour = reread(rebuilt(back[2], origin()))
    assert colour.pixel_array.shape == (3, 20, 30, 3) and (colour.NumberOfFrames, colour.PlanarConfiguration, colour.PhotometricInterpretation) == (3, 0, "RGB")


NAMES = [("ISO_IR 192", "Wang^XiaoDong=王^小东"), ("GB18030", "Wang^XiaoDong=王^小东"), ("ISO_IR 144", "Люкceмбypг"), (None, "Doe^Jane")]


@pytest.mark.parametrize("charset, name", NAMES)
def test_names_and_private_elements_survive(charset: str | None, name: str) -> None:
    [one] = images(1, SpecificCharacterSet=charset, PatientName=name)
    one.header.private_block(0x0009, "SCANNER", create=True).add_new(0x01, "LO", "kept")
    made = reread(rebuilt(unpack(pack([one], 0)).images[0], origin()))
    assert made.PatientName == name and made.private_block(0x0009, "SCANNER")[0x01].value == "kept"


def test_two_patients_never_share_an_object() -> None:
    with pytest.raises(InputError, match="several patients or studies"):
        pack([*images(2), *images(1, PatientID="P-2")], 0)
    with pytest.raises(InputError, match="no image"):
        pack([], 0)


def test_a_source_whose_encoding_lost_something_is_lossy_although_its_header_does_not_say_so() -> None:
    [silent] = images(1)
    silent.header.file_meta = FileMetaDataset()
    silent.header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    exact = reread(rebuilt(unpack(pack([silent], 0)).images[0], origin()))
    assert (exact.LossyImageCompression, exact.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert "LossyImageCompression" not in silent.header, "what was given is left as it is"


def heavy(count: int, size: int) -> list[StoredImage]:
    some = images(count)
    for image in some:
        image.header.private_block(0x0009, "SCANNER", create=True).add_new(0x01, "OB", bytes(size))
    return some


def test_headers_beyond_what_one_compressed_part_may_hold_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_bytes, "_MOST_INFLATED", 100_000)
    monkeypatch.setattr(latents, "_TOGETHER", 80_000)
    back = unpack(pack(heavy(6, 30_000), 0)).images
    assert [str(one.header.SOPInstanceUID) for one in back] == [str(one.header.SOPInstanceUID) for one in images(6)]
    assert {len(one.header.private_block(0x0009, "SCANNER")[0x01].value) for one in back} == {30_000}


def test_a_header_that_no_reader_takes_is_refused_when_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_bytes, "_MOST_INFLATED", 100_000)
    with pytest.raises(InputError, match="headers cannot be read again"):
        pack(heavy(2, 100_001), 0)


@pytest.mark.slow
def test_three_headers_of_fifty_megabytes_come_back() -> None:
    assert len(unpack(pack(heavy(3, 50_000_000), 0)).images) == 3


def test_headers_that_promise_fewer_pixels_than_there_are_are_refused() -> None:
    some = images()
    some[2].header.Rows = 3
    with pytest.raises(InputError, match="more pixels than the headers say"):
        pack(some, 0)


def resealed(content: bytes) -> bytes:
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def test_streams_of_another_error_than_the_representation_says_are_refused() -> None:
    content = pack(images(), 8)
    at = 14 + 1  # behind the head and an empty model
    assert content[at] == 8
    with pytest.raises(StreamError, match="at most 0 off, and holds a stream of 8"):
        unpack(resealed(content[:at] + b"\0" + content[at + 1 :]))


def test_streams_that_claim_more_than_the_headers_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "_promised", lambda header: 48 * 56)
    content = pack(images(), 0)
    monkeypatch.setattr(latents, "_promised", lambda header: 48 * 55)
    monkeypatch.setattr(codec, "decode", lambda stream: pytest.fail("it was decoded"))
    with pytest.raises(StreamError, match="claim more pixels than its headers say"):
        unpack(content)


def test_series_of_the_same_size_have_streams_of_their_own_and_none_grows_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    some = images(5)
    some[1].header.SeriesInstanceUID = some[3].header.SeriesInstanceUID = "1.2.3"
    assert latents._stacks(some) == [[0, 2, 4], [1, 3]]
    monkeypatch.setattr(codec, "MOST_BYTES", 2 * some[0].values.nbytes)
    assert latents._stacks(some) == [[0, 2], [4], [1, 3]]
    back = unpack(pack(some, 0)).images
    assert all(np.array_equal(one.values, other.values) for one, other in zip(back, some, strict=True))


def test_the_headers_take_little_room() -> None:
    some = images()
    plain = sum(len(encode(rebuilt(one, origin()))) - one.values.nbytes for one in some)
    flat = [replace(one, values=np.zeros_like(one.values)) for one in some]
    assert len(pack(flat, 0)) < plain / 4


def test_the_same_images_give_the_same_representation() -> None:
    assert hashlib.sha256(pack(images(), 2)).digest() == hashlib.sha256(pack(images(), 2)).digest()
