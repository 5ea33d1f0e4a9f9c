"""Every reader of files: a whole file that it reads, how such a file is damaged, and which errors are documented."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kornia_lift.convert import load_converted, load_lift_descriptor, load_tilde
from kornia_lift.convert.learned_orientation import load_learned_orientation
from kornia_lift.convert.torch7 import read_t7
from kornia_lift.feature import LFNetFeature
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.reconstruction import read_pairs
from kornia_lift.scenes.images import read_depth_png
from kornia_lift.scenes.patch_sets import PatchSet
from kornia_lift.training.config import read_mapping
from kornia_lift.training.data.images import read_gray
from kornia_lift.training.recipes import recipe_path
from kornia_lift.training.run import read_run
from kornia_lift.weights import read_safetensors
from tests.fuzz import mutators
from tests.fuzz.mutators import Mutator
from tests.fuzz.scene_files import (
    CAMERA_FILE,
    MODEL,
    cameras,
    deep_colour,
    dtu_file,
    model,
    pairs_of_scene,
    picture,
    read_dtu,
    read_image,
    read_model,
    read_posed,
    read_sequence,
    read_strecha,
    sequence,
    tiff_bands_apart,
    tiff_float_colour,
)
from tests.fuzz.training_files import (
    a_log,
    a_store,
    brown,
    checkpoint,
    initial,
    part_of_matches,
    patch_file,
    read_a_log,
    read_checkpoint,
    read_initial,
    read_kept,
    read_part_of_matches,
    read_reconstructions,
    read_record,
    read_results,
    read_split,
    read_store,
    reconstructions,
    record,
    results,
    split,
    verdicts,
)
from tests.fuzz.weight_files import (
    converted,
    correspondence,
    learned_orientation,
    lf_net,
    lift_h5,
    lift_plus,
    load_lift_plus,
    load_response,
    tilde,
    trained_tilde,
    weights,
    weights_of_others,
)
from tests.helpers.torch7 import torch7


@dataclass(frozen=True)
class Reader:
    """One reader.

    Args:
        name: file name that is damaged, below an empty folder.
        write: makes a whole file of that name, and what belongs beside it.
        read: reads it; gets the path of the file.
        mutate: how it is damaged.
        errors: what is documented, beside errors of the file system.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    mutate: Mutator
    errors: tuple[type[Exception], ...] = (ValueError,)


COLMAP_FILES = (*MODEL, *(name.replace(".txt", ".bin") for name in MODEL), "rigs.bin", "frames.bin")

READERS: dict[str, Reader] = {
    "png": Reader("a.png", picture(), read_image, mutators.png),
    "png, 16 bits": Reader("a.png", picture("I;16"), read_image, mutators.png),
    "png, palette": Reader("a.png", picture("P", transparency=3), read_image, mutators.png),
    "png, 16 bits in colour": Reader("a.png", deep_colour, read_image, mutators.png),
    "jpeg": Reader("a.jpg", picture(quality=80), read_image, mutators.flip),
    "tiff": Reader("a.tif", picture(), read_image, mutators.flip),
    "tiff, floating point": Reader("a.tif", picture("F"), read_image, mutators.flip),
    "tiff, CMYK": Reader("a.tif", picture("CMYK", compression="tiff_lzw"), read_image, mutators.flip),
    "tiff, bands apart": Reader("a.tif", tiff_bands_apart, read_image, mutators.flip),
    "tiff, floats in colour": Reader("a.tif", tiff_float_colour, read_image, mutators.flip),
    "bmp": Reader("a.bmp", picture("P"), read_image, mutators.flip),
    "avif": Reader("a.avif", picture(), read_image, mutators.flip),
    "webp": Reader("a.webp", picture(), read_image, mutators.flip),
    "pgm": Reader("a.pgm", picture("L"), read_image, mutators.words),
    "depth map": Reader("a.png", picture("I;16"), read_depth_png, mutators.png),
    "training image": Reader("a.png", picture(), read_gray, mutators.png),
    "homography": Reader("H_1_2", sequence, read_sequence, mutators.words),
    "camera": Reader("0.png.camera", lambda p: p.write_text(CAMERA_FILE), read_strecha, mutators.words),
    "posed scene": Reader("cameras.npz", cameras, read_posed, mutators.zipped),
    "pairs of a scene": Reader("pairs.txt", pairs_of_scene, read_posed, mutators.words),
    **{f"COLMAP {n}": Reader(n, model, read_model, mutators.words if n.endswith("txt") else mutators.flip)
       for n in COLMAP_FILES},
    "DTU camera": Reader("Calibration/cal18/pos_002.txt", dtu_file, read_dtu, mutators.words),
    "DTU points": Reader("Points/stl/stl001_total.ply", dtu_file, read_dtu, mutators.words),
    "DTU points, binary": Reader("Points/stl/stl002_total.ply", dtu_file, read_dtu, mutators.flip),
    "patch set": Reader("patches.npz", patch_file, PatchSet.from_npz, mutators.zipped),
    "PhotoTour points": Reader("info.txt", brown, lambda p: PatchSet.from_brown(p.parent), mutators.words),
    "PhotoTour pairs": Reader(
        "m50_100000_100000_0.txt", brown, lambda p: PatchSet.from_brown(p.parent), mutators.words
    ),
    "PhotoTour sheet": Reader("patches0000.bmp", brown, lambda p: PatchSet.from_brown(p.parent), mutators.flip),
    "store": Reader("a.npz", a_store, read_store, mutators.zipped),
    "record": Reader("a.json", record, read_record, mutators.json_values),
    "toml": Reader("c.toml", lambda p: p.write_text(recipe_path(Path("paper")).read_text()),
                   lambda p: read_run(read_mapping(p)), mutators.words),
    "json": Reader("c.json", lambda p: p.write_text('{"recipe": "paper", "data": ["x"], "stages": []}'),
                   lambda p: read_run(read_mapping(p)), mutators.json_values),
    "log": Reader("log.jsonl", a_log, read_a_log, mutators.json_lines),
    "checkpoint": Reader("c.pt", checkpoint, read_checkpoint, mutators.zipped),
    "initial weights": Reader("initial.json", initial, read_initial, mutators.json_values),
    "split": Reader("split.json", split, read_split, mutators.json_values),
    "stages kept": Reader("kept.json", verdicts, read_kept, mutators.json_values),
    "matches": Reader("m.npz", part_of_matches, read_part_of_matches, mutators.zipped),
    "list of pairs": Reader("p.txt", lambda p: p.write_text("a b\n# c\na c\n"), lambda p: read_pairs(p, "abc"),
                            mutators.words),
    "results": Reader("r.json", results, read_results, mutators.json_values),
    "reconstructions": Reader("s.json", reconstructions, read_reconstructions, mutators.json_values),
    "weights": Reader("w.safetensors", weights, load_response, mutators.safetensors),
    "weights of others": Reader("w.safetensors", weights_of_others, read_safetensors, mutators.safetensors),
    "converted weights": Reader("w.safetensors", converted, load_converted, mutators.safetensors),
    "Torch7": Reader("w.t7", torch7, read_t7, mutators.flip),
    "TILDE": Reader("w.txt", tilde, load_tilde, mutators.words),
    "TILDE, trained": Reader("w.safetensors", trained_tilde, load_tilde, mutators.safetensors),
    "LF-Net": Reader("w.safetensors", lf_net, lambda p: LFNetFeature(10, p), mutators.safetensors),
    "lift-plus": Reader("w.safetensors", lift_plus, load_lift_plus, mutators.safetensors),
    "correspondences": Reader("w.safetensors", correspondence, CorrespondenceNet, mutators.safetensors),
    "LIFT h5": Reader("w.h5", lift_h5, load_lift_descriptor, mutators.flip),
    "learned orientation": Reader("layer1_b.npy", learned_orientation,
                                  lambda p: load_learned_orientation(p.parent), mutators.array),
}  # fmt: skip
