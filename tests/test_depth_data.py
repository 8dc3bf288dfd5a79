"""Images with distances: both layouts of NYU Depth V2, rendered scenes, how they are split, and a whole run on them."""

from __future__ import annotations

import io
import json
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from netadapt.cli.app import app
from netadapt.registry import MissingPackage
from netadapt.training.datasets import DataError
from netadapt.training.datasets.nyu import millimetres, square_depth, square_image
from netadapt.training.datasets.opening import _split_scenes, open_dataset
from netadapt.training.datasets.scenes import render
from netadapt.training.types import Dataset

SCALE, BIAS = 10 / 255, 0.02


def _file(image: Image.Image, kind: str) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def _npz_arrays() -> dict[str, Any]:
    """Six pairs of 24 by 32 pixels, each of one shade and one distance; pairs 0 and 1 and pairs 4 and 5 stand together."""
    shades = [10, 20, 30, 40, 50, 60]
    rgb = [_file(Image.new("RGB", (32, 24), (shade, 0, 0)), "png") for shade in shades]
    depth = [_file(Image.new("L", (32, 24), 2 * shade), "png") for shade in shades]
    return {
        "rgb_jpeg": np.concatenate(rgb), "rgb_offset": np.cumsum([0, *map(len, rgb)]),
        "depth_png": np.concatenate(depth), "depth_offset": np.cumsum([0, *map(len, depth)]),
        "depth_scale_m": np.float64(SCALE), "depth_bias_m": np.float64(BIAS),
        "nyu_index": np.array([2, 3, 7, 9, 20, 21]), "split": np.array(["train", "train", "test", "train", "train", "train"]),
    }  # fmt: skip


def _write_npz(path: Path, **changed: Any) -> Path:
    np.savez(path, **(_npz_arrays() | changed))
    return path


def _write_h5(root: Path) -> Path:
    h5py = pytest.importorskip("h5py", reason="reading .h5 files needs h5py; pip install 'netadapt-profiler[h5]'")
    for number, name in enumerate(["train/a/00001", "train/a/00002", "train/b/00001", "train/c/00001", "val/official/00001"]):
        file = (root / name).with_suffix(".h5")
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as opened:
            opened["rgb"] = np.full((3, 48, 64), 10 * number, np.uint8)
            opened["depth"] = np.full((48, 64), 1 + number, np.float32)
    return root


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset("scenes:40", resolution=32, seed=1)


def test_the_labelled_subset_is_read_as_it_was_written(tmp_path: Path) -> None:
    opened = open_dataset(f"nyu:{_write_npz(tmp_path / 'nyu.npz')}", resolution=16, seed=0)
    assert opened.task.name == "depth"
    assert opened.test.images[:, :, 8, 8].tolist() == [[30, 0, 0]]
    assert opened.test.targets.dtype == torch.int16
    assert opened.test.targets[0].unique().tolist() == [round(1000 * (60 * SCALE + BIAS))]
    assert opened.train.mirrored


def test_pairs_that_may_show_one_scene_stay_together(tmp_path: Path) -> None:
    path = _write_npz(tmp_path / "nyu.npz")
    for seed in range(6):
        opened = open_dataset(f"nyu:{path}", resolution=8, seed=seed)
        train, holdout = ({int(image[0, 4, 4]) for image in part.images} for part in (opened.train, opened.holdout))
        assert holdout in ({10, 20}, {40}, {50, 60})
        assert train | holdout == {10, 20, 40, 50, 60}


def test_a_depth_of_nothing_is_not_known(tmp_path: Path) -> None:
    depth = np.zeros((24, 32), np.uint8)
    depth[:, 16:] = 100
    file = _file(Image.fromarray(depth), "png")
    path = _write_npz(tmp_path / "nyu.npz", depth_png=np.tile(file, 6), depth_offset=np.arange(7) * len(file))
    opened = open_dataset(f"nyu:{path}", resolution=8, seed=0)
    assert opened.test.targets[0, 0, 4].tolist() == [0] * 4 + [round(1000 * (100 * SCALE + BIAS))] * 4


def test_without_official_test_images_some_are_cut_off(tmp_path: Path) -> None:
    opened = open_dataset(f"nyu:{_write_npz(tmp_path / 'nyu.npz', split=np.array(['train'] * 6))}", resolution=8, seed=0)
    assert len(opened.train) + len(opened.holdout) + len(opened.test) == 6
    assert len(opened.test) >= 1


def test_the_folder_that_fastdepth_uses_is_read_scene_by_scene(tmp_path: Path) -> None:
    root = _write_h5(tmp_path)
    for seed in range(4):
        opened = open_dataset(f"nyu:{root}", resolution=16, seed=seed)
        train, holdout = ({int(target[0, 8, 8]) for target in part.targets} for part in (opened.train, opened.holdout))
        assert holdout in ({1000, 2000}, {3000}, {4000})
        assert train | holdout == {1000, 2000, 3000, 4000}
        assert opened.test.images[0, :, 8, 8].tolist() == [40, 40, 40]


def test_a_damaged_h5_file_is_named(tmp_path: Path) -> None:
    (_write_h5(tmp_path) / "train/b/00001.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b.00001\.h5 does not hold rgb"):
        open_dataset(f"nyu:{tmp_path}", resolution=16, seed=0)


def test_a_small_h5_file_that_asks_for_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = _write_h5(tmp_path) / "train/b/00001.h5"
    with pytest.importorskip("h5py").File(file, "w") as opened:
        opened.create_dataset("rgb", (3, 10**6, 10**6), "u1", chunks=(1, 64, 64))
        opened.create_dataset("depth", (10**6, 10**6), "f4", chunks=(64, 64))
    assert file.stat().st_size < 1_000_000
    with pytest.raises(DataError, match=r"b.00001\.h5 does not hold rgb"):
        open_dataset(f"nyu:{tmp_path}", resolution=32, seed=1)


def test_an_h5_file_whose_library_would_take_gigabytes_to_open_it_is_refused_the_memory(tmp_path: Path) -> None:
    file = _write_h5(tmp_path) / "train/b/00001.h5"
    data = bytearray(file.read_bytes())
    assert (data[8], data[48:56]) == (0, b"\xff" * 8)  # a superblock of version 0, which names no driver information block
    data[48:56] = len(data).to_bytes(8, "little")
    file.write_bytes(data + struct.pack("<4xI8s", 0xFFFF_FFF0, b"NCSAfami"))  # its version, size and driver
    before = peak_bytes()
    with pytest.raises(DataError, match=r"b.00001\.h5 does not hold rgb"):
        open_dataset(f"nyu:{tmp_path}", resolution=16, seed=0)
    assert peak_bytes() - before < 1 << 30


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_without_h5py_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train/a/1.h5", "val/official/1.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingPackage, match=r"pip install 'netadapt-profiler\[h5\]'"):
        open_dataset(f"nyu:{tmp_path}", resolution=16, seed=0)


@pytest.mark.parametrize("size", [(640, 480), (320, 240)])
def test_the_cut_is_the_middle_that_fastdepth_judges_by(size: tuple[int, int]) -> None:
    """Of 250 by 333 pixels rows 11 to 238 and columns 14 to 317: each pixel tells where it comes from."""
    width, height = size
    rows = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, axis=1)
    columns = np.repeat(np.arange(width, dtype=np.float32)[None], height, axis=0)
    top, bottom = square_depth(rows, 228)[[0, -1], 0] / height * 250
    left, right = square_depth(columns, 304)[0, [0, -1]] / width * 333
    assert (top, bottom) == (pytest.approx(11, abs=1), pytest.approx(238, abs=1))
    assert (left, right) == (pytest.approx(14, abs=1), pytest.approx(317, abs=1))


def test_a_image_and_its_depths_are_cut_alike() -> None:
    depth = np.zeros((240, 320), np.float32)
    depth[60:180, 100:260] = 200
    image = square_image(Image.fromarray(depth.astype(np.uint8)).convert("RGB"), 64)[:, :, 0].astype(float)
    assert np.abs(image - square_depth(depth, 64)).mean() < 6  # only edges differ, which the image blurs


@given(metres=st.lists(st.floats(-5, 50) | st.sampled_from([float("nan"), float("inf")]), min_size=1, max_size=9))
def test_stored_depths_are_right_to_half_a_millimetre_or_not_known(metres: list[float]) -> None:
    stored = millimetres(np.array(metres))
    for metre, millimetre in zip(metres, stored.tolist(), strict=True):
        assert millimetre == 0 if not 0 < metre < 32 else abs(millimetre - 1000 * metre) <= 0.501


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a split of another length": ({"split": np.array(["train"])}, "is damaged"),
    "offsets of another length": ({"rgb_offset": np.arange(3)}, "is damaged"),
    "bytes that are no image": ({"rgb_jpeg": np.zeros(5000, np.uint8)}, "pair 0 is no image"),
    "depths of another size": (
        {"depth_png": np.tile(_file(Image.new("L", (8, 8)), "png"), 6),
         "depth_offset": np.arange(7) * len(_file(Image.new("L", (8, 8)), "png"))},
        "pair 0 is no image",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), BAD.values(), ids=BAD)
def test_a_damaged_archive_is_told(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_dataset(f"nyu:{_write_npz(tmp_path / 'nyu.npz', **changed)}", resolution=8, seed=0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [("nyu:nowhere", "there is no NYU"), ("nyu:", "there is no NYU"), ("nyu:.", "train/SCENE/"), ("scenes:some", "scenes:COUNT")],
)
def test_a_bad_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        open_dataset(spec, resolution=8, seed=0)


def test_another_archive_is_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="is not the labelled part of NYU Depth V2"):
        open_dataset(f"nyu:{tmp_path / 'other.npz'}", resolution=8, seed=0)


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=10), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_scenes_are_never_split_and_no_part_is_empty(sizes: list[int], fraction: float, seed: int) -> None:
    scenes = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    kept, cut = _split_scenes(scenes, torch.arange(len(scenes)), fraction, seed)
    assert len(kept) and len(cut)
    assert not set(scenes[kept].tolist()) & set(scenes[cut].tolist())
    assert sorted([*kept.tolist(), *cut.tolist()]) == list(range(len(scenes)))


def test_a_single_scene_cannot_be_split(tmp_path: Path) -> None:
    path = _write_npz(tmp_path / "nyu.npz", nyu_index=np.arange(6))
    with pytest.raises(DataError, match="1 scenes, too few"):
        open_dataset(f"nyu:{path}", resolution=8, seed=0)


def test_scenes_are_the_same_whenever_they_are_rendered(scenes: Dataset) -> None:
    again = open_dataset("scenes:40", resolution=32, seed=2)
    assert torch.equal(again.test.images, scenes.test.images)
    assert torch.equal(again.test.targets, scenes.test.targets)
    assert not torch.equal(again.holdout.images, scenes.holdout.images)


def test_scenes_look_different_and_have_distances_of_rooms(scenes: Dataset) -> None:
    depths = scenes.train.targets.float() / 1000
    assert 0.3 <= float(depths.min()) < 1.5
    assert 4 < float(depths.max()) < 10
    assert len(scenes.train.images.flatten(1).unique(dim=0)) == len(scenes.train)


def test_an_empty_room_is_as_far_away_as_its_walls() -> None:
    """Seen from the middle of a room of 4 by 3 by 6 m, level, along its length."""
    room = np.array([[0, 0, 0, 4, 3, 6, 1, 1, 1, 0.5, 0.2, 0.5]])
    image, depth = render(room, np.array([2.0, 1.5, 1.0]), np.eye(3), 64)
    assert image.shape == (3, 64, 64)
    assert depth[32, 32] == pytest.approx(5)  # the far wall, everywhere alike: depth is along the camera's axis
    assert depth[32, 20] == pytest.approx(5)
    lowest = 0.375 * 63 / 64  # how far the lowest ray falls on 1 m
    assert depth[-1, 32] == pytest.approx(1.5 / lowest, rel=1e-3)
    assert np.allclose(depth, depth[:, ::-1], rtol=1e-4)


def test_a_box_hides_what_is_behind_it() -> None:
    look = [1, 1, 1, 0.5, 0.2, 0.5]
    boxes = np.array([[0, 0, 0, 4, 3, 6, *look], [1.5, 1, 3, 2.5, 2, 4, *look]])
    _, depth = render(boxes, np.array([2.0, 1.5, 1.0]), np.eye(3), 64)
    assert depth[32, 32] == pytest.approx(2)
    assert depth[4, 32] == pytest.approx(1.5 / (0.375 * 55 / 64), rel=1e-3)


def _run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def depth_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("depth") / "run"
    said = _run(
        "run", "fastdepth", "--width-multiplier", 0.25, "--resolution", 32, "--data", "scenes:40", "--budget", "macs=90%",
        "--epochs", 1, "--batch-size", 8, "--short-term-steps", 1, "--step", 0.1, "--out", path, "--no-dry-run",
    ).stdout  # fmt: skip
    assert "δ1 0." in said and "RMSE" in said
    return path


@pytest.mark.slow
def test_fastdepth_is_adapted_from_start_to_end(depth_run: Path) -> None:
    finished = json.loads(_run("finetune", depth_run, "--epochs", 1, "--json").stdout)
    assert set(finished[0]["metrics"]) == {"rmse_m", "rel"}
    history = json.loads(_run("history", depth_run, "--json").stdout)
    assert history[-1]["price"] <= 0.9 * history[0]["price"]
    assert all(step["holdout_metrics"]["rmse_m"] > 0 for step in history)
    assert history[-1]["test_metrics"] == finished[-1]["metrics"]
    assert "holdout δ1" in _run("history", depth_run).stdout
    page = (depth_run / "report.html").read_text()
    assert "RMSE" in page and "δ1" in page
    assert "accuracy 0" not in page


@pytest.mark.slow
def test_fastdepth_is_exported_with_what_pytorch_computes(depth_run: Path, tmp_path: Path) -> None:
    assert "PyTorch" in _run("export", depth_run, "--format", "onnx", "--out", tmp_path / "network.onnx").stdout


@pytest.mark.parametrize(("network", "data"), [("mobilenet_v1", "scenes:20"), ("fastdepth", "digits")])
def test_a_network_that_cannot_learn_the_task_is_told(tmp_path: Path, network: str, data: str) -> None:
    result = CliRunner().invoke(
        app, ["run", network, "--width-multiplier", "0.25", "--resolution", "32", "--data", data, "--budget", "macs=90%",
              "--out", str(tmp_path / "new")],
    )  # fmt: skip
    assert result.exit_code == 1
    assert "choose another network" in result.stderr
    assert not (tmp_path / "new").exists()
