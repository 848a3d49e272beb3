"""Set up what a command of this checkout needs, then run it: python3 tools/environment.py demo|test COMMAND...

Everything lands in .venv: the pinned wheels of requirements/, ROS 2 among them when none is sourced, and the message
package built from keypoint_perception_msgs/. A finished set-up is reused, one that was interrupted starts over. Only
the standard library is used, and only syntax that Python 3.8 can read, so that an old one is told what is missing.
"""

from __future__ import annotations

import ctypes.util
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "environment.json"
MESSAGES = ROOT / "keypoint_perception_msgs"
PURPOSES = {
    "demo": ("build", "runtime"),
    "test": ("build", "runtime", "training", "test", "tensorrt"),
}
OLDEST, NEWEST = (3, 10), (3, 13)  # the newest has wheels of ROS 2; a sourced ROS 2 brings its own
EGL_PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"


class Missing(Exception):
    """What this machine lacks, with the line that installs it."""


def sourced_ros() -> str | None:
    """Name and place of the ROS 2 that this shell has sourced, None for the wheels."""
    distribution, prefixes = os.environ.get("ROS_DISTRO"), os.environ.get("AMENT_PREFIX_PATH")
    return f"{distribution} in {prefixes}" if distribution and prefixes else None


def check_python(ros: str | None) -> None:
    """Raises Missing where this interpreter cannot be served."""
    version, given = sys.version_info[:2], platform.python_version()
    if version < OLDEST or (ros is None and version > NEWEST):
        raise Missing(
            f"Python {given} is not supported: 3.10 to 3.13 are, a newer one with its own ROS 2 sourced. "
            "Name another: make PYTHON=python3.12 demo"
        )
    if ros is None and (sys.platform != "linux" or platform.machine() != "x86_64"):
        raise Missing(
            f"no ROS 2 is sourced, and its wheels are for Linux on x86_64, not for {sys.platform} on "
            f"{platform.machine()}: install ROS 2 and source it (. /opt/ros/jazzy/setup.sh)"
        )
    if ros is not None and subprocess.run([sys.executable, "-c", "import rclpy"], capture_output=True).returncode:
        raise Missing(
            f"ROS 2 {ros} is sourced, but its rclpy cannot be imported by {sys.executable} (Python {given}): "
            "name the Python it was built for (make PYTHON=/usr/bin/python3 demo), or use a shell without ROS 2"
        )


def check_tools() -> None:
    """Raises Missing, once for all, where there is no venv module, C++ compiler or Python headers."""
    version = ".".join(map(str, sys.version_info[:2]))
    missing = {}
    if importlib.util.find_spec("ensurepip") is None:  # Debian has venv in python3 and what it needs in python3-venv
        missing["the venv module"] = f"python{version}-venv"
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if not any(map(shutil.which, (compiler[0], "g++", "clang++"))):
        missing["a C++ compiler"] = "g++"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing[f"the headers of Python {version}"] = f"python{version}-dev"
    if missing:
        raise Missing(f"missing: {', '.join(missing)}. Install: sudo apt install {' '.join(missing.values())}")


def wanted(purpose: str, ros: str | None) -> dict[str, str]:
    """Each part of the set-up with the digest of what it is made from, in the order of making."""
    groups = [*PURPOSES[purpose], *([] if ros else ["ros"])]
    interpreter = f"{os.path.realpath(sys._base_executable)} {platform.python_version()} {VENV} {ros}"
    sources = [MESSAGES / "CMakeLists.txt", MESSAGES / "package.xml", *sorted(MESSAGES.glob("*/*.*"))]
    constraints = requirements("constraints").read_bytes()
    return {
        "interpreter": interpreter,
        **{group: digest(requirements(group).read_bytes(), constraints) for group in groups},
        "messages": digest(*(part for path in sources for part in (path.name.encode(), path.read_bytes()))),
    }


def requirements(group: str) -> Path:
    """The file of a group's pins."""
    return ROOT / "requirements" / f"{group}.txt"


def digest(*parts: bytes) -> str:
    """SHA-256 of the parts and their lengths."""
    summed = hashlib.sha256()
    for part in parts:
        summed.update(b"%d:" % len(part) + part)
    return summed.hexdigest()


def read_stamp() -> dict[str, str]:
    """What is finished in .venv; empty when nothing is or a set-up was interrupted."""
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def write_stamp(done: dict[str, str]) -> None:
    """Notes what is finished, whole or not at all."""
    written = STAMP.with_suffix(".tmp")
    written.write_text(json.dumps(done, indent=2))
    written.replace(STAMP)


def set_up(purpose: str, ros: str | None) -> None:
    """Makes .venv serve the purpose. What is there and finished is kept; half an installation is not."""
    parts = wanted(purpose, ros)
    done = read_stamp()
    if all(done.get(part) == key for part, key in parts.items()):
        return
    check_tools()
    STAMP.unlink(missing_ok=True)
    if done.get("interpreter") != parts["interpreter"]:
        say("a Python environment in .venv")
        options = ["--clear", *(["--system-site-packages"] if ros else [])]
        run([sys._base_executable, "-m", "venv", *options, str(VENV)], outer_environment())
        done = {"interpreter": parts["interpreter"]}
    changed = [group for group in parts if group not in ("interpreter", "messages") and done.get(group) != parts[group]]
    if changed:
        say(f"pinned packages ({', '.join(changed)}); the first time they are downloaded, which takes minutes")
        install(changed)
        if ros is None:
            relocate_wheels()
    done = {**done, **{group: parts[group] for group in changed}}
    built = done.pop("messages", None)
    write_stamp(done)
    if changed or built != parts["messages"]:
        say("the message package")
        build_messages(ros)
    write_stamp({**done, "messages": parts["messages"]})


def install(groups: list[str]) -> None:
    """Installs the groups' pins. setuptools goes first, for the one package that comes as sources."""
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    pip += ["--constraint", str(requirements("constraints"))]
    pin = next(line for line in requirements("build").read_text().splitlines() if line.startswith("setuptools=="))
    run([*pip, pin], outer_environment())
    files = [option for group in groups for option in ("--requirement", str(requirements(group)))]
    run([*pip, "--no-build-isolation", *files], outer_environment())


def relocate_wheels() -> None:
    """Points the ROS wheels' CMake targets, which name paths of the machine that built them, at this one's headers."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    numpy = subprocess.run(
        [PYTHON, "-c", "import numpy; print(numpy.get_include())"], check=True, capture_output=True, text=True
    )
    paths = {
        f"/opt/python/{tag}-{tag}/lib/{version}/site-packages/numpy/_core/include": numpy.stdout.strip(),
        f"/opt/python/{tag}-{tag}/include/{version}": sysconfig.get_path("include"),
    }
    for path in VENV.glob("share/*/cmake/*.cmake"):
        text = path.read_text()
        moved = text
        for built, here in paths.items():
            moved = moved.replace(built, here)
        if moved != text:
            path.write_text(moved)


def build_messages(ros: str | None) -> None:
    """Builds and installs keypoint_perception_msgs into .venv, so that nothing has to be sourced beside it."""
    build = VENV / "build"
    shutil.rmtree(build, ignore_errors=True)
    environment = inner_environment(ros)
    if ros is None:
        environment.update(CMAKE_PREFIX_PATH=str(VENV), AMENT_PREFIX_PATH=str(VENV))
    run(
        [str(VENV / "bin" / "colcon"), "--log-base", str(build / "log"), "build", "--base-paths", str(MESSAGES)]
        + ["--build-base", str(build), "--install-base", str(VENV), "--merge-install"]
        + ["--cmake-args", f"-DPython3_EXECUTABLE={PYTHON}", "-DBUILD_TESTING=OFF"],
        environment,
    )
    shutil.rmtree(build)


def outer_environment() -> dict[str, str]:
    """This environment without what a make or a venv around us has put there."""
    strange = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONHOME", "__PYVENV_LAUNCHER__"}
    environment = {key: value for key, value in os.environ.items() if key not in strange}
    if environment.pop(
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE", None
    ):  # ROS wheels of another venv: their libraries stay there
        environment.pop("LD_LIBRARY_PATH", None)
    return environment


def inner_environment(ros: str | None) -> dict[str, str]:
    """For commands in .venv: its programs first, logs and caches inside the clone."""
    environment = outer_environment()

    def prepend(name: str, *values: Path) -> None:
        environment[name] = os.pathsep.join([*map(str, values), *filter(None, [environment.get(name)])])

    prepend("PATH", VENV / "bin")
    if ros is None:
        environment["AMENT_PREFIX_PATH"] = str(VENV)
        environment.pop("PYTHONPATH", None)
    else:
        prepend("AMENT_PREFIX_PATH", VENV)
        prepend("LD_LIBRARY_PATH", VENV / "lib")
    prepend("PYTHONPATH", ROOT)
    scratch = VENV / "scratch"
    scratch.mkdir(exist_ok=True)
    environment.update(
        VIRTUAL_ENV=str(VENV),
        ROS_LOG_DIR=str(ROOT / "log" / "ros"),
        COLCON_HOME=str(scratch),
        PYTEST_DEBUG_TEMPROOT=str(scratch),
        XDG_CACHE_HOME=str(scratch),
    )
    return environment


def run(command: list[str], environment: dict[str, str]) -> None:
    """Runs one step of the set-up. Its output is shown as one moving line, and whole when it fails."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sys.stderr.isatty() and line.strip():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line.strip()[:width]}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if process.wait():
        sys.stderr.write("".join(lines[-60:]))
        raise Missing(f"this step failed, its last lines are above: {shlex.join(command)}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder, because two terminals may start at once."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def say(step: str) -> None:
    """One line on what is being set up."""
    print(f"Setting up {step} ...", file=sys.stderr, flush=True)


def main() -> None:
    """Sets up, then becomes the command."""
    purpose, command = sys.argv[1], sys.argv[2:]
    ros = sourced_ros()
    try:
        check_python(ros)
        with locked(ROOT / "requirements"):
            set_up(purpose, ros)
        if purpose == "test" and ctypes.util.find_library("EGL") is None:
            print(
                f"Without libEGL there is no simulation, and its tests are skipped: sudo apt install {EGL_PACKAGES}",
                file=sys.stderr,
            )
    except (Missing, OSError) as error:
        sys.exit(f"tools/environment.py: {error}")
    except KeyboardInterrupt:
        sys.exit("tools/environment.py: interrupted; the next run starts the set-up over")
    if command:
        os.execve(command[0], command, inner_environment(ros))


if __name__ == "__main__":
    main()
