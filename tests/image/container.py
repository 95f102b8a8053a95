"""The built image, and containers of it on runc: locked down as the strictest cluster would."""

import json
import os
import pathlib
import subprocess
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILT = ROOT / ".tools" / "image"
FILES = BUILT / "root"
# Memory of a container: what a small pod gets.
MEMORY_BYTES = 512 << 20
# Longest wait for anything, in seconds.
PATIENCE = 60.0


def settings():
    """What the image says of how it is run."""
    return json.loads((BUILT / "image.json").read_text())["config"]


def wait_until(condition, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience} s for: {what}")
        time.sleep(0.02)
    return value


class Container:
    """A container of the image with a read-only root, no capabilities, no way to new privileges
    and no network but a loopback of its own."""

    def __init__(self, folder, *arguments, environment=(), mounts=()):
        image = settings()
        self.name = f"onnxd-{uuid.uuid4().hex[:12]}"
        self.bundle = pathlib.Path(folder)
        subprocess.run(["runc", "spec", "--bundle", str(self.bundle)], check=True)
        spec = json.loads((self.bundle / "config.json").read_text())
        uid, gid = (int(number) for number in image["User"].split(":"))
        self.environment = [*image["Env"], *environment]
        spec["process"].update(
            terminal=False,
            args=[*image["Entrypoint"], *(arguments or image["Cmd"])],
            env=self.environment,
            user={"uid": uid, "gid": gid},
            capabilities={},
            noNewPrivileges=True,
            cwd="/",
        )
        spec["root"] = {"path": str(FILES), "readonly": True}
        spec["linux"]["resources"]["memory"] = {"limit": MEMORY_BYTES}
        for source, target in mounts:
            spec["mounts"].append(
                {"destination": target, "source": str(source), "options": ["bind", "ro"]}
            )
        (self.bundle / "config.json").write_text(json.dumps(spec))
        self.log = open(self.bundle / "log", "wb")
        self.process = subprocess.Popen(
            ["runc", "run", "--bundle", str(self.bundle), self.name],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )

    def text(self):
        """Everything that it has printed so far."""
        return (self.bundle / "log").read_text(errors="replace")

    def run(self, *command):
        """Runs a program of the image beside the server, with the same rights."""
        return subprocess.run(
            ["runc", "exec", self.name, *command],
            capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )

    def onnxd(self, *arguments):
        return self.run(*settings()["Entrypoint"], *arguments)

    def health(self):
        """Exit code of the image's own health check."""
        kind, *command = settings()["Healthcheck"]["Test"]
        assert kind == "CMD", "a check that needs a shell cannot run"
        return self.run(*command).returncode

    def wait_for_health(self):
        def healthy():
            assert self.process.poll() is None, self.text()
            return self.health() == 0

        wait_until(healthy, "the container is healthy")

    def pid(self):
        """The server's process, as this machine sees it."""
        done = subprocess.run(["runc", "state", self.name], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["pid"]

    def signal(self, name):
        subprocess.run(["runc", "kill", self.name, name], check=True)

    def wait(self):
        """Waits for the end; the exit code of the server."""
        return self.process.wait(timeout=PATIENCE)

    def remove(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=PATIENCE)
        subprocess.run(["runc", "delete", "--force", self.name], capture_output=True)
        self.log.close()


def network_of(pid, *command):
    """A command of this machine in the network of a process."""
    return ["nsenter", "--target", str(pid), "--net", "--", *command]


def written_files(root=FILES):
    """Name and time of every file of the image: what a run must leave alone."""
    return {
        path: (status.st_size, status.st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if (status := os.lstat(path))
    }
