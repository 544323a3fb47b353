"""OME-Zarr as NGFF 0.4 and 0.5 describe it, written here by hand around Zarr's arrays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcl.archive.store import prepare
from medcl_pathology.plugin import plugin
from medcl_pathology.reader import BadSlide, open_slide

zarr = pytest.importorskip("zarr")
SIDE = 512
MICRO = {"x": "micrometer", "y": "micrometer"}


def painted(side: int = SIDE) -> np.ndarray:
    """Pink tissue on glass, with noise."""
    rng = np.random.default_rng(0)
    image = np.full((side, side, 3), 240, dtype=np.uint8)
    inner = slice(side // 8, -side // 8)
    image[inner, inner] = np.array([200, 110, 170]) + rng.integers(
        -30, 30, (*image[inner, inner].shape,)
    )
    return image


def write(
    store: Path,
    image: np.ndarray,
    *,
    version: str = "0.4",
    axes: str = "cyx",
    scale: float = 0.5,
    units: dict[str, str] | None = None,
    omero: Any = None,
    levels: int = 2,
    inner: str = "",
    whole: float | None = None,
    chunk: int = 128,
) -> Path:
    """A pyramid of (rows, columns, channels) under these axes; t and z have one plane."""
    old = version == "0.4"
    group = store / inner
    described = []
    for level in range(levels):
        part = image[:: 2**level, :: 2**level]
        present = [axis for axis in axes if axis in "yxc"]
        part = (
            part.transpose(["yxc".index(axis) for axis in present]) if "c" in axes else part[..., 0]
        )
        shape = [dict(zip(present, part.shape, strict=True)).get(axis, 1) for axis in axes]
        chunks = [chunk if axis in "yx" else 1 for axis in axes]
        array = zarr.create_array(
            str(group / str(level)),
            shape=shape,
            chunks=[min(c, s) for c, s in zip(chunks, shape, strict=True)],
            dtype=image.dtype,
            zarr_format=2 if old else 3,
        )
        array[:] = part.reshape(shape)
        step = [scale * 2**level if axis in "yx" else 1.0 for axis in axes]
        described.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": step}]}
        )
    kinds = {"t": "time", "c": "channel"}
    named = [
        {"name": a, "type": kinds.get(a, "space")}
        | ({"unit": (units or MICRO)[a]} if a in (units or MICRO) else {})
        for a in axes
    ]
    scales: dict[str, Any] = {"axes": named, "datasets": described}
    if whole is not None:
        scales["coordinateTransformations"] = [
            {"type": "scale", "scale": [whole if a in "yx" else 1.0 for a in axes]}
        ]
    about = {"multiscales": [scales | ({"version": "0.4"} if old else {})]} | (
        {"omero": omero} if omero else {}
    )
    if old:
        (group / ".zgroup").write_text('{"zarr_format": 2}')
        (group / ".zattrs").write_text(json.dumps(about))
    else:
        header = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": about | {"version": "0.5"}},
        }
        (group / "zarr.json").write_text(json.dumps(header))
    return store


def opened(store: Path) -> Any:
    return open_slide(next(file for file in sorted(store.rglob("*")) if file.is_file()))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx", "czyx"])
def test_colours_come_out_as_they_went_in(tmp_path: Path, version: str, axes: str) -> None:
    image = painted()
    slide = opened(write(tmp_path / "a.ome.zarr", image, version=version, axes=axes))
    assert slide.about.levels == ((SIDE, SIDE), (SIDE // 2, SIDE // 2))
    assert slide.about.mpp == pytest.approx((0.5, 0.5))
    assert slide.about.channels == ()
    assert np.array_equal(slide.region(0, 100, 130, 90, 70), image[130:200, 100:190])
    assert np.array_equal(slide.region(1, 10, 20, 30, 40), image[::2, ::2][20:60, 10:40])
    edge = slide.region(0, SIDE - 5, -5, 10, 10)
    assert np.array_equal(edge[5:, :5], image[:5, -5:])
    assert (edge[:5] == 255).all()
    assert (edge[:, 5:] == 255).all()
    assert np.array_equal(np.asarray(slide.picture(0, 0, 0, 9, 9)), image[:9, :9])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(
        [
            ("micrometer", 1.0),
            ("nanometer", 1e-3),
            ("millimeter", 1e3),
            ("meter", 1e6),
            ("inch", 25400.0),
        ]
    ),
    st.floats(0.1, 2.0),
    st.sampled_from([None, 0.5, 2.0]),
)
def test_a_pixel_is_in_micrometres(
    tmp_path: Path, unit: tuple[str, float], mpp: float, whole: float | None
) -> None:
    shutil.rmtree(tmp_path / "u.zarr", ignore_errors=True)
    name, factor = unit
    store = write(
        tmp_path / "u.zarr",
        painted(64),
        scale=mpp / factor / (whole or 1.0),
        units={"x": name, "y": name},
        whole=whole,
        levels=1,
    )
    from medcl_pathology.omezarr import ZarrSlide

    assert ZarrSlide(store).about.mpp == pytest.approx((mpp, mpp))


@pytest.mark.parametrize("units", [{}, {"x": "parsec", "y": "parsec"}])
def test_without_a_known_unit_there_is_no_scale(tmp_path: Path, units: dict[str, str]) -> None:
    store = write(tmp_path / "a.zarr", painted(64), units={"t": "second"} | units)
    assert opened(store).about.mpp is None


def labelled(*labels: str, colours: tuple[str, ...] = ()) -> dict[str, Any]:
    colours = colours or ("FF0000", "00FF00", "0000FF", "FFFFFF")
    return {"channels": [{"label": n, "color": c} for n, c in zip(labels, colours, strict=False)]}


UNNAMED = ("channel 1", "channel 2", "channel 3")


@pytest.mark.parametrize(
    ("omero", "channels"),
    [
        (None, ()),
        (labelled("Red", "Green", "Blue"), ()),
        (labelled("Channel 0", "Channel 1", "Channel 2"), ()),
        (labelled("DAPI", "FITC", "TRITC"), ("DAPI", "FITC", "TRITC")),
        (labelled("", "", "", colours=("0000FF", "00FF00", "FF00FF")), UNNAMED),
    ],
)
def test_three_channels_are_colours_only_if_nothing_else_is_said(
    tmp_path: Path, omero: Any, channels: tuple[str, ...]
) -> None:
    assert opened(write(tmp_path / "a.zarr", painted(64), omero=omero)).about.channels == channels


def test_channels_of_16_bits_are_an_image_of_channels(tmp_path: Path, index: Any) -> None:
    rng = np.random.default_rng(1)
    planes = rng.integers(0, 300, (SIDE, SIDE, 2)).astype(np.uint16)
    planes[128:384, 128:384] += 20_000
    (tmp_path / "slides").mkdir()
    store = write(
        tmp_path / "slides" / "m.ome.zarr",
        planes,
        axes="tczyx",
        version="0.5",
        omero=labelled("DAPI", "CD8"),
    )
    slide = opened(store)
    assert slide.about.channels == ("DAPI", "CD8")
    got = slide.channels(0, 120, 130, 20, 10)
    assert np.array_equal(got, planes[130:140, 120:140].transpose(2, 0, 1))
    made = index(tmp_path / "slides")
    (row,) = made.items.to_dicts()
    assert row["kind"] == "multiplex"
    held = prepare(made, plugin, {"mpp": 1.0, "size": 32}).arrays(row["id"])
    inside = held["coords"] / 0.5
    assert len(held["coords"]) >= 9
    assert inside.min() >= 0


def test_it_goes_from_the_folder_to_tiles(tmp_path: Path, index: Any) -> None:
    image = painted()
    for name, version, inner in (("a", "0.4", ""), ("b", "0.5", ""), ("c", "0.4", "0")):
        write(tmp_path / "slides" / f"{name}.ome.zarr", image, version=version, inner=inner)
    made = index(tmp_path / "slides")
    rows = made.items.to_dicts()
    assert [row["kind"] for row in rows] == ["slide"] * 3
    assert {(row["vendor"], row["mpp_x"], row["levels"]) for row in rows} == {("ome-zarr", 0.5, 2)}
    assert not made.rejects.height
    arrays = prepare(made, plugin, {"mpp": 0.5, "size": 64}).arrays
    from medcl_pathology.dataset import dataset

    samples = dataset(made.items, arrays, kind="tile")
    batch = samples.read(np.arange(3))
    for x, (left, top) in zip(batch["x"], batch["coords"], strict=True):
        wanted = image[top : top + 64, left : left + 64].transpose(2, 0, 1) / 255
        assert np.abs(x - wanted).max() < 1e-6


def broken(tmp_path: Path, kind: str) -> Path:
    store = write(tmp_path / "slides" / "bad.zarr", painted(64), levels=1)
    about = json.loads((store / ".zattrs").read_text())
    header = json.loads((store / "0" / ".zarray").read_text())
    datasets = about["multiscales"][0]["datasets"]
    match kind:
        case "outside":
            datasets[0]["path"] = "../other.zarr/0"
        case "link":
            shutil.move(store / "0", tmp_path / "elsewhere")
            (store / "0").symlink_to(tmp_path / "elsewhere")
        case "no image":
            about = {"anything": 1}
        case "axes":
            about["multiscales"][0]["axes"] = about["multiscales"][0]["axes"][1:]
        case "garbage":
            about["multiscales"] = [[]]
        case "huge block":
            header |= {"chunks": [3, 1 << 20, 1 << 20], "shape": [3, 1 << 20, 1 << 20]}
        case "pickled":
            header |= {"filters": [{"id": "pickle"}], "dtype": "|O"}
        case "doubles":
            header |= {"dtype": "<f8"}
        case "no array":
            shutil.rmtree(store / "0")
    (store / ".zattrs").write_text(json.dumps(about))
    if (store / "0").exists():
        (store / "0" / ".zarray").write_text(json.dumps(header))
    (store / "readme.txt").write_text("so that there is a file")
    return store


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("outside", "unreadable", "another folder"),
        ("link", "unreadable", "another folder"),
        ("no image", "unsupported", "multiscales"),
        ("axes", "unreadable", "no OME-Zarr image"),
        ("garbage", "unreadable", "no OME-Zarr image"),
        ("huge block", "unsupported", "larger than 256 MiB"),
        ("pickled", "unsupported", "pickled"),
        ("doubles", "unsupported", "float64"),
        ("no array", "unreadable", "no OME-Zarr image"),
    ],
)
def test_what_is_hostile_or_not_read_is_said(
    tmp_path: Path, kind: str, code: str, message: str
) -> None:
    with pytest.raises(BadSlide, match=message) as caught:
        opened(broken(tmp_path, kind))
    assert caught.value.code == code


def test_a_stack_is_refused_and_a_damaged_block_is_noticed(tmp_path: Path) -> None:
    store = write(tmp_path / "z.zarr", painted(64), axes="czyx", levels=1)
    header = json.loads((store / "0" / ".zarray").read_text())
    (store / "0" / ".zarray").write_text(json.dumps(header | {"shape": [3, 5, 64, 64]}))
    with pytest.raises(BadSlide, match="stack .z 5.") as caught:
        opened(store)
    assert caught.value.code == "unsupported"
    torn = write(tmp_path / "t.zarr", painted(), levels=1)
    block = max((f for f in (torn / "0").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    block.write_bytes(block.read_bytes()[:20])
    with pytest.raises(BadSlide, match="damaged"):
        opened(torn).region(0, 0, 0, SIDE, SIDE)


def test_without_the_library_the_command_is_said(
    tmp_path: Path, index: Any, monkeypatch: Any
) -> None:
    write(tmp_path / "slides" / "a.zarr", painted(64))
    monkeypatch.setattr("medcl_pathology.omezarr.installed", lambda: False)
    (reject,) = index(tmp_path / "slides").rejects.to_dicts()
    assert reject["code"] == "unsupported"
    assert "pip install 'medcl[zarr]'" in reject["reason"]
