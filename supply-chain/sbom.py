#!/usr/bin/env python3
"""The bill of materials: every crate that is in the server, and ONNX Runtime, as CycloneDX.

What is built in follows from `cargo metadata` (no tools of tests or of the build), versions and sums
from Cargo.lock, ONNX Runtime from the manifest that `onnxd setup` has put beside the library.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = Path(os.environ.get("ONNXD_RUNTIME_LIBRARY", ROOT / "target/release/onnxruntime"))


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)


def built_in(found):
    """Packages that the server contains, and what each depends on, by their ids."""
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    depends, wanted = {}, [found["resolve"]["root"]]
    while wanted:
        package = wanted.pop()
        if package in depends:
            continue
        # Kind null is what is built in; the others are tools of the build and of tests.
        depends[package] = [
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        wanted += depends[package]
    return depends


def sums():
    """SHA-256 of each package, as Cargo.lock has it."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {
        (package["name"], package["version"]): package["checksum"]
        for package in lock["package"]
        if "checksum" in package
    }


def sha256(text):
    return [HashType(alg=HashAlgorithm.SHA_256, content=text)]


def licence(expression):
    # Cargo's older form of "or".
    return [LicenseFactory().make_from_string(expression.replace("/", " OR "))]


def crate(package, sums, kind=ComponentType.LIBRARY):
    name, version = package["name"], package["version"]
    checksum = sums.get((name, version))
    return Component(
        type=kind,
        name=name,
        version=version,
        description=package["description"],
        licenses=licence(package["license"]) if package["license"] else [],
        hashes=sha256(checksum) if checksum else [],
        purl=PackageURL("cargo", name=name, version=version),
        bom_ref=f"{name}@{version}",
    )


def runtime():
    """ONNX Runtime, which is loaded and not linked."""
    manifest = json.loads((RUNTIME / "manifest.json").read_text())
    return Component(
        type=ComponentType.LIBRARY,
        name=manifest["name"],
        version=manifest["version"],
        description=f"{manifest['library']}, {manifest['flavor']}, {manifest['arch']}",
        licenses=licence("MIT"),
        hashes=sha256(manifest["sha256"]),
        purl=PackageURL("generic", "microsoft", manifest["name"], manifest["version"]),
        bom_ref=f"{manifest['name']}@{manifest['version']}",
    )


def bill():
    found, known = metadata(), sums()
    depends = built_in(found)
    packages = {package["id"]: package for package in found["packages"]}
    root = found["resolve"]["root"]
    made = {package: crate(packages[package], known) for package in depends if package != root}
    bom, library = Bom(), runtime()
    bom.metadata.component = crate(packages[root], known, ComponentType.APPLICATION)
    made[root] = bom.metadata.component
    for package, component in made.items():
        if package != root:
            bom.components.add(component)
    bom.components.add(library)
    for package, needed in depends.items():
        others = [made[each] for each in needed]
        bom.register_dependency(made[package], others + ([library] if package == root else []))
    return bom


def main(arguments):
    out = Path(arguments[0]) if arguments else ROOT / "target/onnxd.cdx.json"
    bom = bill()
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not CycloneDX: {fault}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(f"{out}: {len(bom.components)} components")


if __name__ == "__main__":
    main(sys.argv[1:])
