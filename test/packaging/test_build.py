"""`colcon build` in the root of a fresh copy, and what it installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import keypoint_perception

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("keypoint_perception", "keypoint_perception_msgs")
SOURCES = ["package.xml", "setup.py", "setup.cfg", "colcon_defaults.yaml", "resource", "launch", "config", "models"]
PROGRAMS = Path(sys.executable).parent
pytestmark = [
    pytest.mark.skipif(
        shutil.which("colcon", path=f"{PROGRAMS}:{os.environ['PATH']}") is None, reason="no colcon here"
    ),
    pytest.mark.timeout(1800),  # it compiles, on a machine that may be busy
]


def shell(command: str, folder: Path) -> str:
    """Output of a shell line in a folder, with this interpreter's programs and without this checkout."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MAKEFLAGS")}
    environment.update(PATH=f"{PROGRAMS}:{environment['PATH']}", COLCON_HOME=str(folder), ROS_LOG_DIR=str(folder))
    environment.setdefault("AMENT_PREFIX_PATH", sys.prefix)  # as sourcing .venv/local_setup.bash does
    process = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, text=True, capture_output=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout in which `colcon build` has run."""
    root = tmp_path_factory.mktemp("workspace")
    for name in (*SOURCES, *PACKAGES, "training"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    shell("colcon build", root)
    return root


def test_both_packages_are_installed(workspace: Path) -> None:
    for package in PACKAGES:
        prefix = workspace / "install" / package
        assert (prefix / "share/ament_index/resource_index/packages" / package).is_file()
        assert (prefix / "share" / package / "package.xml").is_file()


def test_share_holds_launch_configuration_and_models(workspace: Path) -> None:
    share = workspace / "install/keypoint_perception/share/keypoint_perception"
    for folder in ("launch", "config", "models"):
        sources = {path.name for path in (ROOT / folder).iterdir() if path.suffix in (".py", ".yaml", ".xml", ".onnx")}
        assert sources <= {path.name for path in (share / folder).iterdir()}
        assert sources, f"nothing in {folder}/"


def test_executables_run_from_the_installation(workspace: Path, tmp_path: Path) -> None:
    programs = workspace / "install/keypoint_perception/lib/keypoint_perception"
    assert {path.name for path in programs.iterdir()} == {"annotate", "compile", "detector"}
    for program in ("annotate", "compile"):
        assert "usage:" in shell(f". {workspace}/install/local_setup.bash && {programs / program} --help", tmp_path)


def test_training_is_not_installed(workspace: Path, tmp_path: Path) -> None:
    script = (
        "import importlib.util as u, keypoint_perception, keypoint_perception_msgs.msg as m;"
        "print(keypoint_perception.__file__, m.__file__, u.find_spec('training'), sep='\\n')"
    )
    output = shell(f'. {workspace}/install/local_setup.bash && "{sys.executable}" -c "{script}"', tmp_path)
    package, messages, training = output.splitlines()[-3:]
    assert package.startswith(str(workspace / "install/keypoint_perception"))
    assert messages.startswith(str(workspace / "install/keypoint_perception_msgs"))
    assert training == "None"


def manifest(package: str) -> ElementTree.Element:
    """The package.xml of a package."""
    folder = ROOT if package == "keypoint_perception" else ROOT / package
    return ElementTree.parse(folder / "package.xml").getroot()


def test_one_version_everywhere(tmp_path: Path) -> None:
    versions = {package: manifest(package).findtext("version") for package in PACKAGES}
    built = shell(f'cd "{ROOT}" && "{sys.executable}" setup.py --quiet --version', tmp_path).split()[-1]
    assert {*versions.values(), built} == {keypoint_perception.__version__}


def test_ros_imports_are_declared() -> None:
    """What rosdep would not install, `import` would not find."""
    sources = [*(ROOT / "keypoint_perception").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    imported = {
        name for path in sources for name in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
    }
    ros = {name for name in imported if name.endswith(("_msgs", "_interfaces", "rclpy", "_index_python"))}
    ros |= imported & {"launch", "launch_ros"}
    assert ros <= {dependency.text for dependency in manifest("keypoint_perception").findall("exec_depend")}
