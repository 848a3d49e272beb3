"""The installed half: the runtime, its launch file, configurations and models. training/ runs from the checkout."""

from glob import glob
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

package = "keypoint_perception"
manifest = ElementTree.parse(Path(__file__).with_name("package.xml"))
maintainer = manifest.find("maintainer")


def files(*patterns: str) -> list[str]:
    """Paths relative to this folder, as setuptools asks for them."""
    return sorted(path for pattern in patterns for path in glob(pattern) if Path(path).is_file())


setup(
    name=package,
    version=manifest.findtext("version"),
    description=manifest.findtext("description"),
    license=manifest.findtext("license"),
    maintainer=maintainer.text,
    maintainer_email=maintainer.get("email"),
    packages=find_packages(include=[package, f"{package}.*"]),
    package_data={package: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
        (f"share/{package}/launch", files("launch/*")),
        (f"share/{package}/config", files("config/*")),
        (f"share/{package}/models", files("models/*.onnx", "models/*.md")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "annotate = keypoint_perception.annotate:main",
            "compile = keypoint_perception.compile:main",
            "detector = keypoint_perception.ros.node:main",
        ],
    },
)
