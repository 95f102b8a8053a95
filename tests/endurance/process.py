"""What the system and the server's own gauges say of the process."""

import os
import re
import urllib.request


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def samples(admin):
    """All samples of the metrics: name, labels, value."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    pattern = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)")
    found = []
    for line in text.splitlines():
        matched = pattern.match(line)
        if matched:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', matched.group(2) or ""))
            found.append((matched.group(1), labels, float(matched.group(3))))
    return found


def total(found, name, **wanted):
    return sum(
        value
        for each, labels, value in found
        if each == name and all(labels.get(key) == want for key, want in wanted.items())
    )


def slope(points):
    """Least squares: what y grows per unit of x."""
    count = len(points)
    x_mean = sum(x for x, _ in points) / count
    y_mean = sum(y for _, y in points) / count
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / max(spread, 1e-9)


GAUGES = ("onnxd_queue_jobs", "onnxd_running", "onnxd_request_memory_bytes")


def busy(admin):
    """Gauges that are not at zero."""
    found = samples(admin)
    return {name: total(found, name) for name in GAUGES if total(found, name)}
