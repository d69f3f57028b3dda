"""The files of a folder of images: all of them, or an error that names the one that is left out."""

import os
import socket
import threading
from contextlib import contextmanager, suppress

import pytest
from PIL import Image

from fastlangevin import data
from fastlangevin.data import tree


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), 7).save(path, "PNG")
    return path


def names(root):
    return [os.path.relpath(path, root) for path in data.Folder(root).paths]


def test_links_to_folders_and_files_are_followed(tmp_path):
    root = tmp_path / "images"
    picture(root / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "c.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (root / "d.png").hardlink_to(root / "a.png")
    assert names(root) == ["a.png", "again/b.png", "c.png", "d.png", "linked/b.png"]


def test_links_back_to_a_folder_around_them_end(tmp_path):
    picture(tmp_path / "images" / "a" / "a.png")
    picture(tmp_path / "images" / "b" / "b.png")
    (tmp_path / "images" / "a" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "a" / "over").symlink_to(tmp_path / "images" / "b")
    (tmp_path / "images" / "b" / "back").symlink_to(tmp_path / "images" / "a")
    # up leads to images, which holds it; over/back to a, and back/over to b.
    assert names(tmp_path / "images") == ["a/a.png", "a/over/b.png", "b/b.png", "b/back/a.png"]


def test_folders_that_all_link_to_each_other_are_refused_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MAX_NAMES", 20)
    folders = [picture(tmp_path / str(index) / "a.png").parent for index in range(7)]
    for one in folders:
        for other in folders:
            if one != other:
                (one / f"to-{other.name}").symlink_to(other)
    with pytest.raises(ValueError, match="is one folder of more than 20 names, by links between folders"):
        data.Folder(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, name):
    picture(tmp_path / "b.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=rf"cannot read {tmp_path / name}: No such file"):
        data.Folder(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(name)
    with pytest.raises(ValueError, match=rf"cannot read {tmp_path / name}: .*symbolic links"):
        data.Folder(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    picture(tmp_path / "b.png")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def refused(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)  # root may read everything
    with pytest.raises(ValueError, match=rf"cannot read the folder {tmp_path / 'locked'}: Permission denied"):
        data.Folder(tmp_path)


def test_names_in_capitals_and_of_every_ending_are_read(tmp_path):
    for suffix in tree.SUFFIXES:
        picture(tmp_path / f"a{suffix.upper()}")  # Pillow goes by the content
    assert len(data.Folder(tmp_path).take(range(len(tree.SUFFIXES)))) == len(tree.SUFFIXES)


@pytest.mark.parametrize("name", ["a.heic", "a.AVIF", "a.tga", "a.dng"])
def test_a_picture_of_a_format_that_is_not_read_is_named(tmp_path, name):
    picture(tmp_path / "b.png")
    (tmp_path / name).write_text("whatever")
    with pytest.raises(ValueError, match=rf"{name} is a picture of a format that is not read; convert it to PNG"):
        data.Folder(tmp_path)


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("JPEG", b"\xff\xd8\xff\xe0"),
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("TIFF", b"II*\0"),
        ("GIF", b"GIF89a"),
        ("WebP", b"RIFF\1\2\3\4WEBP"),
        ("AVIF", b"\0\0\0\x20ftypavif"),
        ("PNM", b"P6\n4 4\n255\n"),
    ],
)
@pytest.mark.parametrize("name", ["0001", "0001.jpg~", "0001.bin"])
def test_a_picture_by_its_content_alone_is_named(tmp_path, kind, begins, name):
    picture(tmp_path / "b.png")
    (tmp_path / name).write_bytes(begins + bytes(40))
    with pytest.raises(
        ValueError, match=rf"{name} is a picture \({kind}\) by its content, but not by its name; let it"
    ):
        data.Folder(tmp_path)
    (tmp_path / name).write_text("BMW, PNG and P1: a text that is no picture")
    (tmp_path / "empty").touch()
    assert names(tmp_path) == ["b.png"]


@contextmanager
def pipe(path):
    """A pipe with a writer, by which a reader that does open it comes to an end."""

    def write():
        with open(path, "wb", buffering=0) as file, suppress(BrokenPipeError):
            file.write(b"text")

    os.mkfifo(path)
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        # The writer waits for a reader, or will: on a busy machine it may not have come to its open yet.
        while writer.is_alive():
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            writer.join(0.01)
        path.unlink()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    picture(tmp_path / "b.png")
    with (
        pipe(tmp_path / "a.png"),
        pytest.raises(ValueError, match=r"cannot read \S*a\.png: it is a pipe, not a regular"),
    ):
        data.Folder(tmp_path)
    source = data.Folder(tmp_path)
    (tmp_path / "b.png").unlink()
    with pipe(tmp_path / "b.png"):
        with pytest.raises(data.SampleError, match=r"cannot read \S*b\.png: it is a pipe, not a regular file"):
            source[0]
        with pytest.raises(data.SampleError, match=r"cannot read \S*b\.png: it is a pipe, not a regular file"):
            source.fingerprint()
    (tmp_path / "b.png").mkdir()
    for read in (lambda: source[0], source.fingerprint):
        with pytest.raises(data.SampleError, match=r"cannot read \S*b\.png: it is a folder, not a regular file; put"):
            read()


def test_sockets_devices_and_folders_are_no_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    picture(tmp_path / "b.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a.png")
        with pytest.raises(ValueError, match=r"a\.png: it is a socket, not a regular file"):
            data.Folder(".")
        os.unlink("a.png")
    os.symlink("/dev/null", "a.png")
    with pytest.raises(ValueError, match=r"a\.png: it is a device, not a regular file"):
        data.Folder(".")
    os.unlink("a.png")
    os.mkdir("a.png")
    with pytest.raises(ValueError, match=r"a\.png is a folder with the name of an image"):
        data.Folder(".")
    os.rmdir("a.png")
    os.mkfifo("control")
    assert names(".") == ["b.png"], "what has not the name of an image is left alone"
