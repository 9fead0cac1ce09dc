"""Metadata of the package; everything else about building is setuptools' default."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent

setup(
    name="tega",
    version="1.0.0.dev0",
    description="A networked document database for the configuration and state of networks",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["tega", "tega.*"]),
    package_data={"tega": ["py.typed"], "tega.sentinel": ["titania.yaml"]},
    install_requires=[
        "tornado>=6.5",
        "httplib2>=0.22",
        "pyyaml>=6.0",
        "msgspec>=0.19",
        "immutables>=0.21",
        "google-re2>=1.1.20240702",
        "prometheus-client>=0.20",
    ],
    extras_require={
        "sentinel": [
            "aetcd>=1.0",
            "grpcio>=1.66",
            "protobuf>=5.27",
            "psycopg[binary]>=3.2",
            "pymysql[rsa]>=1.1",
            "sqlalchemy>=2.0.30",
        ],
        "test": [
            "hypothesis",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "schemathesis; python_version >= '3.11'",
            "trustme",
            "types-PyYAML",
            "types-httplib2",
        ],
        "bench": ["matplotlib", "tinydb", "ZODB"],
    },
    entry_points={
        "console_scripts": [
            "tega-server=tega.server:main",
            "tega-cli=tega.cli.main:main",
            "tega-log=tega.cli.logtool:main",
            "tega-sentinel=tega.sentinel.main:main",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Database :: Database Engines/Servers",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
)
