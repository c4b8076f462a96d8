#!/usr/bin/env python3
"""Writes a docker-archive of many small text files: bench-files.py COUNT FILE.

The same arguments give the same bytes. Sizes are those of a Python installation: most files have a few
KiB, some up to 60 KiB, 4.4 KiB on average. One file in twenty equals an earlier one."""
import hashlib
import io
import json
import random
import sys
import tarfile


def contents(count):
    random.seed(1)
    words = [random.randbytes(random.randint(1, 6)).hex() for _ in range(20000)]
    seen = []
    for _ in range(count):
        if seen and random.random() < 0.05:
            yield random.choice(seen)
            continue
        size = min(int(random.lognormvariate(7.7, 1.1)), 60000)
        text = " ".join(random.choices(words, k=size // 8 + 1)).encode()[:size]
        if random.random() < 0.01:
            seen.append(text)
        yield text


def add(tar, name, data):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_700_000_000
    tar.addfile(entry, io.BytesIO(data))


def main():
    count, path = int(sys.argv[1]), sys.argv[2]
    layer = path + ".layer"
    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
        for number, data in enumerate(contents(count)):
            add(tar, f"data/{number // 1000:03}/{number % 1000 // 50:02}/file-{number:06}.txt", data)
    with open(layer, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
                         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": ["bench/files:latest"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        add(tar, "manifest.json", json.dumps(manifest).encode())
        add(tar, name, config)
        tar.add(layer, "layer.tar")


main()
