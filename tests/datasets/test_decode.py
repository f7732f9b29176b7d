"""One picture to pixels: every kind of file that others misread, with answers known beforehand."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from helpers import random_images
from PIL import Image, features

from datasets import decode as decode_module
from datasets.decode import Facts, How, picture
from datasets.workers import decode

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow, about what is wrong with a file
COLOUR = (200, 100, 50)
GREY = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def saved(image, form="PNG", **options):
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def read(data, size=8, channels=3, **how):
    """The pixels of a file's bytes, and what it was."""
    return picture(io.BytesIO(data), How(size, channels, **how))


def plain(colour=COLOUR, mode="RGB", size=(8, 8)):
    return Image.new(mode, size, colour)


# ---- Kinds of pixels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
@pytest.mark.parametrize("size", [(8, 8), (20, 12), (5, 9)])
def test_pictures_of_any_mode_and_size_become_what_is_asked_for(mode, size):
    colour = (255, 255, 255) if mode == "1" else (10, 200, 30)
    data = saved(Image.new("RGB", size, colour).convert(mode, palette=Image.Palette.ADAPTIVE))
    grey = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    pixels, facts = read(data)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - (colour if mode in ("RGB", "RGBA", "P") else (grey,) * 3)).max() <= 1
    assert facts == (size, False)
    pixels, _ = read(data, channels=1)
    assert pixels.shape == (8, 8) and np.abs(pixels.astype(int) - grey).max() <= 1


def see_through(kind):
    """A picture whose left half is COLOUR and whose right half is transparent."""
    if kind in ("RGBA", "LA"):
        image = plain(COLOUR if kind == "RGBA" else GREY, "RGB" if kind == "RGBA" else "L")
        alpha = np.zeros((8, 8), np.uint8)
        alpha[:, :4] = 255
        image.putalpha(Image.fromarray(alpha))
        return saved(image)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = COLOUR
    image = Image.fromarray(pixels)
    if kind == "RGB":
        return saved(image, transparency=(0, 0, 0))
    if kind == "L":
        return saved(image.convert("L"), transparency=0)
    numbers = np.zeros((8, 8), np.uint8)
    numbers[:, 4:] = 1
    image = Image.fromarray(numbers).convert("P")
    image.putpalette([*COLOUR, 0, 0, 0])
    return saved(image, "GIF" if kind == "GIF" else "PNG", transparency=1)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "GIF", "RGB", "L"])
def test_what_is_transparent_lies_on_white_or_another_colour(kind):
    colour = (GREY,) * 3 if kind in ("LA", "L") else COLOUR
    for background in ((255, 255, 255), (0, 128, 255)):
        pixels, facts = read(see_through(kind), background=background)
        assert facts.transparent
        assert np.array_equal(pixels[0, 0], colour) and np.array_equal(pixels[0, 7], background)
    assert read(see_through(kind), channels=1)[0][0].tolist() == [GREY] * 4 + [255] * 4


def test_half_transparent_is_half_of_both():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 51))  # a fifth
    assert np.array_equal(read(saved(image))[0][0, 0], (255, 204, 204))


def test_an_alpha_that_hides_nothing_changes_no_bit():
    pixels = random_images(8, 8, 3).numpy()
    image = Image.fromarray(pixels)
    image.putalpha(255)
    found, facts = read(saved(image))
    assert np.array_equal(found, pixels) and not facts.transparent


RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_upper_byte(form):
    found, _ = read(saved(Image.fromarray(RAMP), form), channels=1)
    assert np.array_equal(found, RAMP >> 8)


def test_big_endian_sixteen_bits_are_read_as_such():
    image = Image.frombytes("I;16B", (8, 8), RAMP.astype(">u2").tobytes())
    assert np.array_equal(read(saved(image, "TIFF"), channels=1)[0], RAMP >> 8)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pictures_whose_range_is_open_are_refused(kind):
    values = np.arange(64).astype(kind).reshape(8, 8)
    with pytest.raises(ValueError, match="32-bit or floating-point pixels: save it with 8 or 16 bits"):
        read(saved(Image.fromarray(values), "TIFF"))


def test_cmyk_is_right_from_jpeg_and_tiff():
    cyan = plain((255, 0, 0, 0), "CMYK")
    for form in ("TIFF", "JPEG"):
        assert np.abs(read(saved(cyan, form))[0].astype(int) - (0, 255, 255)).max() <= 3


# ---- Formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "AVIF"])
def test_every_format_that_is_read_gives_the_colour(form):
    if form in ("WEBP", "AVIF") and not features.check(form.lower()):
        pytest.skip("this Pillow was built without it")
    assert np.abs(read(saved(plain(), form))[0].astype(int) - COLOUR).max() <= 6


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(form):
    more = [plain((0, 0, shade)) for shade in (100, 200)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(plain(), form, save_all=True, append_images=more, **options)
    assert np.abs(read(data)[0].astype(int) - COLOUR).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_exif_turns_a_picture_upright(orientation, form):
    from PIL import ImageOps

    halves = np.zeros((16, 16, 3), np.uint8)
    halves[:8, :8], halves[:8, 8:], halves[8:, :8] = 250, 150, 60
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(halves), form, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read(data, size=16)[0], expected)


def test_sixteen_bits_are_turned_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 3
    assert np.array_equal(read(saved(Image.fromarray(RAMP), exif=exif), channels=1)[0], RAMP[::-1, ::-1] >> 8)


# ---- Sizes ---------------------------------------------------------------------------------------------------------


def test_the_square_centre_is_kept_or_all_is_squeezed():
    bands = np.zeros((16, 32, 3), np.uint8)
    bands[:, 8:24], bands[:, 24:] = 100, 200
    data = saved(Image.fromarray(bands))
    assert (read(data)[0][:, 1:-1] == 100).all()
    squeezed = read(data, crop="none")[0]
    assert (squeezed[:, 0] == 0).all() and (squeezed[:, 3:5] == 100).all() and (squeezed[:, 7] == 200).all()


@pytest.mark.parametrize("size", [(64, 64), (100, 60), (61, 97)])
def test_a_size_is_what_pillow_s_fit_gives(size):
    from PIL import ImageOps

    image = Image.fromarray(random_images(size[1], size[0], 3).numpy())
    expected = np.asarray(ImageOps.fit(image, (16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(read(saved(image), size=16)[0], expected)


def test_a_jpeg_is_drafted_only_where_twice_the_size_is_left():
    x, y = np.meshgrid(np.linspace(0, 200, 512), np.linspace(0, 200, 512))
    image = Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))
    data = saved(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as opened:
        whole = opened.resize((64, 64), Image.Resampling.BILINEAR)
        same = np.asarray(opened.resize((300, 300), Image.Resampling.BILINEAR))
    drafted, facts = read(data, size=64)
    assert np.abs(drafted.astype(int) - np.asarray(whole)).max() <= 3
    assert facts.size == (512, 512)
    assert np.array_equal(read(data, size=300)[0], same)


@pytest.mark.parametrize("claimed", [60_000, 30_000, 9_000])
def test_a_picture_that_claims_too_many_pixels_is_refused_before_it_is_decoded(claimed):
    header = b"IHDR" + struct.pack(">IIBBBBB", claimed, claimed, 8, 2, 0, 0, 0)
    chunks = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = chunks + saved(plain())[33:]
    pixels, found = decode(lambda name: io.BytesIO(data), ["a.png"], How(8, 3))
    assert pixels == b"" and "pixels" in found.bad["a.png"]


def test_a_large_jpeg_counts_by_what_it_is_decoded_to_and_others_are_told_the_limit(monkeypatch):
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 100_000)
    image = Image.fromarray(random_images(512, 400, 3).numpy())
    assert read(saved(image, "JPEG"))[1].size == (400, 512)
    for data in (saved(image), saved(image, "JPEG", progressive=True)):
        with pytest.raises(
            ValueError, match=r"400x512 pixels are too many \(limit: 100,000\); .* save it as a JPEG that"
        ):
            read(data)
    with pytest.raises(ValueError, match="too many"):
        read(saved(image, "JPEG"), size=256)


def test_a_jpeg_of_200_megapixels_is_not_refused_by_pillow():
    data = bytearray(saved(plain(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 12_240, 16_320)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (16_320, 12_240)


# ---- Broken metadata -----------------------------------------------------------------------------------------------


def png_with(kind, content, crc=None):
    """A PNG with one more chunk after its header."""
    data = saved(plain())
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return data[:33] + struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum) + data[33:]


BROKEN = {
    "EXIF of a PNG": png_with(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "profile of a PNG": png_with(b"iCCP", b"name\0\0no zlib"),
}
TOO_BROKEN = {
    "checksum of a text": png_with(b"tEXt", b"Title\0words", crc=1),
    "a text that unpacks to more": png_with(b"zTXt", b"Title\0\0" + zlib.compress(bytes(2**21))),
    "pHYs of one byte": png_with(b"pHYs", b"1"),
}
JPEG = saved(plain(), "JPEG", quality=95)


def jpeg_with(marker, content):
    return JPEG[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + JPEG[2:]


BROKEN |= {
    "EXIF of a JPEG": jpeg_with(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "EXIF cut off": jpeg_with(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01"),
    "several pictures in one, none there": jpeg_with(0xE2, b"MPF\0II*\0\x08\0\0\0\x05\0" + bytes(60)),
    "Photoshop's block": jpeg_with(0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_are_no_reason_to_refuse_a_picture(name):
    assert np.abs(read(BROKEN[name])[0].astype(int) - COLOUR).max() <= 3


def test_metadata_that_pillow_refuses_make_a_bad_file_with_the_reason():
    pixels, found = decode(lambda name: io.BytesIO(TOO_BROKEN[name]), list(TOO_BROKEN), How(8, 3))
    assert pixels == b"" and list(found.bad) == list(TOO_BROKEN) and all(found.bad.values())


# ---- Many ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_good_ones_are_kept_in_order_and_bad_ones_named(channels):
    shades = [plain((shade,) * 3) for shade in (10, 20, 30)]
    truncated = saved(Image.fromarray(random_images(32, 32, 3).numpy()))[:1000]
    files = {"a": saved(shades[0]), "b": b"<html>", "c": saved(shades[1]), "d": b"", "e": truncated}
    files["f"] = saved(shades[2])
    pixels, found = decode(lambda name: io.BytesIO(files[name]), list(files), How(8, channels))
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(3, channels, 8, 8)
    assert images[:, :, 4, 4].tolist() == [[shade] * channels for shade in (10, 20, 30)]
    assert list(found.bad) == ["b", "d", "e"]
    assert found.bad["b"] == found.bad["d"] == "it is not a picture"
    assert found.seen == {Facts((8, 8)): 3}
