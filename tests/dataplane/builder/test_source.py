"""What is read of a repository before anything of it runs: nothing that a link or a name points elsewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dataplane.builder import detect, images, plans

SECRET = "root's own words"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("Dockerfile", "cytoplane.yaml", "Procfile", "requirements.txt", "index.html"):
        (folder / name).write_text(SECRET)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x")
    return folder


def found(source: Path, *paths: str) -> dict[str, str]:
    lines = [f"  c{number}: {{path: {path}}}" for number, path in enumerate(paths)]
    return detect.detect(source, {"cytoplane.yaml": "components:\n" + "\n".join(lines)})


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["Dockerfile", "requirements.txt", "index.html"], "dockerfile"),
        (["requirements.txt", "index.html"], "python"),
        (["pyproject.toml"], "python"),
        (["index.html"], "static"),
        (["dockerfile", "main.go"], ""),
    ],
)
def test_a_folder_is_what_its_files_say(source: Path, names: list[str], kind: str) -> None:
    assert detect.kind_of(put(source, *names)) == kind


def test_each_folder_that_a_component_names_is_looked_at(source: Path) -> None:
    put(source, "index.html")
    put(source / "api", "requirements.txt")
    put(source / "deep" / "er", "Dockerfile")
    put(source / "unnamed", "Dockerfile")
    kinds = found(source, "api", "deep/er", "./deep/../api", "nothing")
    assert kinds == {".": "static", "api": "python", "deep/er": "dockerfile"}


def test_links_to_files_dont_count(source: Path, secret: Path) -> None:
    for name in ("Dockerfile", "requirements.txt", "index.html", "cytoplane.yaml", "Procfile"):
        (source / name).symlink_to(secret / name)
    assert detect.kind_of(source) == ""
    assert detect.declarations(source) == {}


@pytest.mark.parametrize("target", ["../elsewhere", "/", "/etc", "loop", "."])
def test_folders_that_lead_elsewhere_arent_folders_of_the_source(
    source: Path, secret: Path, target: str
) -> None:
    (source / "link").symlink_to(target)
    put(source / "api", "requirements.txt")
    (source / "loop").symlink_to("loop")
    assert set(found(source, "link", "link/elsewhere", "api")) <= {"api", "."}
    assert found(source, "api") == {"api": "python"}


@pytest.mark.parametrize(
    "path", ["..", "../elsewhere", "/etc", "a/../../elsewhere", '"a\\0b"', "x" * 5000, "~", '""', "[]", "{}"]
)
def test_paths_that_lead_elsewhere_are_nothing(source: Path, secret: Path, path: str) -> None:
    put(source, "index.html")
    assert found(source, path) == {".": "static"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "[" * 900,
        "components: 3",
        "components: [1]",
        "&a [*a]",
        "x: !!python/object:os.system {}",
    ],
)
def test_declarations_that_cant_be_read_are_the_parsers_to_refuse(source: Path, text: str) -> None:
    put(source, "index.html")
    assert detect.detect(source, {"cytoplane.yaml": text}) == {".": "static"}


def test_declarations_are_text_of_a_bounded_size(source: Path) -> None:
    (source / "Procfile").write_bytes(b"web: \xff\xfe")
    (source / "cytoplane.yaml").write_text("x" * (256 * 1024 + 1))
    assert detect.declarations(source) == {"Procfile": "web: \ufffd\ufffd"}
    (source / "cytoplane.yaml").unlink()
    os.mkfifo(source / "cytoplane.yaml")
    assert set(detect.declarations(source)) == {"Procfile"}, "a pipe would be waited for"


def test_instructions_of_a_python_folder_cache_its_dependencies(source: Path) -> None:
    lines = plans.containerfile("python", put(source, "requirements.txt")).splitlines()
    assert lines.index("COPY requirements.txt /app/") < lines.index("COPY . /app")
    assert any("pip install" in line and "requirements.txt" in line for line in lines)
    assert "USER 1000" in lines
    alone = plans.containerfile("python", put(source / "project", "pyproject.toml"))
    assert "pip install --no-cache-dir ." in alone and "USER 1000" in alone


def test_a_dockerfile_is_the_repositorys_own_text(source: Path) -> None:
    (source / "Dockerfile").write_bytes(b"FROM x\nRUN \xff\n")
    assert plans.containerfile("dockerfile", source) == "FROM x\nRUN \ufffd\n"


def test_a_static_folder_is_served_by_nobody_special(source: Path) -> None:
    text = plans.containerfile("static", source)
    assert "USER 1000" in text and "COPY . /srv/site" in text


def test_what_a_build_left_is_read_only_if_it_is_a_file_of_its_own(tmp_path: Path, secret: Path) -> None:
    file = tmp_path / "digest"
    assert images._own_text(file) == ""
    file.write_text("sha256:" + "a" * 64)
    assert images._own_text(file) == "sha256:" + "a" * 64
    file.write_text("x" * 10000)
    assert len(images._own_text(file)) == 4096
    file.unlink()
    file.symlink_to(secret / "Dockerfile")
    assert images._own_text(file) == ""
    file.unlink()
    os.mkfifo(file)
    assert images._own_text(file) == "", "a pipe would be waited for"
    writer = os.open(file, os.O_RDWR)
    assert images._own_text(file) == ""
    os.close(writer)
    file.unlink()
    file.mkdir()
    assert images._own_text(file) == ""
    if os.geteuid() == 0:
        os.mknod(tmp_path / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        assert images._own_text(tmp_path / "device") == ""
