#!/usr/bin/env python3
"""Compares two builds of the program: the lines of the table, in pairs.

usage: scripts/compare.py OLD NEW --postgres URL [--rounds 4] [--seconds 5] [--lines NAMES]

OLD and NEW are programs (target/release/taskcast of two commits). Each line runs on both in turn,
on a fresh server and a fresh database each time, and the order changes from round to round. The
load is made by OLD for both. Give OLD twice to see what a build shows against itself. URL names a
database of a superuser; others are created beside it and dropped. Needs psql.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import time

LINES = {
    "publish": ("publish --tasks 100 --producers 50", "rate"),
    "stream": ("stream --tasks 50 --producers 50", "rate"),
    "batch": ("batch --tasks 100 --producers 50", "rate"),
    "accumulate": ("publish --producers 10 --series accumulate", "rate"),
    "lifecycle": ("lifecycle", "rate"),
    "memory": ("publish --tasks 100 --producers 50", "rate"),
    "fanout": ("fanout --subscribers 500", "rate"),
    "join": ("join --subscribers 20", "latency/join/max"),
    "replay": ("replay --subscribers 20", "latency/replay/max"),
    "paced": ("stream --tasks 50 --producers 50 --rate 400", "latency/delivery/p50"),
}

# Scenarios that end by themselves.
FINITE = ("join", "replay")


def psql(url, statement):
    command = ["psql", "-XAtqc", statement, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve(program, environment, port):
    command = [program, "serve", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{program} does not listen")


def run(options, program, line, number):
    """Runs a line; returns its value and the bytes of WAL for each event."""
    scenario, pointer = LINES[line]
    environment = {"PATH": os.environ["PATH"], "TASKCAST_LOG_LEVEL": "error"}
    name = f"taskcast_compare_{os.getpid()}_{number}"
    if line != "memory":
        psql(options.postgres, f"CREATE DATABASE {name}")
        base, _, _ = options.postgres.rpartition("/")
        environment["TASKCAST_POSTGRES_URL"] = f"{base}/{name}"
        migrate = [program, "migrate"]
        subprocess.run(migrate, env=environment, capture_output=True, check=True)
        psql(options.postgres, "CHECKPOINT")
    ports = [free_port() for _ in range(2 if line == "paced" else 1)]
    servers = [serve(program, environment, port) for port in ports]
    wal = "SELECT wal_bytes FROM pg_stat_wal"
    before = int(psql(options.postgres, wal))
    load = [options.old, "bench", *scenario.split(), "--json"]
    load += ["--url", f"http://127.0.0.1:{ports[0]}"]
    if line == "paced":
        load += ["--read-url", f"http://127.0.0.1:{ports[1]}"]
    if line not in FINITE:
        load += ["--duration", str(options.seconds)]
    output = subprocess.run(load, capture_output=True, text=True)
    # Sessions hand their statistics in about once a second.
    time.sleep(1.2)
    after = int(psql(options.postgres, wal))
    for server in servers:
        server.terminate()
        server.wait()
    if line != "memory":
        psql(options.postgres, f"DROP DATABASE {name} WITH (FORCE)")
    if output.returncode != 0:
        raise SystemExit(output.stdout + output.stderr)
    value = report = json.loads(output.stdout)
    for member in pointer.split("/"):
        value = value[member]
    return value, (after - before) / max(report["acknowledged"], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--lines", default=",".join(LINES))
    options = parser.parse_args()
    number = 0
    for line in options.lines.split(","):
        values, wal = {"old": [], "new": []}, {"old": [], "new": []}
        for turn in range(options.rounds):
            order = ["old", "new"] if turn % 2 == 0 else ["new", "old"]
            for build in order:
                number += 1
                value, bytes_each = run(options, getattr(options, build), line, number)
                values[build].append(value)
                wal[build].append(bytes_each)
        ratio = statistics.median(values["new"]) / statistics.median(values["old"])
        pairs = [f"{new / old:.2f}" for old, new in zip(values["old"], values["new"])]
        unit = "/s" if LINES[line][1] == "rate" else "ms"
        print(
            f"{line:<11} old {statistics.median(values['old']):>10.1f} {unit}"
            f"  new {statistics.median(values['new']):>10.1f} {unit}  ratio {ratio:.2f}"
            f"  pairs {' '.join(pairs)}  WAL bytes/event"
            f" {statistics.median(wal['old']):.0f} -> {statistics.median(wal['new']):.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
