"""Image files: decoding and preprocessing as the contract requires, and errors that name the file."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.data.images import decode_rgb, jpeg_bytes, list_images, load_image, load_images, open_rgb
from ccr_deploy.errors import ImageError

PLAIN = Preprocessing(resize_to_cover=(16, 16))
BOX = Preprocessing(resize_to_cover=(16, 16), resize_filter="box")
ORIENTATION = 0x0112


def noise(rows: int, columns: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (rows, columns, channels) if channels > 1 else (rows, columns)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header declares a size, with almost no content."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def refusal(path: Path) -> str:
    """Return the message, which must name the file and be one line."""
    with pytest.raises(ImageError) as caught:
        load_image(path, PLAIN, 16, 16)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_an_rgb_image_of_the_image_size_is_unchanged(tmp_path):
    pixels = noise(16, 16)
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    loaded = load_image(path, PLAIN, 16, 16)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, pixels)


def test_a_grey_image_has_its_grey_in_all_three_channels(tmp_path):
    grey = noise(16, 16, 1)
    loaded = load_image(save(Image.fromarray(grey), tmp_path / "x.png"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded, np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_16_bit_grey_image_keeps_its_upper_8_bits(tmp_path, suffix):
    grey = np.random.default_rng(0).integers(0, 1 << 16, (16, 16), dtype=np.uint16)
    loaded = load_image(save(Image.fromarray(grey), tmp_path / f"x{suffix}"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded, np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_a_bilevel_image_is_black_and_white(tmp_path):
    bits = noise(16, 16, 1) > 127
    loaded = load_image(save(Image.fromarray(bits), tmp_path / "x.png"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded[:, :, 0], np.where(bits, 255, 0))


def test_a_palette_image_has_its_palettes_colours(tmp_path):
    indices = noise(16, 16, 1) % 4
    palette = np.array([[1, 2, 3], [250, 0, 7], [9, 200, 11], [30, 40, 250]], dtype=np.uint8)
    image = Image.fromarray(indices, mode="L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette.ravel().tolist())
    loaded = load_image(save(image, tmp_path / "x.png"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded, palette[indices])


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped_and_the_colours_stay(tmp_path, alpha):
    pixels = noise(16, 16)
    layers = np.dstack([pixels, np.full((16, 16), alpha, np.uint8)])
    loaded = load_image(save(Image.fromarray(layers), tmp_path / "x.png"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded, pixels)


def test_grey_with_alpha_keeps_its_grey(tmp_path):
    grey = noise(16, 16, 1)
    image = Image.merge("LA", (Image.fromarray(grey), Image.new("L", (16, 16), 3)))
    loaded = load_image(save(image, tmp_path / "x.png"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded, np.repeat(grey[:, :, None], 3, axis=2))


def test_a_cmyk_image_becomes_rgb(tmp_path):
    # Cyan ink alone, which absorbs red. TIFF stores the ink values exactly.
    inks = np.zeros((16, 16, 4), dtype=np.uint8)
    inks[:, :, 0] = noise(16, 16, 1)
    image = Image.frombytes("CMYK", (16, 16), inks.tobytes())
    loaded = load_image(save(image, tmp_path / "x.tif"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded[:, :, 0], 255 - inks[:, :, 0])
    assert (loaded[:, :, 1:] == 255).all()


def test_a_cmyk_jpeg_is_read_in_rgb_not_inverted(tmp_path):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    loaded = load_image(save(image, tmp_path / "x.jpg", quality=100), PLAIN, 16, 16)
    np.testing.assert_allclose(loaded.mean(axis=(0, 1)), [0, 255, 255], atol=4)


TURNED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_rotation_is_applied(tmp_path, orientation):
    pixels = noise(12, 16)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(Image.fromarray(pixels), tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(open_rgb(path)), TURNED[orientation](pixels))


def test_exif_rotation_comes_before_the_crop(tmp_path):
    # Stored with 32 rows of 16 columns; after the rotation the wide image is cropped left and right.
    pixels = noise(32, 16)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = save(Image.fromarray(pixels), tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(load_image(path, PLAIN, 16, 16), np.rot90(pixels, -1)[:, 8:24])


def test_a_wide_image_is_cropped_left_and_right(tmp_path):
    pixels = noise(16, 36)
    loaded = load_image(save(Image.fromarray(pixels), tmp_path / "x.png"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded, pixels[:, 10:26])


def test_a_tall_image_is_cropped_at_top_and_bottom(tmp_path):
    pixels = noise(36, 16)
    loaded = load_image(save(Image.fromarray(pixels), tmp_path / "x.png"), PLAIN, 16, 16)
    np.testing.assert_array_equal(loaded, pixels[10:26])


@pytest.mark.parametrize(("rows", "columns"), [(16, 40), (40, 16)])
def test_an_image_is_resized_by_its_shorter_side_then_cropped(tmp_path, rows, columns):
    small = noise(rows, columns)
    doubled = small.repeat(2, axis=0).repeat(2, axis=1)
    loaded = load_image(save(Image.fromarray(doubled), tmp_path / "x.png"), BOX, 16, 16)
    top, left = (rows - 16) // 2, (columns - 16) // 2
    np.testing.assert_array_equal(loaded, small[top : top + 16, left : left + 16])


def test_the_crop_is_taken_from_the_covering_size(tmp_path):
    pixels = noise(20, 20)
    preprocessing = Preprocessing(resize_to_cover=(20, 20))
    loaded = load_image(save(Image.fromarray(pixels), tmp_path / "x.png"), preprocessing, 16, 16)
    np.testing.assert_array_equal(loaded, pixels[2:18, 2:18])


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (33, 16), (100, 9), (10, 100), (639, 427)])
def test_every_image_ends_at_the_image_size(tmp_path, size):
    path = save(Image.new("RGB", size, (200, 100, 50)), tmp_path / "x.png")
    loaded = load_image(path, Preprocessing(resize_to_cover=(18, 37)), 16, 32)
    assert loaded.shape == (16, 32, 3)
    assert (loaded == (200, 100, 50)).all()  # no resampling: no other colours


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos", "box"])
def test_the_resize_filter_is_the_contracts(tmp_path, name):
    image = Image.fromarray(noise(48, 48))
    preprocessing = Preprocessing(resize_to_cover=(16, 16), resize_filter=name)
    loaded = load_image(save(image, tmp_path / "x.png"), preprocessing, 16, 16)
    expected = image.resize((16, 16), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(loaded, np.asarray(expected))


def test_a_fourfold_enlargement_is_allowed(tmp_path):
    path = save(Image.new("RGB", (4, 4)), tmp_path / "x.png")
    assert load_image(path, PLAIN, 16, 16).shape == (16, 16, 3)


def test_an_image_that_is_too_small_is_refused(tmp_path):
    path = save(Image.new("RGB", (3, 40)), tmp_path / "x.png")
    assert "3x40 pixels are too few" in refusal(path)


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.png")


def test_a_text_file_named_png_is_refused(tmp_path):
    path = tmp_path / "x.png"
    path.write_text("I am no image\n")
    assert "not an image" in refusal(path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    assert "not an image" in refusal(path)


def test_a_folder_named_png_is_refused(tmp_path):
    path = tmp_path / "x.png"
    path.mkdir()
    refusal(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"])
def test_an_image_cut_in_its_middle_is_refused(tmp_path, suffix):
    path = save(Image.fromarray(noise(64, 64)), tmp_path / f"x{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refusal(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("length", [2, 10, 30, 60])
def test_an_image_cut_in_its_header_is_refused(tmp_path, suffix, length):
    path = save(Image.fromarray(noise(64, 64)), tmp_path / f"x{suffix}")
    path.write_bytes(path.read_bytes()[:length])
    refusal(path)


def test_an_image_with_damaged_pixels_is_refused(tmp_path):
    path = save(Image.fromarray(noise(64, 64)), tmp_path / "x.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refusal(path)


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png_header(100_000, 100_000))
    assert "pixels" in refusal(path)


def test_an_image_above_a_hundred_million_pixels_is_refused_with_its_size(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png_header(10_001, 10_000))
    assert "has 10001x10000 pixels" in refusal(path)


def test_floating_point_pixels_are_refused(tmp_path):
    path = save(Image.fromarray(np.ones((16, 16), np.float32)), tmp_path / "x.tif")
    assert "floating-point" in refusal(path)


def test_several_images_are_loaded_as_one_batch_in_order(tmp_path):
    pixels = [noise(16, 16, seed=number) for number in range(3)]
    paths = [save(Image.fromarray(array), tmp_path / f"{number}.png") for number, array in enumerate(pixels)]
    np.testing.assert_array_equal(load_images(paths[::-1], PLAIN, 16, 16), np.stack(pixels[::-1]))


def test_a_jpeg_of_higher_quality_has_more_bytes():
    pixels = noise(32, 32)
    assert jpeg_bytes(pixels, quality=10) < jpeg_bytes(pixels, quality=90)


def test_jpeg_bytes_is_the_size_of_the_file(tmp_path):
    pixels = noise(32, 32)
    path = save(Image.fromarray(pixels), tmp_path / "x.jpg", quality=75)
    assert jpeg_bytes(pixels) == path.stat().st_size


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"never opened")
    return folder


def test_labels_follow_the_class_names(tmp_path):
    put(tmp_path, "cat/a.png", "ant/b.jpg")
    items = list_images(tmp_path, ("dog", "cat", "ant"))
    assert [(item.path.name, item.label) for item in items] == [("b.jpg", 2), ("a.png", 1)]


def test_without_class_names_the_sorted_folders_are_the_classes(tmp_path):
    put(tmp_path, "cat/a.png", "ant/b.jpg")
    assert {item.path.parent.name: item.label for item in list_images(tmp_path, ())} == {"ant": 0, "cat": 1}


def test_a_folder_that_is_not_a_class_is_refused_and_named(tmp_path):
    put(tmp_path, "cat/a.png", "emu/b.jpg")
    with pytest.raises(ImageError, match="1 of 2 sub-folders are not classes of the model: emu") as caught:
        list_images(tmp_path, ("dog", "cat"))
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_subfolders_has_no_labels(tmp_path):
    put(tmp_path, "a.png", "b.jpg")
    assert [item.label for item in list_images(tmp_path, ("dog", "cat"))] == [None, None]


def test_images_in_a_deeper_folder_form_a_group(tmp_path):
    put(tmp_path, "cat/north/a.png", "cat/north/b.png", "cat/south/c.png")
    groups = [item.group for item in list_images(tmp_path, ("cat",))]
    assert groups[0] == groups[1] != groups[2]


def test_regions_of_equal_name_in_two_classes_are_two_groups(tmp_path):
    put(tmp_path, "cat/north/a.png", "dog/north/a.png")
    assert len({item.group for item in list_images(tmp_path, ())}) == 2


def test_images_directly_in_a_class_folder_are_groups_of_their_own(tmp_path):
    put(tmp_path, "cat/a.png", "cat/b.png", "dog/a.png")
    assert len({item.group for item in list_images(tmp_path, ())}) == 3


def test_an_image_in_a_deeper_folder_is_labelled_by_its_first_folder(tmp_path):
    put(tmp_path, "cat/north/a.png", "dog/north/a.png")
    assert [item.label for item in list_images(tmp_path, ("dog", "cat"))] == [1, 0]


def test_images_are_sorted_by_path(tmp_path):
    put(tmp_path, "c.png", "a.png", "b.png")
    assert [item.path.name for item in list_images(tmp_path, ())] == ["a.png", "b.png", "c.png"]


def test_only_images_are_listed_with_extensions_in_any_case(tmp_path):
    put(tmp_path, "a.PNG", "b.txt", "c.JPeG", "d")
    assert [item.path.name for item in list_images(tmp_path, ())] == ["a.PNG", "c.JPeG"]


def test_a_folder_without_images_is_refused(tmp_path):
    put(tmp_path, "notes.txt")
    with pytest.raises(ImageError, match="contains no images") as caught:
        list_images(tmp_path, ())
    assert str(tmp_path) in str(caught.value)


def test_other_sub_folders_can_be_ignored(tmp_path):
    for name in ("ant/a.png", "cat/b.png", "stray.png"):
        put(tmp_path, name)
    items = list_images(tmp_path, ("dog", "cat"), ignore_others=True)
    assert [(item.path.name, item.label) for item in items] == [("b.png", 1)]
    assert list_images(tmp_path, ("dog",), ignore_others=True) == []


def test_the_content_of_a_file_is_decoded_as_the_file(tmp_path):
    path = save(Image.fromarray(noise(20, 24)), tmp_path / "a.png")
    decoded = decode_rgb(io.BytesIO(path.read_bytes()), path)
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(open_rgb(path)))
    with pytest.raises(ImageError, match=r"a\.png: cannot be decoded"):
        decode_rgb(io.BytesIO(path.read_bytes()[:100]), path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match="no such folder"):
        list_images(tmp_path / "none", ())


def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(ImageError, match="is a file: give a folder of images"):
        list_images(tmp_path / "a.png", ())


def test_an_exif_tag_of_a_wrong_type_is_an_image_error(tmp_path):
    """Its EXIF data has text in place of a number, and a rotation."""
    path = tmp_path / "camera.jpg"
    width_as_text = struct.pack(">HHII", 0x0100, 2, 6, 38)
    rotation = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    tags = struct.pack(">2sHIH", b"MM", 42, 8, 2) + width_as_text + rotation + bytes(4) + b"hello\0"
    Image.new("RGB", (16, 16)).save(path, exif=b"Exif\x00\x00" + tags)
    with pytest.raises(ImageError, match=r"camera\.jpg: cannot be decoded"):
        open_rgb(path)


def test_a_very_thin_image_is_refused_before_resizing(tmp_path):
    path = tmp_path / "thin.png"
    Image.new("L", (3_000_000, 30)).save(path)
    with pytest.raises(ImageError, match="too thin"):
        load_image(path, Preprocessing((100, 100)), 96, 96)


@pytest.mark.parametrize(
    ("form", "mode"), [("EPS", "RGB"), ("PPM", "RGB"), ("PCX", "RGB"), ("ICO", "RGB"), ("TGA", "RGB")]
)
def test_an_unsupported_format_is_refused_whatever_its_extension(tmp_path, form, mode, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without Ghostscript, so that it cannot be what refuses the file
    path = tmp_path / "x.png"
    Image.new(mode, (64, 64), "red").save(path, format=form)
    assert "not an image (JPEG, PNG, WebP, BMP, TIFF or GIF)" in refusal(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_supported_format_is_read_whatever_its_extension(tmp_path, form):
    path = tmp_path / "x.dat"
    Image.new("RGB", (16, 16), "red").save(path, format=form)
    assert load_image(path, PLAIN, 16, 16).shape == (16, 16, 3)


def test_a_fifo_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    assert "not a regular file" in refusal(tmp_path / "x.png")


def test_a_device_is_refused(tmp_path):
    (tmp_path / "x.png").symlink_to("/dev/zero")
    assert "not a regular file" in refusal(tmp_path / "x.png")


@pytest.mark.filterwarnings("error")
def test_a_damaged_tiff_prints_no_warning(tmp_path, capfd):
    path = save(Image.fromarray(noise(16, 16)), tmp_path / "x.tif")
    content = path.read_bytes()
    for position in range(8, 200):
        path.write_bytes(content[:position] + b"\xff\xff" + content[position + 2 :])
        with contextlib.suppress(ImageError):
            load_image(path, PLAIN, 16, 16)
    assert capfd.readouterr().err == ""
