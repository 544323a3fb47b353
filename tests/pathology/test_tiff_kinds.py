"""TIFF as software writes it: alpha, planes, channels, what is not read; one rule for each kind."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pathology_synthetic import SIDE, dicom, painted
from PIL import Image
from scipy import ndimage

from medcl.archive.store import prepare
from medcl.errors import MedclError, UsageError
from medcl_pathology.dataset import dataset
from medcl_pathology.encoders.resnet import resnet
from medcl_pathology.multiplex import read_tile
from medcl_pathology.plugin import plugin
from medcl_pathology.prepare import _picture
from medcl_pathology.reader import BadSlide, open_slide
from medcl_pathology.tiles import Grid
from medcl_pathology.views import views

OME = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5,
       "PhysicalSizeYUnit": "µm"}  # fmt: skip


def whole(path):
    slide = open_slide(path)
    width, height = slide.about.levels[0]
    return slide.region(0, 0, 0, width, height)


# -- alpha -------------------------------------------------------------------------------------


def on_white(rgba: np.ndarray) -> np.ndarray:
    share = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * share + 255 * (1 - share)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(0, 255), (0, 64, 128, 255)]),
    st.sampled_from([{"tile": (64, 64)}, {"rowsperstrip": 16}, {"tile": (64, 64), "planar": True},
                     {"rowsperstrip": 16, "planar": True}]),
)  # fmt: skip
def test_what_is_transparent_is_white_however_it_is_stored(tmp_path_factory, seed, shares, how):
    random = np.random.default_rng(seed)
    rgba = random.integers(0, 256, (150, 170, 4), dtype=np.uint8)
    rgba[..., 3] = random.choice(shares, rgba.shape[:2])
    how = dict(how)
    planar = how.pop("planar", False)
    path = tmp_path_factory.mktemp("alpha") / "a.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(rgba, -1, 0) if planar else rgba,
        photometric="rgb",
        planarconfig="separate" if planar else "contig",
        extrasamples=["unassalpha"],
        compression="deflate",
        metadata=None,
        **how,
    )
    # a colour of a small share is kept in few steps where OpenSlide multiplies it first
    assert np.abs(whole(path).astype(float) - on_white(rgba)).max() <= 2


def test_the_same_pixels_tiled_and_in_strips(shared_data):
    root = shared_data.parent / "cases" / "slides"
    if not root.is_dir():
        pytest.skip("no ../shared/cases/slides")
    tiled, strips = (whole(root / f"alpha_{name}.tif") for name in ("tiled", "strips"))
    assert np.array_equal(tiled, strips)
    assert (strips == 255).all(axis=2).any()


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("how", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
def test_grey_with_alpha_is_on_white(how, white, tmp_path):
    random = np.random.default_rng(0)
    grey, share = random.integers(0, 256, (2, 150, 170), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.dstack([255 - grey if white else grey, share]),
        photometric="miniswhite" if white else "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
        compression="deflate",
        metadata=None,
        **how,
    )
    wanted = on_white(np.dstack([grey, grey, grey, share]))
    assert np.abs(whole(tmp_path / "a.tif") - wanted).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_a_picture_of_more_than_8_bits_is_not_shown_white(mode, tmp_path):
    values = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    Image.fromarray(values.astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(MedclError, match="unsupported: .* more than 8 bits"):
        _picture(tmp_path / "a.tif", None, 0.5)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_a_plain_picture_is_on_white_too(mode, tmp_path):
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[:16, :, 3] = 255
    image = Image.fromarray(rgba)
    if mode == "P":
        image = image.convert("RGB").quantize(2)
        image.info["transparency"] = 0
        image.save(tmp_path / "a.png", transparency=0)
        assert (_picture(tmp_path / "a.png", None, 0.5) == 255).all()
        return
    image.convert(mode if mode != "PA" else "LA").save(tmp_path / "a.png")
    found = _picture(tmp_path / "a.png", None, 0.5)
    assert (found[:16] == 0).all()
    assert (found[16:] == 255).all()


# -- planes and channels -----------------------------------------------------------------------


def planes(path, image, layout, *, levels=1, names=None, tile=True, **extra):
    """An OME-TIFF of colours or channels (C, H, W): pages, planes of a page, or interleaved."""
    axes = {"pages": "CYX", "planar": "SYX", "interleaved": "YXS"}[layout]
    meta = {"axes": axes, **OME} | ({"Channel": {"Name": names}} if names else {})
    options = {
        "photometric": "minisblack" if layout == "pages" else "rgb",
        "compression": "deflate",
        **({"planarconfig": "separate"} if layout == "planar" else {}),
        **({"tile": (128, 128)} if tile else {"rowsperstrip": 50}),
        **extra,
    }
    shaped = np.moveaxis(image, 0, -1) if layout == "interleaved" else image
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(shaped, subifds=levels - 1, metadata=meta, **options)
        for n in range(1, levels):
            step = 2**n
            small = shaped[::step, ::step] if layout == "interleaved" else shaped[:, ::step, ::step]
            writer.write(small, subfiletype=1, metadata=None, **options)
    return path


@pytest.mark.parametrize("layout", ["pages", "planar", "interleaved"])
@pytest.mark.parametrize("tile", [True, False])
@pytest.mark.parametrize("levels", [1, 2])
def test_three_planes_are_colours_in_every_layout(layout, tile, levels, tmp_path):
    image = painted(700)
    names = ["Red", "Green", "Blue"] if layout == "pages" else None
    path = planes(tmp_path / "a.ome.tif", np.moveaxis(image, -1, 0), layout, levels=levels,
                  names=names, tile=tile)  # fmt: skip
    slide = open_slide(path)
    assert (slide.about.channels, slide.about.mpp, len(slide.about.levels)) == (
        (), (0.5, 0.5), levels
    )  # fmt: skip
    assert np.array_equal(whole(path), image)
    assert np.array_equal(slide.region(0, 120, 90, 33, 41), image[90:131, 120:153])
    if levels == 2:
        assert np.array_equal(slide.region(1, 0, 0, 350, 350), image[::2, ::2])


NAMES = ["DAPI", "CD8", "PanCK", "FOXP3", "Ki-67"]


def shining(count: int, dtype, side: int = SIDE) -> np.ndarray:
    """Cells that shine in the middle of a dark field, (count, side, side) (synthetic)."""
    random = np.random.default_rng(count)
    most = np.iinfo(dtype).max
    out = random.integers(0, most // 100, (count, side, side))
    part = slice(side // 4, 3 * side // 4)
    for n in range(count):
        out[n, part, part] += (random.random((side // 2, side // 2)) < 0.3) * (most // (3 + n))
    return out.astype(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_channels_are_a_kind_of_their_own(count, dtype, tmp_path, index):
    (tmp_path / "slides").mkdir()
    image = shining(count, dtype)
    planes(tmp_path / "slides" / "a.ome.tif", image, "pages", levels=2, names=NAMES[:count])
    made = index(tmp_path / "slides")
    assert made.rejects.is_empty()
    (row,) = made.items.to_dicts()
    assert (row["kind"], row["channels"]) == ("multiplex", "|".join(NAMES[:count]))
    prepared = prepare(made, plugin, {"size": 128, "mpp": 0.5})
    held = prepared.arrays(row["id"])
    assert np.asarray(held["mask"]).mean() == pytest.approx(0.25, abs=0.04)
    wanted = tuple(reversed(NAMES[:count]))
    samples = dataset(prepared.items, prepared.arrays, kind="multiplex", channels=wanted)
    batch = samples.read(np.arange(3))
    assert (batch["x"].shape, batch["x"].dtype) == ((3, count, 128, 128), np.float32)
    x, y = batch["coords"][1]
    exact = image[::-1, y : y + 128, x : x + 128] / np.iinfo(dtype).max
    assert batch["x"][1] == pytest.approx(exact, abs=1e-6)
    with pytest.raises(UsageError, match="images of channels and no RGB"):
        dataset(prepared.items, prepared.arrays)
    with pytest.raises(UsageError, match="not every image has 'CD99'"):
        dataset(prepared.items, prepared.arrays, kind="multiplex", channels=("CD99",))


def test_a_tile_of_another_scale_is_averaged(tmp_path):
    image = shining(2, np.uint16, 512)
    path = planes(tmp_path / "a.ome.tif", image, "pages", names=["DAPI", "CD8"])
    found = read_tile(open_slide(path), 64, 128, Grid.at(2.0, 64, (0.5, 0.5)))
    part = image[:, 128:384, 64:320] / 65535
    assert found == pytest.approx(part.reshape(2, 64, 4, 64, 4).mean((2, 4)), abs=1e-5)


def test_a_qptiff_names_its_channels(tmp_path):
    """PerkinElmer's and Akoya's: a page a channel, its name in each page's XML (synthetic)."""
    path = tmp_path / "a.qptiff"
    image = shining(4, np.uint8, 512)
    with tifffile.TiffWriter(path, bigtiff=False) as writer:
        for page, name in zip(image, NAMES, strict=False):
            xml = (
                '<?xml version="1.0" encoding="utf-8"?><PerkinElmer-QPI-ImageDescription>'
                f"<ImageType>FullResolution</ImageType><Name>{name}</Name>"
                "</PerkinElmer-QPI-ImageDescription>"
            )
            writer.write(page, tile=(256, 256), description=xml, metadata=None,
                         software="PerkinElmer-QPI", photometric="minisblack",
                         resolution=(20000, 20000), resolutionunit=3)  # fmt: skip
    slide = open_slide(path)
    assert slide.about.channels == tuple(NAMES[:4])
    assert slide.about.mpp == (0.5, 0.5)
    assert np.array_equal(slide.channels(0, 5, 7, 100, 90), image[:, 7:97, 5:105])


def test_views_and_encoders_without_stain():
    import torch

    x = torch.rand(2, 5, 64, 64)
    random = torch.Generator().manual_seed(0)
    with pytest.raises(UsageError, match=r"5 channels have no stain.*views.hed"):
        views(size=32)(x, random)
    assert views(size=32, hed=0.0, compress=0.0)(x, random).shape == (2, 5, 32, 32)
    assert resnet(depth=10, base=8, channels=5)(x).shape == (2, 64)
    with pytest.raises(UsageError, match="encoder.channels"):
        resnet(depth=10, base=8)(x)


# -- what is not read --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        (np.zeros((300, 300, 3), np.uint16), {"photometric": "rgb"}, "uint16"),
        (np.zeros((300, 300, 4), np.uint8), {"photometric": "separated"}, "CMYK"),
        (np.zeros((300, 300, 3), np.uint8), {"photometric": "cielab"}, "Lab"),
        (np.zeros((3, 300, 300), np.float64), {"photometric": "minisblack"}, "float64"),
    ],
)
@pytest.mark.parametrize("tile", [None, (128, 128)])
def test_what_is_not_read_is_not_called_damaged(image, options, words, tile, tmp_path, index):
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(tmp_path / "slides" / "a.tif", image, tile=tile, **options)
    made = index(tmp_path / "slides")
    if tile and words != "float64":  # libtiff, in OpenSlide, turns these into 8-bit RGB
        assert made.rejects.is_empty()
        assert whole(tmp_path / "slides" / "a.tif").shape == (300, 300, 3)
        return
    (reject,) = made.rejects.to_dicts()
    assert reject["code"] == "unsupported"
    assert "Copy it again" not in reject["reason"]
    assert words in reject["reason"]


def aperio(path, image, compression):
    said = f"Aperio Image Library v11\r\n{SIDE}x{SIDE} (256x256) |AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", compression=compression,
                     description=said, metadata=None)  # fmt: skip
    return path


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["zstd", "lzma", "webp", "jpegxl"])
def test_a_slide_of_an_odd_compression_is_read_or_unsupported(compression, tmp_path):
    image = painted()
    path = aperio(tmp_path / "a.svs", image, compression)
    try:
        slide = open_slide(path)
    except BadSlide as error:
        pytest.fail(f"{error.code}: {error}")
    assert (slide.about.mpp, slide.about.objective) == ((0.5, 0.5), 20.0)
    found = slide.region(0, 700, 800, 64, 48).astype(float)
    assert np.abs(found - image[800:848, 700:764]).mean() < (0.1 if compression != "webp" else 12)


def test_dicom_of_a_syntax_that_openslide_lacks(shared_data, tmp_path, index):
    file = shared_data.parent / "cases" / "slides" / "sm_image_jpegls.dcm"
    if not file.is_file():
        pytest.skip("no ../shared/cases/slides")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.dcm").write_bytes(file.read_bytes())
    (reject,) = index(tmp_path / "slides").rejects.to_dicts()
    assert reject["code"] == "unsupported"
    assert "Unsupported transfer syntax 1.2.840.10008.1.2.4.80" in reject["reason"]


def _sixteen_bits(data):
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelData = np.frombuffer(data.PixelData, np.uint8).astype("<u2").tobytes()


def _grey(data):
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    del data.PlanarConfiguration
    data.PixelData = data.PixelData[::3]


def _fluorescent(data):
    _grey(data)
    _sixteen_bits(data)


def _of_syntax(uid):
    def change(data):
        data.file_meta.TransferSyntaxUID = uid
        data.PixelData = pydicom.encaps.encapsulate(
            [b"\xff\xd8\xff\xf7" * 99] * data.NumberOfFrames
        )
        data["PixelData"].is_undefined_length = True

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_sixteen_bits, id="16 bits"),
        pytest.param(_grey, id="grey"),
        pytest.param(_fluorescent, id="grey, 16 bits"),
        *(
            pytest.param(_of_syntax(uid), id=name)
            for name, uid in {
                "JPEG-LS": "1.2.840.10008.1.2.4.80",
                "JPEG-LS, lossy": "1.2.840.10008.1.2.4.81",
                "JPEG lossless": "1.2.840.10008.1.2.4.70",
                "JPEG of 12 bits": "1.2.840.10008.1.2.4.51",
                "HTJ2K": "1.2.840.10008.1.2.4.201",
                "RLE": "1.2.840.10008.1.2.5",
                "MPEG4": "1.2.840.10008.1.2.4.102",
            }.items()
        ),
    ],
)
def test_dicom_that_is_not_read_is_never_called_damaged(change, tmp_path, index):
    path = dicom(tmp_path / "slides", painted()[:512, :512])
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path, enforce_file_format=True)
    made = index(tmp_path / "slides")
    for row in made.rejects.to_dicts():
        assert row["code"] == "unsupported"
        assert "OpenSlide does not read it: “" in row["reason"]
    assert len(made.rejects) + len(made.items) == 1
    for row in made.items.to_dicts():  # then its pixels are read too
        shown = open_slide(path).region(0, 0, 0, 512, 512)
        assert np.array_equal(shown, painted()[:512, :512]), row


@pytest.mark.parametrize("share", [0.3, 0.97])
@pytest.mark.parametrize("packed", [False, True])
def test_dicom_that_ends_too_soon_is_noticed(share, packed, tmp_path, index):
    path = dicom(tmp_path / "slides", painted()[:512, :512])
    if packed:
        data = pydicom.dcmread(path)
        _of_syntax("1.2.840.10008.1.2.4.50")(data)
        data.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(int(len(whole) * share), 1400)])
    (reject,) = index(tmp_path / "slides").rejects.to_dicts()
    assert reject["code"] == "truncated"


# -- scale -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mpp", "objective", "said"),
    [
        (0.5, 20, None), (0.25, 40, None), (0.23, 40, None), (0.46, 20, None), (1.0, 10, None),
        (0.25, 20, "mpp-against-magnification"), (0.5, 40, "mpp-against-magnification"),
        (0.5, None, None), (0.25, None, None), (0.35, None, None),
        (0.5 * 2.54, None, "unusual-mpp"), (0.25 * 2.54, None, "unusual-mpp"),
        (0.25 / 2.54, None, "unusual-mpp"), (2.0, None, "unusual-mpp"),
    ],
)  # fmt: skip
def test_scale_is_compared_with_the_magnification(mpp, objective, said):
    from medcl_pathology.scan import doubtful

    assert doubtful(mpp, objective) == said


# -- Zeiss and Hamamatsu: synthetic files of their structure --------------------------------------


def written_czi(path, image, kind="uncompressed:"):
    """A CZI by Zeiss's library (synthetic): it has more dimensions than OpenSlide knows."""
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(path), exist_ok=True, compression_options=kind) as file:
        file.write(np.ascontiguousarray(image[..., ::-1]), plane={"C": 0}, location=(100, 50))
        file.write_metadata(scale_x=0.5e-6, scale_y=0.5e-6)
    return path


@pytest.mark.parametrize("kind", ["uncompressed:", "zstd1:"])
def test_a_czi_that_openslide_does_not_read_is_read_by_zeiss(kind, tmp_path, index):
    image = painted()
    (tmp_path / "slides").mkdir()
    path = written_czi(tmp_path / "slides" / "slide7.czi", image, kind)
    slide = open_slide(path)
    assert slide.about.levels == ((SIDE, SIDE),)
    assert slide.about.mpp == pytest.approx((0.5, 0.5))
    assert np.array_equal(slide.region(0, 600, 700, 300, 200), image[700:900, 600:900])
    edge = slide.region(0, SIDE - 10, SIDE - 10, 20, 20)  # white behind the end
    assert np.array_equal(edge[:10, :10], image[-10:, -10:])
    assert (edge[10:] == 255).all()
    row = index(tmp_path / "slides").items.to_dicts()[0]
    assert row["kind"] == "slide"
    assert row["vendor"] == "zeiss"


def test_a_czi_of_channels_or_damaged_is_said_so(tmp_path, index, monkeypatch):
    czi = pytest.importorskip("pylibCZIrw.czi")
    (tmp_path / "slides").mkdir()
    with czi.create_czi(str(tmp_path / "slides" / "deep.czi"), exist_ok=True) as file:
        file.write(np.zeros((64, 64, 1), np.uint16), plane={"C": 0})
    whole = written_czi(tmp_path / "slides" / "whole.czi", painted())
    (tmp_path / "slides" / "torn.czi").write_bytes(whole.read_bytes()[:3000])
    made = index(tmp_path / "slides")
    codes = {row["code"]: row["reason"] for row in made.rejects.to_dicts()}
    assert "Gray16" in codes["unsupported"]
    assert set(codes) <= {"unsupported", "unreadable"}
    assert made.rejects.height == 2
    assert made.items.height == 1
    monkeypatch.setattr("medcl_pathology.czi.installed", lambda: False)
    with pytest.raises(BadSlide, match=r"OpenSlide does not read it.*medcl\[czi\]"):
        open_slide(written_czi(tmp_path / "other.czi", painted()))


def test_a_synthetic_ndpi_is_read(tmp_path):
    """TIFF with Hamamatsu's tags: one JPEG a level, magnification as a number."""
    imagecodecs = pytest.importorskip("imagecodecs")
    smooth = ndimage.gaussian_filter(painted().astype(float), (6, 6, 0)).astype(np.uint8)
    tags = [(65420, 4, 1, 1, False), *[(n, 9, 1, 0, False) for n in (65422, 65423, 65424)]]
    packed = imagecodecs.jpeg8_encode(smooth, level=95)
    with tifffile.TiffWriter(tmp_path / "a.ndpi") as writer:
        writer.write(
            iter([packed]),
            shape=smooth.shape,
            dtype=np.uint8,
            photometric="ycbcr",
            compression="jpeg",
            rowsperstrip=SIDE,
            metadata=None,
            resolution=(20000, 20000),
            resolutionunit=3,
            software="synthetic",
            extratags=[*tags, (65421, 11, 1, 20.0, False)],
        )
    slide = open_slide(tmp_path / "a.ndpi")
    assert slide.about.vendor == "hamamatsu"
    assert slide.about.mpp == pytest.approx((0.5, 0.5))
    assert slide.about.objective == 20
    found = slide.region(0, 700, 800, 256, 256).astype(int)
    assert np.abs(found - smooth[800:1056, 700:956]).mean() < 3
