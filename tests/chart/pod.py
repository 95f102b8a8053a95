"""A rendered pod as a process: what a kubelet would make of it, with the means of one machine.

The container's root is read-only and has what the image has. Volumes are folders that the test lays out
from rendered ConfigMaps and given Secrets. The process has the pod's user, no capabilities, a loopback of
its own with the container's ports, and names of Services lead there.
"""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import rendering

BINARY = os.environ["ONNXD_BIN"]
RUNTIME = os.environ["ONNXD_RUNTIME"]
PROBE = Path(__file__).with_name("probe.py")
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "--"]



def image_environment():
    """What the image sets, which the chart's flags must win over."""
    text = (rendering.ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    (stage,) = re.findall(r"^FROM \S+ AS image-cpu$(.*?)^FROM ", text, re.M | re.S)
    words = [word for line in re.findall(r"^ENV (.*)$", stage, re.M) for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


# The libraries that the binary and ONNX Runtime are linked with, where the image has them, too.
LIBRARIES = [name for name in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if Path(name).exists()]


def bytes_of(quantity):
    """A size as Kubernetes writes it."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}
    for unit, factor in units.items():
        if str(quantity).endswith(unit):
            return int(float(quantity[: -len(unit)]) * factor)
    return int(quantity)


class Volumes:
    """Volumes of a pod as folders."""

    def __init__(self, folder, spec, rendered, secrets, folders=None):
        self.paths, self.sizes = {}, {}
        folder = Path(tempfile.mkdtemp(dir=folder))
        for volume in spec.get("volumes", []):
            name, kind = volume["name"], next(key for key in volume if key != "name")
            source, path = volume[kind], folder / volume["name"]
            path.mkdir()
            if kind == "configMap":
                texts = rendering.only(rendered, "ConfigMap", source["name"])["data"]
                self._write(path, {key: text.encode() for key, text in texts.items()}, 0o644)
            elif kind == "secret":
                contents = self._secret(source["secretName"], rendered, secrets)
                items = {item["key"]: item["path"] for item in source.get("items", [])}
                if items:
                    contents = {path: contents[key] for key, path in items.items()}
                self._write(path, contents, source.get("defaultMode", 0o644))
            elif kind == "emptyDir":
                self.sizes[name] = bytes_of(source.get("sizeLimit", "64Mi"))
            else:
                path = Path((folders or {})[name])
            self.paths[name] = path
        group = spec["securityContext"]["fsGroup"]
        subprocess.run([*AS_ROOT, "chown", "-Rh", f"root:{group}", str(folder)], check=True)

    @staticmethod
    def _secret(name, rendered, secrets):
        if name in secrets:
            return secrets[name]
        secret = rendering.only(rendered, "Secret", name)
        contents = {key: text.encode() for key, text in secret.get("stringData", {}).items()}
        coded = secret.get("data", {}).items()
        return contents | {key: base64.b64decode(text) for key, text in coded}

    @staticmethod
    def _write(folder, contents, mode):
        """As a kubelet does: files of root and the pod's group, reached over a link that it can swap."""
        real = folder / "..1"
        real.mkdir()
        for name, content in contents.items():
            (real / name).write_bytes(content)
            (real / name).chmod(mode)
            (folder / name).symlink_to(f"..data/{name}")
        (folder / "..data").symlink_to("..1")


class Container:
    """A container of a pod spec, running."""

    def __init__(self, spec, container, volumes, names=(), network_of=None, patience=60.0):
        self.container, self.patience = container, patience
        self.folder = Path(tempfile.mkdtemp(prefix="onnxd-pod-"))
        context = spec.get("securityContext", {}) | container.get("securityContext", {})
        self.user, self.group = context["runAsUser"], context["runAsGroup"]
        assert context["runAsNonRoot"] and self.user != 0
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost " + " ".join(names) + "\n")
        command = [*AS_ROOT]
        if network_of is not None:
            command += ["nsenter", "--net", "--target", str(network_of), "--"]
        command += ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        if network_of is None:
            command += ["--unshare-net"]
        command += ["--cap-add", "ALL", "--dev", "/dev", "--proc", "/proc"]
        mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
        # Folders that come into being as parents would be closed to the pod's user.
        targets = ["/usr/local/bin/onnxd", "/usr/local/lib/onnxd", "/usr/bin/setpriv", "/etc/hosts", *mounts]
        parents = {str(parent) for target in targets for parent in Path(target).parents[:-1]}
        for parent in sorted(parents):
            command += ["--perms", "0755", "--dir", parent]
        for library in LIBRARIES:
            command += ["--ro-bind", library, library]
        for source, target in [
            (BINARY, "/usr/local/bin/onnxd"),
            (RUNTIME, "/usr/local/lib/onnxd"),
            (shutil.which("setpriv"), "/usr/bin/setpriv"),
            (hosts, "/etc/hosts"),
        ]:
            command += ["--ro-bind", str(source), target]
        if "/models" not in mounts:
            command += ["--ro-bind", str(rendering.ROOT / "models"), "/models"]
        for path, mount in mounts.items():
            name = mount["name"]
            if name in volumes.sizes:
                command += ["--perms", "1777", "--size", str(volumes.sizes[name]), "--tmpfs", path]
            else:
                assert mount.get("readOnly"), f"{name} can be written"
                command += ["--ro-bind", str(volumes.paths[name] / mount.get("subPath", "")), path]
        if container["securityContext"]["readOnlyRootFilesystem"]:
            command += ["--remount-ro", "/"]
        environment = image_environment() | {
            each["name"]: each["value"] for each in container.get("env", []) if "value" in each
        }
        command += ["--clearenv"]
        for name, value in environment.items():
            command += ["--setenv", name, value]
        command += ["--", "/usr/bin/setpriv", "--reuid", str(self.user), "--regid", str(self.group)]
        command += ["--groups", str(spec["securityContext"]["fsGroup"])]
        command += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"]
        command += ["/usr/local/bin/onnxd", *container["args"]]
        self.output, self.errors = self.folder / "stdout", self.folder / "stderr"
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(command, stdout=output, stderr=errors)

    def text(self):
        return self.output.read_text() + self.errors.read_text()

    def pid(self):
        """The server's process, below those that set it up; as this machine counts them."""
        def children(parent):
            task = Path(f"/proc/{parent}/task/{parent}/children")
            return [int(word) for word in task.read_text().split()]

        def found():
            assert self.process.poll() is None, self.text()
            ring = [self.process.pid]
            while ring:
                for pid in ring:
                    if Path(f"/proc/{pid}/comm").read_text().strip() == "onnxd":
                        return pid
                ring = [child for pid in ring for child in children(pid)]
            return None

        return wait_until(found, "the server's process", self.patience)

    def status(self, key):
        """A line of the process's status."""
        for line in Path(f"/proc/{self.pid()}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value.split()
        raise AssertionError(f"no {key}")

    def beside(self, *command, **options):
        """Runs a command of this machine in the pod's network."""
        return subprocess.run(
            [*AS_ROOT, "nsenter", "--net", "--target", str(self.pid()), "--", *command],
            capture_output=True,
            text=True,
            timeout=self.patience,
            **options,
        )

    def probe(self, probe):
        """Asks as a kubelet does; whether the answer is a good one, and its words."""
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        probe = json.loads(json.dumps(probe))
        for how in ("httpGet", "grpc"):
            if how in probe:
                probe[how]["port"] = ports.get(probe[how]["port"], probe[how]["port"])
        done = self.beside(sys.executable, str(PROBE), json.dumps(probe))
        return done.returncode == 0, done.stdout + done.stderr

    def signal(self, name):
        subprocess.run([*AS_ROOT, "kill", f"-{name}", str(self.pid())], check=True)

    def wait(self, patience=None):
        """Its exit code."""
        return self.process.wait(timeout=patience or self.patience)

    def close(self):
        if self.process.poll() is None:
            subprocess.run([*AS_ROOT, "kill", "-KILL", str(self.process.pid)], check=False)
            self.process.wait(timeout=self.patience)
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(condition, what, patience=60.0):
    """The first true value of `condition`; fails when it takes too long."""
    end = time.monotonic() + patience
    tick = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience} s for: {what}")
        tick.wait(0.02)
