"""Picture files: right values or an error with the file's name, for every format, depth, orientation and damage."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, features

from fastlangevin import data
from fastlangevin.data.picture_file import FORMATS


def noise(*shape, top=256):
    return np.random.default_rng(0).integers(0, top, shape)


def png(array, colour, depth):
    """A PNG file of an array ``(H, W, C)``; colour type 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(array, bits, photometric, kind=1, extra=None):
    """A TIFF file of an array ``(H, W, C)``; ``kind`` 1: unsigned, 2: signed."""
    height, width, channels = array.shape
    raw = array.astype(f"<{'u' if kind == 1 else 'i'}{bits // 8}").tobytes()
    tags = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric], 273: [8]}
    tags |= {277: [channels], 278: [height], 279: [len(raw)], 284: [1]}
    tags |= {} if extra is None else {338: [extra]}
    tags |= {339: [kind] * channels}
    begin = 8 + len(raw)
    entries, behind = b"", b""
    for tag, values in tags.items():
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            place = begin + 2 + 12 * len(tags) + 4 + len(behind)
            packed, behind = struct.pack("<I", place), behind + packed
        entries += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", begin) + raw + struct.pack("<H", len(tags)) + entries + bytes(4) + behind


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def folder_of(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path


def values(tmp_path, name, content, **options):
    """What a folder of this file holds, ``(H, W, C)`` in units of 1/255."""
    return (data.Folder(folder_of(tmp_path, name, content), **options)[0] * 255).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"])
def test_sixteen_bits_of_png_are_refused_and_eight_are_read(tmp_path, colour, channels):
    array = noise(4, 5, channels)
    wanted = array[..., : 1 if channels < 3 else 3]
    assert np.array_equal(values(tmp_path, "a.png", png(array, colour, 8)), wanted)
    with pytest.raises(ValueError, match=r"a\.png has .*8 bits.*take it out"):
        data.Folder(folder_of(tmp_path, "a.png", png(noise(4, 5, channels, top=2**16), colour, 16)))


@pytest.mark.parametrize(
    ("photometric", "channels"), [(1, 1), (2, 3), (2, 4), (5, 4)], ids=["L", "RGB", "RGBA", "CMYK"]
)
def test_sixteen_bits_of_tiff_are_refused_and_eight_are_read(tmp_path, photometric, channels):
    array = noise(4, 5, channels)
    extra = 2 if (photometric, channels) == (2, 4) else None
    found = values(tmp_path, "a.tif", tiff(array, 8, photometric, extra=extra))
    assert photometric == 5 or np.array_equal(found, array[..., : 1 if channels < 3 else 3])
    with pytest.raises(ValueError, match=r"a\.tif has .*8 bits.*take it out"):
        data.Folder(folder_of(tmp_path, "a.tif", tiff(noise(4, 5, channels, top=2**16), 16, photometric, extra=extra)))


def test_signed_pixels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tif has signed or floating pixels; convert it"):
        data.Folder(folder_of(tmp_path, "a.tif", tiff(noise(4, 5, 1) - 128, 8, 1, kind=2)))


@pytest.mark.parametrize("magic", ["P5", "P6", "P2", "P3"])
@pytest.mark.parametrize("largest", [1, 15, 85, 100, 254, 255, 256, 1023, 65535])
def test_plain_pictures_of_other_units_are_refused_and_multiples_of_a_255th_are_read(tmp_path, magic, largest):
    array = noise(4, 5, 3 if magic in ("P3", "P6") else 1, top=largest + 1)
    text = " ".join(map(str, array.ravel())).encode()
    pixels = array.astype(">u2" if largest > 255 else "u1").tobytes() if magic in ("P5", "P6") else text
    content = f"{magic}\n# 9 9 9\n5 4\n{largest}\n".encode() + pixels
    if 255 % largest == 0:
        assert np.array_equal(values(tmp_path, "a.pnm", content), array * (255 // largest))
    else:
        with pytest.raises(ValueError, match=r"a\.pnm has .*convert it .*take it out"):
            data.Folder(folder_of(tmp_path, "a.pnm", content))


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_modes_that_would_be_clipped_are_refused(tmp_path, mode):
    with pytest.raises(ValueError, match=rf"a\.tif has pixels of mode {mode}, not of 8 bits a channel"):
        data.Folder(folder_of(tmp_path, "a.tif", saved(Image.new(mode, (4, 4)), "TIFF")))


@pytest.mark.parametrize(("channels", "colour"), [(2, 1), (4, 2)], ids=["grey", "RGB"])
def test_colours_that_transparency_was_multiplied_into_come_out_of_it(tmp_path, channels, colour):
    array = np.zeros((4, 5, channels), np.uint8)
    array[..., :-1], array[..., -1] = 51, 102
    for grey in (1, 3):
        found = values(tmp_path, "a.tif", tiff(array, 8, colour, extra=1), channels=grey)
        assert np.abs(found - 51 * 255 / 102).max() <= 1, "51 / 102 is a half, to rounding"


def three():
    return [Image.fromarray(noise(4, 5, 3).astype(np.uint8) ^ np.uint8(17 * shift)) for shift in range(3)]


@pytest.mark.parametrize(
    ("suffix", "kind"), [("gif", "GIF"), ("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP"), ("jpg", "MPO")]
)
def test_a_file_of_several_pictures_is_refused(tmp_path, suffix, kind):
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow is built without WebP")
    first, *others = three()
    with pytest.raises(ValueError, match=rf"a\.{suffix} has 3 pictures, .*each into a file of its own"):
        data.Folder(folder_of(tmp_path, f"a.{suffix}", saved(first, kind, save_all=True, append_images=others)))
    assert data.Folder(folder_of(tmp_path, f"a.{suffix}", saved(first, kind)))[0].shape == (3, 4, 5)


def test_the_previews_of_a_photograph_are_no_pictures(tmp_path):
    first, other, _ = three()
    content = saved(first, "MPO", save_all=True, append_images=[other.resize((2, 2))])
    alone = values(tmp_path, "a.jpg", saved(first, "JPEG"))
    assert np.array_equal(values(tmp_path, "a.jpg", content), alone)


# How the stored rows and columns are to be seen (EXIF 2.3, 4.6.4 A).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "late PNG"])
def test_pictures_are_turned_as_their_orientation_says(tmp_path, kind, orientation):
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("Pillow is built without WebP")
    array, exif = noise(4, 6, 3).astype(np.uint8), Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(array), kind.removeprefix("late "), exif=exif, **options)
    if kind == "late PNG":
        begin = content.index(b"eXIf") - 4
        stop = begin + 12 + int.from_bytes(content[begin : begin + 4])
        content = content[:begin] + content[stop:-12] + content[begin:stop] + content[-12:]
    name = f"a.{kind.removeprefix('late ').lower()}"
    source = data.Folder(folder_of(tmp_path, name, content))
    wanted = UPRIGHT[orientation](array)
    assert source.shape == (3, *wanted.shape[:2])
    assert np.array_equal((source[0] * 255).permute(1, 2, 0).numpy(), wanted)


def test_photographs_of_both_ways_up_have_one_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "lying.jpg").write_bytes(saved(Image.new("RGB", (6, 4)), "JPEG", exif=exif))
    (tmp_path / "standing.jpg").write_bytes(saved(Image.new("RGB", (4, 6)), "JPEG"))
    assert data.Folder(tmp_path).take([0, 1]).shape == (2, 3, 6, 4)
    (tmp_path / "wide.jpg").write_bytes(saved(Image.new("RGB", (6, 4)), "JPEG"))
    with pytest.raises(ValueError, match=r"wide\.jpg is 6 x 4 pixels, but .*lying\.jpg is 4 x 6"):
        data.Folder(tmp_path)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_postscript_starts_nothing(tmp_path, monkeypatch, suffix):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **named: started.append(given))
    path = folder_of(tmp_path, f"a.{suffix}", POSTSCRIPT) / f"a.{suffix}"
    with Image.open(path) as image:
        assert image.format == "EPS", "Pillow does not know PostScript here, and the test could not fail"
    with pytest.raises(ValueError, match=rf"cannot read \S*a\.{suffix}: Pillow finds no PNG, .*put a whole image"):
        data.Folder(tmp_path)
    path.write_bytes(saved(Image.new("RGB", (4, 4)), "PNG"))
    source = data.Folder(tmp_path)
    path.write_bytes(POSTSCRIPT)
    with pytest.raises(data.SampleError, match=rf"cannot read \S*a\.{suffix}"):
        source[0]
    assert not started


def test_only_formats_that_start_no_program_are_opened():
    assert not {"EPS", "WMF", "EMF", "FPX", "MIC", "IM"} & set(FORMATS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "PPM"])
def test_a_file_cut_short_anywhere_is_our_error_with_its_name(tmp_path, kind):
    whole = saved(Image.fromarray(noise(16, 16, 3).astype(np.uint8)), kind)
    told = {"PPM": "PNM"}.get(kind, kind)
    for length in [*range(0, 64, 3), len(whole) // 2]:
        with pytest.raises(ValueError, match=r"cannot read \S*a\.png: .*put a whole image in its place") as caught:
            data.Folder(folder_of(tmp_path, "a.png", whole[:length]))[0]
        assert length < 16 or f"begins like {told}" in str(caught.value)


@pytest.mark.parametrize(
    "error", [struct.error, zlib.error, SyntaxError, KeyError, OSError, MemoryError, RecursionError]
)
def test_whatever_a_decoder_raises_is_our_error(tmp_path, monkeypatch, error):
    source = data.Folder(folder_of(tmp_path, "a.png", png(noise(4, 4, 3), 2, 8)))

    def fail(*_):
        raise error("broken")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(data.SampleError, match=r"cannot read \S*a\.png: .*broken.* \(it begins like PNG\)"):
        source[0]


def test_a_claim_of_too_many_pixels_is_our_error(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    with pytest.raises(ValueError, match=r"cannot read \S*a\.png: .*3600000000 pixels"):
        data.Folder(folder_of(tmp_path, "a.png", content))


def test_a_picture_that_is_replaced_by_a_deeper_one_is_refused_when_it_is_read(tmp_path):
    source = data.Folder(folder_of(tmp_path, "a.png", png(noise(4, 4, 3), 2, 8)))
    assert torch.equal(source[0] * 255, torch.tensor(noise(4, 4, 3)).permute(2, 0, 1))
    folder_of(tmp_path, "a.png", png(noise(4, 4, 3, top=2**16), 2, 16))
    with pytest.raises(data.SampleError, match=r"a\.png has 16 bits a channel"):
        source[0]
